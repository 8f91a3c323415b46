"""Questions put to trained students: what they look at, whether texture or shape decides, what breaks them.

A probe is a table of parameters (``engine.probes.specs``, torch-free) and one file with a function
``answer(spec, work) -> Answer``. ``engine.probes.desk`` takes questions and keeps answers; a resident process
(``engine.probes.answerer``) works them out, so that pages never import torch.
"""
