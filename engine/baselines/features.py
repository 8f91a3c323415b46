"""The feature space in which baselines compare real images: that of a network briefly trained on them.

Kept on disk, so that herding, k-center and k-means share the network and its features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.accel import Accel
from engine.baselines import keeping
from engine.data.base import Dataset
from engine.networks import Network, make_network

VERSION = 1  # raise it when anything below changes the features
IMAGES, EPOCHS, MIN_STEPS, BATCH, RATE = 10_000, 2, 200, 64, 1e-3


@dataclass(frozen=True, eq=False)
class Features:
    """``by_class``: per class (N_c, D) float32, as ``Dataset.by_class`` has them. ``notes``: where they come from."""

    by_class: list[Tensor]
    notes: dict[str, Any]


def class_features(data: Dataset, seed: int, accel: Accel, progress: Callable[[float], None]) -> Features:
    """Flattened features of a ConvNet-3 trained for two epochs on at most 10,000 of the images that methods may use.

    Without augmentation. The network is 64 channels wide on a CPU, 128 elsewhere. ``progress`` hears of a fraction.
    """
    width = 64 if accel.device.type == "cpu" else 128
    notes = {"features": f"convnet of width {width}, trained for {EPOCHS} epochs on at most {IMAGES:,} images"}
    path = keeping.place("features", data, accel, width, seed, f"v{VERSION}")
    flat = (keeping.kept(path) or {}).get("features")
    if flat is None:
        network = _train(data, seed, width, accel, lambda fraction: progress(0.6 * fraction))
        flat = _features(network, data, accel, lambda fraction: progress(0.6 + 0.4 * fraction))
        keeping.keep({"features": flat}, path)
    sizes = [len(members) for members in data.by_class]
    return Features([part.float() for part in flat.split(sizes)], notes)


def _train(data: Dataset, seed: int, width: int, accel: Accel, progress: Callable[[float], None]) -> Network:
    network = make_network("convnet", data.channels, data.size, len(data.classes), width, seed=seed).to(accel.device)
    generator = torch.Generator().manual_seed(seed)
    chosen = data.distil_indices[torch.randperm(len(data.distil_indices), generator=generator)[:IMAGES]]
    steps = max(EPOCHS * len(chosen) // BATCH, MIN_STEPS)
    batches = torch.cat(
        [torch.randperm(len(chosen), generator=generator) for _ in range(-(-steps * BATCH // len(chosen)))]
    )[: steps * BATCH].view(steps, BATCH)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for step, batch in enumerate(batches):
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps)
        indices = chosen[batch]
        images = data.normalise(data.train_images[indices].to(accel.device))
        with accel.autocast():
            out = network(images)
        loss = F.cross_entropy(out.float(), data.train_labels[indices].to(accel.device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress((step + 1) / steps)
    return network


@torch.no_grad()
def _features(network: Network, data: Dataset, accel: Accel, progress: Callable[[float], None]) -> Tensor:
    """(N, D) float16 features of the images of ``data.by_class``, class after class."""
    indices, out = torch.cat(data.by_class), []
    for part in indices.split(256):
        with accel.autocast():
            features = network.features(data.normalise(data.train_images[part].to(accel.device)))
        # Half precision for the disk, and the same whether they come from there or not.
        out.append(features.half().cpu())
        progress(len(out) * 256 / (len(indices) + 255))
    return torch.cat(out)
