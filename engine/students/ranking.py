"""How good a set is once labels and augmentation are taken out of the account: the scores of DD-Ranking.

Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation" (2025), re-implemented from its definitions.
Every accuracy is a fraction in [0, 1], as the definitions say (their first release puts percentages into the
exponentials, which saturates them).

Measured here as follows. "Hard" sides are trained on hard labels, "any" sides on the set's own. Random images are drawn
anew for every student, as many of each class as the set has, in the set's space; where the set's labels are soft, so
are theirs: what the full-data reference says about them. The reference is trained on all training images with hard
labels, under the protocol ``full``. Every other side has its learning rate searched for. Their procedure searches on
the test images and keeps the best of all test accuracies on the way; here the search sees held-out training images, by
students of other seeds, and the test images are looked at once, at the end.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from engine import augment
from engine.accel import Accel
from engine.data.base import Dataset
from engine.errors import Refused
from engine.students.evaluation import Evaluation, evaluate_slices
from engine.students.kept import Student
from engine.students.protocols import PROTOCOLS
from engine.students.soften import soften
from engine.students.train import Plan
from engine.synthetic import SyntheticSet

RATES = (0.001, 0.005, 0.01, 0.05, 0.1)  # theirs, for SGD
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the protocol's own rate, for Adam
SEARCHED = 1000  # held-out images that a learning rate is judged by
APART = 10_000  # seeds of the search are so far from those that are reported
SIDES = (  # what is trained on, and whether augmented
    ("syn-hard", True),
    ("syn-any", True),
    ("random-any", True),
    ("syn-any", False),
    ("random-any", False),
)


# ---- the definitions ------------------------------------------------------------------------------------------------


def hard_label_recovery(real_hard: float, syn_hard: float) -> float:
    """HLR = Acc(real, hard labels) - Acc(synthetic, hard labels): what is lost against all real images; lower is
    better."""
    return real_hard - syn_hard


def improvement_over_random(syn_any: float, random_any: float) -> float:
    """IOR = Acc(synthetic) - Acc(random real images), both with any labels and augmentation; higher is better."""
    return syn_any - random_any


def scaled(x: float) -> float:
    """(e^x - e^-1) / (e - e^-1): [-1, 1] onto [0, 1]; 0.269 at 0."""
    return (math.exp(x) - math.exp(-1)) / (math.e - math.exp(-1))


def label_robust_score(hlr: float, ior: float, weight: float = 0.5) -> float:
    """LRS of α = w IOR - (1 - w) HLR, in [0, 1]; higher is better."""
    return scaled(weight * ior - (1 - weight) * hlr)


def augmentation_robust_score(
    syn_aug: float, random_aug: float, syn_plain: float, random_plain: float, balance: float = 0.5
) -> float:
    """ARS of β = γ (synthetic - random with augmentation) + (1 - γ) (the same without), in [0, 1]; higher is better."""
    return scaled(balance * (syn_aug - random_aug) + (1 - balance) * (syn_plain - random_plain))


# ---- measuring ------------------------------------------------------------------------------------------------------


def rank_slices(
    synthetic: SyntheticSet,
    data: Dataset,
    reference: Student,
    protocol: str = "quick",
    *,
    seeds: int = 3,
    seed: int = 0,
    weight: float = 0.5,
    balance: float = 0.5,
    accel: Accel | None = None,
) -> Generator[tuple[float, str], None, dict[str, Any]]:
    """Measure the five sides and score them. Yields the fraction done and what is being done; the return value is
    plain JSON: ``lrs``, ``ars``, ``hlr``, ``ior``, ``real_hard``, and ``sides`` with their accuracies and rates.

    ``reference``: a network trained on all images of ``data``. All students have the protocol's own network. Raises
    ``Refused`` when set, dataset and protocol do not fit, or a class has fewer images than the set has of it.
    """
    chosen, began = PROTOCOLS[protocol], time.perf_counter()
    if chosen.own_steps:
        raise Refused(
            f"The protocol {protocol} trains by a set's own steps, which random images do not have; choose another one."
        )
    hard = replace(synthetic, labels=synthetic.hard_labels)
    parts = len(SIDES) * (len(RATES) + seeds)
    done, sides = 0, list[dict[str, Any]]()
    for name, augmented in SIDES:
        what = f"{name}, {'with' if augmented else 'without'} augmentation"

        def measure(
            number: int, student: int, searching: bool, name: str = name, augmented: bool = augmented
        ) -> Generator[float, None, Evaluation]:
            """One student of this side, trained at learning rate number ``number``."""
            if name == "random-any":
                trained = random_like(synthetic, data, student, reference)
            else:
                trained = hard if name == "syn-hard" else synthetic
            return evaluate_slices(
                trained,
                data,
                protocol,
                network=chosen.network,
                seeds=1,
                seed=student,
                accel=accel,
                split="held-out" if searching else "test",
                limit=SEARCHED if searching else None,
                adjust=partial(_adjusted, number=number, augmented=augmented, data=data),
            )

        tried: list[float] = []
        for index in range(len(RATES)):
            found: Evaluation = yield from _told(measure(index, seed + APART, True), done, parts, f"{what}: rates")
            tried.append(found.mean)
            done += 1
        best = tried.index(max(tried))
        accuracies: list[float] = []
        for student in range(seed, seed + seeds):
            found = yield from _told(measure(best, student, False), done, parts, what)
            accuracies += found.accuracies
            done += 1
        sides.append(
            {
                "side": name,
                "augmented": augmented,
                "mean": statistics.fmean(accuracies),
                "std": statistics.pstdev(accuracies),
                "accuracies": accuracies,
                "rate": _rate(chosen.optimiser, chosen.rate, best),
                "held_out": tried[best],
            }
        )
    mean = {(side["side"], side["augmented"]): side["mean"] for side in sides}
    real = float(reference.facts["accuracy"])
    hlr = hard_label_recovery(real, mean["syn-hard", True])
    ior = improvement_over_random(mean["syn-any", True], mean["random-any", True])
    return {
        "lrs": label_robust_score(hlr, ior, weight),
        "ars": augmentation_robust_score(
            mean["syn-any", True], mean["random-any", True], mean["syn-any", False], mean["random-any", False], balance
        ),
        "hlr": hlr,
        "ior": ior,
        "real_hard": real,
        "sides": sides,
        "weight": weight,
        "balance": balance,
        "protocol": protocol,
        "network": found.network,
        "seeds": seeds,
        "split": "test",
        "soft": synthetic.labels.ndim == 2,
        "images": len(synthetic.images),
        "reference": reference.id,
        "reference_name": reference.name,
        "seconds": time.perf_counter() - began,
    }


def _told(
    work: Generator[float, None, Evaluation], done: int, parts: int, what: str
) -> Generator[tuple[float, str], None, Evaluation]:
    """``work`` as part number ``done`` of all ``parts``."""
    while True:
        try:
            yield (done + next(work)) / parts, what
        except StopIteration as end:
            return end.value


def _adjusted(plan: Plan, number: int, augmented: bool, data: Dataset) -> Plan:
    """``plan`` at the learning rate number ``number``, with the protocol's augmentation (DSA's where it has none) or
    without any."""
    rate = _rate(plan.protocol.optimiser, plan.protocol.rate, number)
    strategy = plan.strategy or augment.strategy_for(data, "dsa")
    return replace(plan, protocol=replace(plan.protocol, rate=rate), strategy=strategy if augmented else None)


def _rate(optimiser: str, own: float, number: int) -> float:
    return RATES[number] if optimiser == "sgd" else own * FACTORS[number]


def random_like(synthetic: SyntheticSet, data: Dataset, seed: int, reference: Student) -> SyntheticSet:
    """Random real images, as many of each class as ``synthetic`` has, in its space; softly labelled where it is."""
    generator = torch.Generator().manual_seed(seed)
    sizes = synthetic.hard_labels.bincount(minlength=len(synthetic.classes)).tolist()
    picked = []
    for name, members, size in zip(data.classes, data.by_class, sizes, strict=True):
        if size > len(members):
            raise Refused(
                f"The set has {size} images of class {name}, but {data.title} has only {len(members)} to draw from; "
                "random images of the same number cannot be had."
            )
        picked.append(members[torch.randperm(len(members), generator=generator)[:size]])
    indices = torch.cat(picked)
    images = synthetic.prepare(data.train_images[indices])
    made = SyntheticSet(
        images,
        data.train_labels[indices],
        synthetic.dataset,
        synthetic.classes,
        synthetic.mean,
        synthetic.std,
        "random",
        synthetic.protocol,
        zca=synthetic.zca,
    )
    return soften(made, reference) if synthetic.labels.ndim == 2 else made
