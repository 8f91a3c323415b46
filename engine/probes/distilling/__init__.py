"""Questions about a distillation: one of its steps in slow motion, its images in feature space."""
