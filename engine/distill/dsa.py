"""Gradient matching with differentiable siamese augmentation: DSA (Zhao & Bilen, ICML 2021).

Gradient matching (``engine.distill.dc``) in which each class and step has one random augmentation that the real and the
synthetic images share, parameters and all, so that their gradients stay comparable (equation 3 of the paper). While the
network trains between two updates, each batch has an augmentation with parameters of each image's own.

The paper's code keeps the two branches alike by reseeding; here parameters are drawn once and handed to both. A view
of the bank at IPC 1 is a (network, augmentation of each class, real class gradients): whichever view a step draws, its
network, augmentations and real images are distributed as if they were fresh, so the expected gradient is that of the
paper's loop.
"""

from __future__ import annotations

from typing import Any

from engine.accel import Accel
from engine.augment import draw, strategy_for
from engine.data.base import Dataset
from engine.distill import dc
from engine.spec import RunSpec


class Method(dc.Method):
    """DSA as a distiller; see the module's text. One step is one update of the images."""

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        self.strategy = strategy_for(data)
        super().setup(spec, data, accel)

    def _augmentation(self, rows: int = 1) -> list[Any]:
        """One operation of the strategy, with the same parameters for all images, or (``rows``) for each its own."""
        return list(draw(self.strategy, self.generator, self.data.size, rows))
