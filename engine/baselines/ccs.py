"""Coverage-centric coreset selection (Zheng, Liu, Lai & Prakash, ICLR 2023): every difficulty but the hardest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.accel import Accel
from engine.baselines.dynamics import Dynamics, training_dynamics
from engine.baselines.pick import Picked
from engine.data.base import Dataset

STRATA = 50  # in the paper; here no more than there are places, so that none stays empty by rounding


def make(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """Per class: leave out the hardest share β by AUM, cut the rest into strata of equal width, take as many of each.

    The paper selects a tenth or more of a dataset without regard to classes; here each class is a selection of its
    own, so that every class has ``ipc`` images.
    """
    dynamics = training_dynamics(data, seed, accel, progress)
    generator = torch.Generator().manual_seed(seed)
    scores = aum(dynamics)
    picked = []
    for members, own in zip(data.by_class, scores.split([len(m) for m in data.by_class]), strict=True):
        picked.append(members[select(own, ipc, hardest(ipc / len(members)), min(STRATA, ipc), generator)])
    return Picked(torch.cat(picked), notes={**dynamics.notes, "left_out": hardest(ipc / min(map(len, data.by_class)))})


def aum(dynamics: Dynamics) -> Tensor:
    """Area under the margin (N,) in [-1, 1]: the mean margin over epochs and networks; low for hard and mislabelled
    images (Pleiss et al., NeurIPS 2020, eq. 2; with probabilities instead of logits, as CCS logs it)."""
    return dynamics.margins.mean((0, 1))


def hardest(kept: float) -> float:
    """β for a kept share: the paper's 0.3 for a tenth of CIFAR-10 (and for less), 0.2 for a fifth, else a tenth."""
    return 0.3 if kept <= 0.1 else 0.2 if kept <= 0.2 else 0.1


def select(scores: Tensor, count: int, beta: float, strata: int, generator: torch.Generator) -> Tensor:
    """Indices (count,) of scores (N,), low for hard ones (their algorithm 1).

    ⌊β N⌋ of the lowest are left out (fewer where too few would remain). The rest falls into ``strata`` of equal width
    over the range of its scores, from the smallest of which on each gives an equal part of the places not yet given,
    or all it has. Inside a stratum images are drawn by lot.
    """
    order = scores.argsort(stable=True)
    rest = order[min(int(beta * len(scores)), len(scores) - count) :]
    low, high = float(scores[rest[0]]), float(scores[rest[-1]])
    width = (high - low) / strata or 1.0
    stratum = ((scores[rest] - low) / width).long().clamp(0, strata - 1)
    picked = []
    sizes = stratum.bincount(minlength=strata)
    for (one, size), places in zip(_ascending(sizes), budgets(sorted(sizes.tolist()), count), strict=True):
        members = rest[stratum == one]
        picked.append(members[torch.randperm(size, generator=generator)[:places]])
    return torch.cat(picked)


def _ascending(sizes: Tensor) -> list[tuple[int, int]]:
    """Numbers and sizes of the strata, smallest first."""
    return sorted(enumerate(sizes.tolist()), key=lambda pair: pair[1])


def budgets(sizes: list[int], count: int) -> list[int]:
    """Places of each stratum, of sizes in ascending order: an equal part of those left, or all it has."""
    out: list[int] = []
    for i, size in enumerate(sizes):
        out.append(min(size, (count - sum(out)) // (len(sizes) - i)))
    return out
