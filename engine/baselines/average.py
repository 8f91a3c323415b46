"""Class averages."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.accel import Accel
from engine.baselines.pick import Picked
from engine.data.base import Dataset


def make(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """Each image is the mean of a part of its class; the ``ipc`` parts are random, disjoint and of equal size (±1).

    With one image per class that is the mean of the whole class.
    """
    generator = torch.Generator().manual_seed(seed)
    means = []
    for members in data.by_class:
        order = members[torch.randperm(len(members), generator=generator)]
        # Whole numbers add up exactly in float64, in whatever order they come.
        means += [data.train_images[part].double().mean(0) for part in order.tensor_split(ipc)]
    return Picked(images=data.normalise(torch.stack(means)))
