"""k-means: its centres on the pixels, or the real images nearest to its centres among features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from engine.accel import Accel
from engine.baselines.features import class_features
from engine.baselines.pick import Picked
from engine.data.base import Dataset

MAX_POINTS = 5000  # of a class that k-means looks at
ITERATIONS = 30  # after which the centres hardly move; many centres of many pixels would take minutes to come to rest


def centres(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """Centres of k-means (k = ``ipc``) on the normalised pixels of each class: blurred images, not real ones.

    With one image per class that is the mean of the whole class.
    """
    out = []
    for c, members in enumerate(data.by_class):
        points = data.normalise(data.train_images[members if ipc == 1 else _some(members, seed)])
        out.append(torch.from_numpy(_fit(points.flatten(1).numpy(), ipc, seed)).view(ipc, *points.shape[1:]))
        progress((c + 1) / len(data.classes))
    return Picked(images=torch.cat(out))


def nearest(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """For each k-means centre among the features of a class, the nearest image that is not taken yet."""
    features = class_features(data, seed, accel, lambda fraction: progress(0.8 * fraction))
    picked = []
    for members, points in zip(data.by_class, features.by_class, strict=True):
        means = torch.from_numpy(_fit(points[_some(torch.arange(len(points)), seed)].numpy(), ipc, seed))
        picked.append(members[nearest_each(points, means)])
    progress(1.0)
    return Picked(torch.cat(picked), notes=features.notes)


def nearest_each(points: Tensor, means: Tensor) -> Tensor:
    """Indices (k,) of the points (N, D) nearest to the means (k, D), no point twice.

    The pair that is closest of all is settled first, so that the order of the means does not matter.
    """
    distances = torch.cdist(means.double(), points.double())
    out = torch.zeros(len(means), dtype=torch.long)
    for _ in range(len(means)):
        mean, point = divmod(int(distances.argmin()), len(points))
        out[mean] = point
        distances[mean, :] = torch.inf
        distances[:, point] = torch.inf
    return out


def _some(members: Tensor, seed: int) -> Tensor:
    """At most ``MAX_POINTS`` of the members, at random."""
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
    return members[order[:MAX_POINTS]]


def _fit(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Centres (k, D) float32 of scikit-learn's k-means."""
    if k == 1:
        return points.mean(0, keepdims=True, dtype=np.float64).astype(np.float32)
    return KMeans(k, n_init=1, max_iter=ITERATIONS, random_state=seed).fit(points).cluster_centers_.astype(np.float32)
