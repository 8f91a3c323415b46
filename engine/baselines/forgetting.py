"""Forgetting (Toneva et al., An Empirical Study of Example Forgetting, ICLR 2019): the images unlearned most often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from engine.accel import Accel
from engine.baselines.dynamics import top_of_each_class, training_dynamics
from engine.baselines.pick import Picked
from engine.data.base import Dataset

NeverLearned = Literal["share", "first"]


def make(
    data: Dataset,
    ipc: int,
    seed: int,
    accel: Accel,
    progress: Callable[[float], None],
    never_learned: NeverLearned = "share",
) -> Picked:
    """Per class, the ``ipc`` images forgotten most often.

    An image that was never right was never forgotten either, yet is no easy one: it ranks before all others, as in the
    paper. Their longest training leaves few such images; a short one leaves enough of them to fill any small set, and
    nothing tells them apart, so that the set would hold no forgotten image at all, but the mislabelled ones and those
    that would have been learned a little later. Therefore ``never_learned`` is ``share`` unless asked for: they get
    as large a part of a class's places as they are of the class, by lot, and the most forgotten of the others get the
    rest. ``first`` gives them every place, as published.
    """
    dynamics = training_dynamics(data, seed, accel, progress)
    generator = torch.Generator().manual_seed(seed)
    counts, never = forgetting(dynamics.margins)
    scores = ranked(counts, never)
    if never_learned == "share":
        sizes = [len(members) for members in data.by_class]
        parts = zip(scores.split(sizes), never.split(sizes), strict=True)
        scores = torch.cat([limited(score, mine, ipc, generator) for score, mine in parts])
    notes = {**dynamics.notes, "never_learned": never_learned, "share_never_learned": float(never.double().mean())}
    return Picked(top_of_each_class(data, scores, ipc, generator), notes=notes)


def forgetting(margins: Tensor) -> tuple[Tensor, Tensor]:
    """Forgetting events (N,) and whether an image was never learned (N,), of margins (networks, epochs, N).

    An event is a right answer followed by a wrong one an epoch later (their section 3); events of all networks add up.
    Never learned: wrong in every epoch of every network.
    """
    right = margins > 0
    return (right[:, :-1] & ~right[:, 1:]).sum((0, 1)), ~right.any(1).any(0)


def ranked(counts: Tensor, never: Tensor) -> Tensor:
    """Scores (N,) float64: the counts, and infinity for what was never learned."""
    return counts.double().masked_fill(never, torch.inf)


def limited(scores: Tensor, never: Tensor, ipc: int, generator: torch.Generator) -> Tensor:
    """Scores of one class with only so many infinite ones as ``ipc`` times the share of the never learned.

    The others of them, drawn by lot, come last: minus infinity.
    """
    those = torch.nonzero(never).flatten()
    places = round(ipc * len(those) / len(never))
    places = max(places, ipc - (len(never) - len(those)))  # where the others do not suffice
    left_out = those[torch.randperm(len(those), generator=generator)[places:]]
    return scores.index_fill(0, left_out, -torch.inf)
