"""What every real dataset is, once loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from engine.strategies import flips


@dataclass(frozen=True, eq=False)
class Dataset:
    """Real images, held once as uint8.

    Shapes: ``train_images`` (N, C, H, W) uint8 in 0..255, ``train_labels`` (N,) int64 in 0..K-1; test alike. ``mean``
    and ``std`` are per channel, of the training images scaled to [0, 1]. ``masks`` maps ``"train"``/``"test"`` to
    (N, H, W) bool foreground masks where the dataset has them. ``notes``: sentences about what was left out.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masks: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train_images.shape[1]

    @property
    def size(self) -> int:
        """Side of the square images, in pixels."""
        return self.train_images.shape[2]

    @property
    def flips(self) -> bool:
        """Whether a mirrored image keeps its class: False where the images are characters."""
        return flips(self.name, self.channels)

    @cached_property
    def held_out(self) -> Tensor:
        """Indices (int64) of the training images kept aside for selection: 5,000, or a tenth of a small set.

        The split is stratified by class and fixed: it depends on nothing but the dataset, so that no run ever selects
        on images that another run trained on.
        """
        count = min(5000, len(self.train_labels) // 10)
        generator = torch.Generator().manual_seed(20181127)
        sizes = self.train_labels.bincount(minlength=len(self.classes))
        # Whole numbers in proportion to the class sizes that add up to ``count``: what is left over after rounding
        # down goes to the largest remainders.
        quotas = count * sizes.double() / len(self.train_labels)
        shares = quotas.floor().long()
        shares[(shares - quotas).argsort(stable=True)[: count - int(shares.sum())]] += 1
        picked = []
        for c, (share, size) in enumerate(zip(shares.tolist(), sizes.tolist(), strict=True)):
            members = torch.nonzero(self.train_labels == c).flatten()
            picked.append(members[torch.randperm(size, generator=generator)[: min(max(share, 1), size - 1)]])
        return torch.cat(picked).sort().values

    @cached_property
    def distil_indices(self) -> Tensor:
        """Indices (int64) of the training images that methods and baselines may use: all but ``held_out``."""
        keep = torch.ones(len(self.train_labels), dtype=torch.bool)
        keep[self.held_out] = False
        return torch.nonzero(keep).flatten()

    @cached_property
    def by_class(self) -> tuple[Tensor, ...]:
        """Per class, the indices (int64) of the training images that methods and baselines may use."""
        labels = self.train_labels[self.distil_indices]
        return tuple(self.distil_indices[labels == c] for c in range(len(self.classes)))

    @cached_property
    def digest(self) -> str:
        """What the training images, their labels and their scale are known by, on disk: 24 hexadecimal digits."""
        digest = hashlib.sha256(self.train_images.contiguous().numpy().data)
        digest.update(self.train_labels.contiguous().numpy().data)
        digest.update(repr((self.mean, self.std)).encode())
        return digest.hexdigest()[:24]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images (..., C, H, W) as float32, scaled to [0, 1], minus ``mean``, over ``std``."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.float() / 255 - mean) / std
