"""Adversarial training images: projected gradient ascent on the student's loss, within a small box of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.synthetic import ZCA


@dataclass(frozen=True, eq=False)
class Adversary:
    """Projected gradient descent in the maximum norm (Madry et al., Towards Deep Learning Models Resistant to
    Adversarial Attacks, ICLR 2018, section 2.1).

    ``epsilon``: the largest change of a pixel, in 255ths of the pixel range. ``steps`` signed gradient steps of 2.5
    ``epsilon`` / ``steps`` each. ``mean``, ``std`` and ``zca`` say in which space the images are.
    """

    epsilon: float
    steps: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    zca: ZCA | None = None

    def attack(self, gradient: Callable[[Tensor], Tensor], images: Tensor, noise: Tensor) -> Tensor:
        """Images (N, C, H, W) in the student's space, moved to where its loss is larger.

        ``gradient`` gives the gradient of the loss at such images; ``noise`` (N, C, H, W) in [-1, 1] times the radius
        is where the search starts. No pixel leaves the box of ``epsilon`` around it, nor the pixel range further than
        it was (synthetic images may be outside).
        """
        mean = torch.tensor(self.mean, device=images.device, dtype=images.dtype).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device, dtype=images.dtype).view(-1, 1, 1)
        radius = self.epsilon / 255 / std
        start = self.zca.unwhiten(images) if self.zca else images
        low = torch.maximum(start - radius, torch.minimum(-mean / std, start))
        high = torch.minimum(start + radius, torch.maximum((1 - mean) / std, start))
        moved = (start + radius * noise).clamp(low, high)
        for _ in range(self.steps):
            up = gradient(self.zca.whiten(moved) if self.zca else moved)
            if self.zca:  # whitening is linear and symmetric: it carries gradients back as it carries images
                up = self.zca.whiten(up + self.zca.centre.to(up).view(up.shape[1:]))
            moved = (moved + 2.5 * radius / self.steps * up.sign()).clamp(low, high)
        return self.zca.whiten(moved) if self.zca else moved
