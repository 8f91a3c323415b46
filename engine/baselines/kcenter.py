"""Greedy k-center in a feature space (Sener & Savarese, ICLR 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.accel import Accel
from engine.baselines.features import class_features
from engine.baselines.pick import Picked
from engine.data.base import Dataset


def make(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """Per class, first the image nearest to the class mean, then each time the one farthest from those taken."""
    features = class_features(data, seed, accel, lambda fraction: progress(0.9 * fraction))
    picked = [m[spread(points, ipc)] for m, points in zip(data.by_class, features.by_class, strict=True)]
    progress(1.0)
    return Picked(torch.cat(picked), notes=features.notes)


def spread(points: Tensor, count: int) -> Tensor:
    """Indices (count,) of points (N, D): nearest to the mean, then argmax over i of min over taken s of ‖f_i - f_s‖."""
    points = points.double()
    out = [int((points - points.mean(0)).square().sum(1).argmin())]
    squares = points.square().sum(1)
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64)
    for _ in range(count - 1):
        # ‖f - s‖² = ‖f‖² + ‖s‖² - 2 f·s; rounding may take it a little below zero.
        distances = squares + squares[out[-1]] - points @ (2 * points[out[-1]])
        nearest = torch.minimum(nearest, distances.clamp_min(0))
        nearest[out[-1]] = -1  # never again, even when every other point lies on a taken one
        out.append(int(nearest.argmax()))
    return torch.tensor(out)
