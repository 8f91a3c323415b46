"""From arrays to a ``Dataset``: what all sources of images share."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.data.catalogue import DATASETS

# Those of the papers' code, so that sets can be exchanged with it to the last digit.
PAPERS = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


def assemble(
    name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], masks: dict[str, Tensor] | None = None
) -> Dataset:
    """The catalogue's dataset ``name`` from (images (N, C, H, W) uint8, labels (N,)) of training and test."""
    info = DATASETS[name]
    mean, std = PAPERS.get(name) or statistics(train[0])
    return Dataset(
        name,
        info.title,
        info.classes,
        train[0].contiguous(),
        train[1].long(),
        test[0].contiguous(),
        test[1].long(),
        mean,
        std,
        masks or {},
    )


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), on the scale [0, 1].

    Counts of the 256 values are exact and need no copy of the images as floats. A constant channel gets deviation 1.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        mean = (counts * values).sum() / counts.sum()
        variance = (counts * (values - mean) ** 2).sum() / counts.sum()
        means.append(float(mean))
        deviations.append(float(variance.sqrt()) or 1.0)
    return tuple(means), tuple(deviations)


def split_by_class(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """A stratified split of (N,) labels: indices of training and test, the latter ``fraction`` of every class.

    At least one image of every class with two or more goes to each side.
    """
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for c in labels.unique():
        members = torch.nonzero(labels == c).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        test.append(members[:count])
        train.append(members[count:])
    return torch.cat(train).sort().values, torch.cat(test).sort().values
