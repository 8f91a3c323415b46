"""Herding in a feature space (Welling, ICML 2009; as coreset code of dataset distillation does it)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.accel import Accel
from engine.baselines.features import class_features
from engine.baselines.pick import Picked
from engine.data.base import Dataset


def make(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """Per class, images added one by one so that the mean of their features stays closest to the class mean."""
    features = class_features(data, seed, accel, lambda fraction: progress(0.9 * fraction))
    picked = [m[herd(points, ipc)] for m, points in zip(data.by_class, features.by_class, strict=True)]
    progress(1.0)
    return Picked(torch.cat(picked), notes=features.notes)


def herd(points: Tensor, count: int) -> Tensor:
    """Indices (count,) of points (N, D): for k = 0, 1, …, the argmin of ‖(k + 1) μ - Σ picked - f‖ not taken yet."""
    points = points.double()
    mean, total = points.mean(0), torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    squares = points.square().sum(1)
    out: list[int] = []
    for k in range(count):
        # ‖t - f‖² = ‖t‖² - 2 t·f + ‖f‖², of which ‖t‖² is the same for all f.
        distances = squares - points @ (2 * ((k + 1) * mean - total))
        distances[out] = torch.inf
        out.append(int(distances.argmin()))
        total += points[out[-1]]
    return torch.tensor(out)
