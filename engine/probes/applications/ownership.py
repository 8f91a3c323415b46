"""Probe ``ownership``: was this student trained from this set?

Dataset inference (Maini, Yaghini & Papernot 2021, "Dataset inference: ownership resolution in machine learning") for
distilled sets: a network is surer of what it was trained on than of what it was not. The statistic of a suspect is the
mean margin z_y - max_{k≠y} z_k on the set less the one on real test images, in units of the margins' spread, so that a
suspect's scale does not matter. It is set against references that cannot have seen the set: networks trained here,
alike, on random real images. p is the chance of so large a statistic under a normal distribution with the references'
mean and spread, as for one more reference (a prediction interval, with Student's t).

Whether that tells anything is measured beside it: some students are trained here from the set, and each reference is
judged by the others.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from engine.baselines import make_baseline
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.intervals import wilson
from engine.probes.answerer import Work
from engine.probes.applications.common import asked_set, finish
from engine.probes.applications.specs import OwnershipSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import drawn
from engine.runs.evaluating import check_fit
from engine.students.fit import as_student, train_one
from engine.students.kept import Student, load_students
from engine.students.train import make_plan
from engine.synthetic import SyntheticSet

WAYS = {"own": "Trained here from the set", "suspect": "Suspects", "reference": "References, from random images"}
KINDS = {"own": "distilled", "suspect": "imported", "reference": "random"}
LEVEL = 0.01  # below which a network counts as trained from the set


def answer(spec: OwnershipSpec, work: Work) -> Answer:
    """See ``OwnershipSpec``. Table ``networks``: statistic, p and verdict of each network, references judged by the
    other references."""
    owned = asked_set(spec.source, work)
    work.tell(0.0, f"Loading {owned.dataset}.")
    data = load(owned.dataset, owned.images.shape[-1])
    check_fit(owned, data)
    suspects = load_students(work.store, spec.students, work.accel) if spec.students.strip() else []
    for suspect in suspects:
        if suspect.classes != data.classes or suspect.facts["channels"] != data.channels:
            raise Refused(f"The set stands for {data.title}, which {suspect.name} does not know; choose others.")
    shown = owned.decoded()
    pixels, labels = shown.pixels(), shown.hard_labels
    real, truth, _ = drawn(data.test_images, data.test_labels, max(200, len(pixels)), spec.seed)
    ipc = max(1, len(pixels) // len(data.classes))
    networks: list[tuple[str, Student]] = []
    count = spec.references + spec.trials
    for number in range(count):
        own = number >= spec.references
        chosen = owned if own else make_baseline("random", data, ipc, seed=10_000 + spec.seed + number)
        name = f"Student of the set {number - spec.references + 1}" if own else f"Reference {number + 1}"

        def tell(fraction: float, number: int = number, name: str = name) -> None:
            work.tell((number + fraction) / (count + 1), f"Training {number + 1} of {count}: {name.lower()}.")

        trained = _trained(chosen, data, spec, 20_000 + spec.seed + number, name, work, tell)
        networks.append(("own" if own else "reference", trained))
    networks += [("suspect", suspect) for suspect in suspects]
    found = [statistic(student, pixels, labels, real, truth) for _, student in networks]
    references = found[: spec.references]
    rows: list[dict[str, Any]] = []
    for i, ((way, student), value) in enumerate(zip(networks, found, strict=True)):
        others = [*references[:i], *references[i + 1 :]] if way == "reference" else references
        p = chance(value, others)
        rows.append(
            {
                "way": way,
                "name": student.name,
                "student": student.id if way == "suspect" else "",
                "statistic": value,
                "p": p,
                "trained_from_it": p < LEVEL,
            }
        )
    facts = {
        "ways": WAYS,
        "kinds": KINDS,
        "level": LEVEL,
        "images": len(pixels),
        "headline": _headline(rows),
    }
    notes = (
        "A student of a set that resembles this one, such as another run from the same real images, may be told to be "
        "trained from it, too; and one that was trained on the set and on much else may not.",
    )
    return Answer({"networks": rows}, facts, notes=notes)


def _trained(
    chosen: SyntheticSet, data: Dataset, spec: OwnershipSpec, seed: int, name: str, work: Work, tell: Any
) -> Student:
    module = finish(train_one(make_plan(chosen, data, spec.protocol, None, work.accel), seed), tell)
    student = as_student(module, data, name)
    return Student(student.id, student.module, student.facts, chosen.zca)


def _headline(rows: list[dict[str, Any]]) -> str:
    def counted(way: str) -> str:
        mine = [row["trained_from_it"] for row in rows if row["way"] == way]
        low, high = (100 * (bound or 0) for bound in wilson(sum(mine), len(mine)))
        return f"{sum(mine)} of {len(mine)} (95 %: {low:.0f} to {high:.0f} %)"

    sentence = (
        f"Of students trained here from the set {counted('own')} are told so, of the references, which never saw it, "
        f"{counted('reference')}."
    )
    suspects = [row for row in rows if row["way"] == "suspect"]
    if suspects:
        told = [row["name"] for row in suspects if row["trained_from_it"]]
        sentence += f" Suspects told to be trained from it: {', '.join(told) if told else 'none'}."
    return sentence


def statistic(student: Student, pixels: Tensor, labels: Tensor, real: Tensor, truth: Tensor) -> float:
    """Mean margin on the set less that on real images, over the spread of both together."""
    own, other = margins(student.logits(pixels), labels), margins(student.logits(real), truth)
    return float((own.mean() - other.mean()) / torch.cat([own, other]).std().clamp_min(1e-12))


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) logit of the labelled class less the largest other one."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.max(1).values


def chance(value: float, references: list[float]) -> float:
    """The chance that one more reference, of the same normal distribution, has a statistic of at least ``value``."""
    mean, spread = statistics.fmean(references), statistics.stdev(references)
    t = (value - mean) / (max(spread, 1e-12) * math.sqrt(1 + 1 / len(references)))
    return float(stats.t.sf(t, len(references) - 1))
