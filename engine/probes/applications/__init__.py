"""What distilled images, and the objectives that make them, are good for and can be abused for."""
