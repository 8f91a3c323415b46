"""Accuracy of students trained on a synthetic set: mean and spread over seeds, under a named protocol."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from engine.accel import Accel
from engine.data.base import Dataset
from engine.errors import Refused
from engine.students.train import Group, Pace, Plan, make_plan, place, train_slices
from engine.synthetic import SyntheticSet

Split = Literal["test", "held-out"]


@dataclass(frozen=True)
class Evaluation:
    """Accuracies as fractions in [0, 1], and what they were measured under.

    ``std`` is the population standard deviation over ``seeds``; ``seconds`` counts computing only, not the pauses
    between slices. ``images`` real images were classified.
    """

    mean: float
    std: float
    accuracies: list[float]
    protocol: str
    network: str
    seconds: float
    split: Split
    seeds: list[int]
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return asdict(self)


def evaluate_slices(
    synthetic: SyntheticSet,
    data: Dataset,
    protocol: str,
    *,
    network: str | None = None,
    seeds: int = 3,
    seed: int = 0,
    accel: Accel | None = None,
    split: Split = "test",
    limit: int | None = None,
    adjust: Callable[[Plan], Plan] | None = None,
) -> Generator[float, None, Evaluation]:
    """Train ``seeds`` students (seeds ``seed``, ``seed + 1``, ...) and classify the real images of ``split``.

    A generator: each ``next`` does a small piece of the work (one optimiser step, or one batch of real images) and
    gives the fraction done; the ``Evaluation`` is its return value. Whatever is random comes from the students' seeds,
    so that interleaving it with other work changes neither. ``split`` ``held-out`` are the training images kept aside
    for selection. ``limit``: classify only so many of them, always the same random ones. ``adjust`` changes the
    plan before it is followed (another size of the network, another learning rate). A set that is followed from one
    network's initial weights has one student only.

    Raises ``Refused`` (at the first ``next``) when set, dataset, protocol and network do not fit.
    """
    work = _evaluate(synthetic, data, protocol, network, seeds, seed, accel, split, limit, adjust)
    seconds = 0.0
    while True:
        began = time.perf_counter()
        try:
            fraction = next(work)
        except StopIteration as end:
            return replace(end.value, seconds=seconds + time.perf_counter() - began)
        seconds += time.perf_counter() - began
        yield fraction


def evaluate(
    synthetic: SyntheticSet,
    data: Dataset,
    protocol: str,
    *,
    network: str | None = None,
    seeds: int = 3,
    seed: int = 0,
    accel: Accel | None = None,
    split: Split = "test",
    limit: int | None = None,
    adjust: Callable[[Plan], Plan] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """``evaluate_slices`` in one go; ``progress`` is called with the fraction done."""
    slices = evaluate_slices(
        synthetic,
        data,
        protocol,
        network=network,
        seeds=seeds,
        seed=seed,
        accel=accel,
        split=split,
        limit=limit,
        adjust=adjust,
    )
    while True:
        try:
            fraction = next(slices)
        except StopIteration as end:
            return end.value
        if progress:
            progress(fraction)


def _evaluate(
    synthetic: SyntheticSet,
    data: Dataset,
    protocol: str,
    network: str | None,
    seeds: int,
    seed: int,
    accel: Accel | None,
    split: Split,
    limit: int | None,
    adjust: Callable[[Plan], Plan] | None,
) -> Generator[float, None, Evaluation]:
    if seeds < 1:
        raise Refused("An evaluation needs at least one student.")
    plan = make_plan(synthetic, data, protocol, network, accel)
    plan = adjust(plan) if adjust else plan
    real = Real(synthetic, data, split, limit, plan.accel)
    numbers = list(range(seed, seed + seeds))
    if plan.course and plan.course.start.fixed:
        numbers = numbers[:1]  # all students would be the same one
    # Work in images seen: a training image costs about three tested ones (forward, and backward twice that)
    steps = len(plan.rates())
    training = 3.0 * steps * min(plan.protocol.batch, len(plan.images))
    whole = len(numbers) * (training + len(real))
    done = 0.0
    accuracies: list[float] = []
    for members in plan.groups(numbers):
        share = len(members)
        slices = train_slices(plan, members)
        while True:
            try:
                fraction = next(slices)
            except StopIteration as end:
                group: Group = end.value
                break
            yield (done + share * training * fraction) / whole
        done += share * training
        correct = torch.zeros(share, dtype=torch.float64)
        pace = Pace()
        for index in range(real.batches):
            images, labels = real.batch(index)
            fast = len(labels) == real.size and pace.slow(real.batches - index)
            with pace:
                correct += (group.predict(images, fast) == labels).sum(1).cpu()
            done += share * len(labels)
            yield min(done / whole, 1.0)
        accuracies += (correct / len(real)).tolist()
    return Evaluation(
        statistics.fmean(accuracies),
        statistics.pstdev(accuracies),
        accuracies,
        protocol,
        plan.label,
        0.0,
        split,
        numbers,
        len(real),
    )


class Real:
    """Batches of the real images of a split, in the space of a synthetic set, on the device.

    Whitened images are kept, because whitening costs more than reading them again for the next students.
    """

    def __init__(self, synthetic: SyntheticSet, data: Dataset, split: Split, limit: int | None, accel: Accel):
        if split == "held-out":
            images, labels = data.train_images[data.held_out], data.train_labels[data.held_out]
        elif split == "test":
            images, labels = data.test_images, data.test_labels
        else:
            raise Refused(f"There is no split “{split}”; choose test or held-out.")
        if limit is not None and limit < len(labels):
            chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:limit]
            images, labels = images[chosen], labels[chosen]
        self.synthetic, self.accel = synthetic, accel
        self.images, self.labels = images, labels.to(accel.device)
        self.size = 100 if accel.device.type == "cpu" else 1000
        self.batches = -(-len(labels) // self.size)
        self.kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Prepared images (n, C, H, W) and labels (n,)."""
        window = slice(index * self.size, (index + 1) * self.size)
        images = self.kept.get(index)
        if images is None:
            images = place(self.synthetic.prepare(self.images[window].to(self.accel.device)), self.accel)
            if self.synthetic.zca:
                self.kept[index] = images
        return images, self.labels[window]
