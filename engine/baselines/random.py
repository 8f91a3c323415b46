"""Random real images."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.accel import Accel
from engine.baselines.pick import Picked, random_set
from engine.data.base import Dataset


def make(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """``ipc`` images of each class, without replacement."""
    return Picked(random_set(data, ipc, torch.Generator().manual_seed(seed)))
