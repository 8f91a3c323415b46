"""Does the shape bias change with what a network is trained on? Trains them, measures, and says what is significant."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.bias.measures import interval, mean_bias, over_students, shape_bias
from engine.probes.bias.school import Condition, School, listed
from engine.probes.bias.specs import MOST_STUDENTS, StudySpec, named
from engine.probes.bias.stimuli import Stimuli, conflict, decide, group_of, network_of, test_images
from engine.probes.desk import Answer
from engine.students.kept import Student, load_student

MOST_CONDITIONS = 60
ENOUGH = 3  # students of each kind below which no difference is called significant


@dataclass(frozen=True, eq=False)
class Result:
    """One trained student: what it decided on the stimuli, and its accuracy on the test images.

    ``made``: what tells its training set from those of others; ``match``: what it may be compared with, sets of one
    size under one protocol for one network. None where there is nothing alike.
    """

    condition: str
    kind: str
    images: int | None
    ipc: float | None
    method: str | None
    network: str
    match: str | None
    made: str | None
    seed: int | None
    accuracy: float
    decisions: np.ndarray


def answer(spec: StudySpec, work: Work) -> Answer:
    """Tables ``students`` (one row each), ``conditions`` (over seeds, with intervals) and ``comparisons``; the
    headline's sentences in ``facts``."""
    began, spec = time.monotonic(), named(spec, work.store)
    work.tell(0.0, "Loading the data.")
    data = load(spec.dataset)
    options = spec.model_dump(include={"count", "technique", "steps", "stimuli", "seed"})
    early = _Early(work)
    school = School(spec, early, data)
    conditions = list(school.conditions())
    taken = _taken(spec, work, data)
    if not conditions and not taken:
        raise Refused("There is nothing to compare: choose numbers of training images, distilled sets or students.")
    if len(conditions) > MOST_CONDITIONS:
        raise Refused(f"That makes {len(conditions)} kinds of training; choose at most {MOST_CONDITIONS}.")
    stimuli = conflict(early, spec.source, spec.dataset, data.classes, data.size, **options)
    tests = test_images(data, min(spec.tests, len(data.test_labels)), 0)

    results = []
    for i, student in enumerate(taken):
        work.tell(0.05, f"Asking the trained students: {i + 1} of {len(taken)}.")
        results.append(_asked(student, stimuli, tests))
    total, missed = len(conditions) * spec.seeds, 0
    # One seed of everything first: what the time does not suffice for is missing everywhere alike
    for done, (offset, condition) in enumerate((o, c) for o in range(spec.seeds) for c in conditions):
        if time.monotonic() - began > 60 * spec.minutes:
            missed = total - done
            break
        seed = spec.seed + offset

        def tell(fraction: float, done: int = done, label: str = condition.label, seed: int = seed) -> None:
            work.tell(0.05 + 0.95 * (done + fraction) / total, f"Training {done + 1} of {total}: {label}, seed {seed}.")

        results.append(_trained(condition, condition.train(seed, tell), seed, stimuli, tests))

    notes = [f"Stimuli: {stimuli.origin}"]
    if missed:
        notes.append(
            f"The time of {spec.minutes:g} minutes was used up: {missed} of {total} trainings are missing. "
            "Give more minutes, fewer training steps or fewer conditions."
        )
    comparisons = compare(results, stimuli)
    facts = {
        "headline": headline_of(comparisons),
        "source": stimuli.source,
        "origin": stimuli.origin,
        "stimuli": len(stimuli),
        "dataset": spec.dataset,
        "guesser": {"bias": 0.5, "coverage": 2 / len(data.classes)},
        "missed": missed,
    }
    tables = {
        "students": [_row(r, stimuli) for r in results],
        "conditions": _pooled(results, stimuli),
        "comparisons": comparisons,
    }
    return Answer(tables, facts, {}, tuple(notes))


class _Early(Work):
    """A ``Work`` whose progress stays within the first twentieth, that is all but the trainings."""

    def __init__(self, work: Work):
        super().__init__(work.store, work.folder, lambda fraction, sentence: work.tell(0.05 * fraction, sentence))
        self.accel = work.accel


# ---- who is measured ------------------------------------------------------------------------------------------------


def _taken(spec: StudySpec, work: Work, data: Dataset) -> list[Student]:
    """Students that are taken over as they are."""
    ids = listed(spec.students)
    if len(ids) > MOST_STUDENTS:
        raise Refused(f"Choose at most {MOST_STUDENTS} students, not {len(ids)}.")
    students = [load_student(work.store, id, work.accel) for id in ids]
    for student in students:
        if student.classes != data.classes:
            raise Refused(f"“{student.name}” knows the classes of {student.dataset}, not those of {data.title}.")
    return students


def _asked(student: Student, stimuli: Stimuli, tests: tuple[torch.Tensor, torch.Tensor]) -> Result:
    """A student that was trained before. Stylised images and adversaries make kinds of their own, so that they are
    never taken for what distilling does."""
    facts = student.facts
    source, spec = facts.get("source") or {}, facts.get("spec") or {}
    kind, ipc, network = source.get("kind", "full"), source.get("ipc"), network_of(student)
    if spec.get("style", "original") != "original":
        kind = "stylised"
    elif spec.get("epsilon"):
        kind = "adversarial"
    accuracy = facts.get("accuracy")
    return Result(
        condition=group_of(student),
        kind=kind,
        images=source.get("images"),
        ipc=ipc,
        method=source.get("method"),
        network=network,
        match=f"{ipc:g} per class, {facts.get('protocol')}, {network}" if ipc else None,
        made=source.get("run"),
        seed=facts.get("seed"),
        accuracy=_accuracy(student, tests) if accuracy is None else float(accuracy),
        decisions=decide(student, stimuli.images)[0],
    )


def _trained(
    condition: Condition, student: Student, seed: int, stimuli: Stimuli, tests: tuple[torch.Tensor, torch.Tensor]
) -> Result:
    return Result(
        condition=condition.label,
        kind=condition.kind,
        images=condition.images,
        ipc=condition.ipc,
        method=condition.method,
        network=condition.network,
        match=condition.match,
        made=condition.made or f"{condition.label}, seed {seed}",
        seed=seed,
        accuracy=_accuracy(student, tests),
        decisions=decide(student, stimuli.images)[0],
    )


def _accuracy(student: Student, tests: tuple[torch.Tensor, torch.Tensor]) -> float:
    images, labels = tests
    return float((decide(student, images)[0] == labels.numpy()).mean())


# ---- what is said ---------------------------------------------------------------------------------------------------


def _row(result: Result, stimuli: Stimuli) -> dict[str, Any]:
    return {
        "condition": result.condition,
        "kind": result.kind,
        "images": result.images,
        "ipc": result.ipc,
        "method": result.method,
        "network": result.network,
        "seed": result.seed,
        "accuracy": result.accuracy,
        **shape_bias(result.decisions, stimuli.shape, stimuli.texture).row(),
    }


def _hits(results: Sequence[Result], stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
    decisions = np.stack([r.decisions for r in results])
    return decisions == stimuli.shape, decisions == stimuli.texture


def _pooled(results: Sequence[Result], stimuli: Stimuli) -> list[dict[str, Any]]:
    """A row for each condition: means over seeds, ``low`` to ``high`` the 95 % bootstrap interval of the bias over
    seeds and stimuli, ``accuracy_std`` the deviation over seeds."""
    rows = []
    for condition in dict.fromkeys(r.condition for r in results):
        mine = [r for r in results if r.condition == condition]
        shape, texture = _hits(mine, stimuli)
        low, high = interval(over_students(shape, texture))
        accuracies = [r.accuracy for r in mine]
        first = mine[0]
        rows.append(
            {
                "condition": condition,
                "kind": first.kind,
                "images": first.images,
                "ipc": first.ipc,
                "method": first.method,
                "network": first.network,
                "students": len(mine),
                "accuracy": float(np.mean(accuracies)),
                "accuracy_std": float(np.std(accuracies)),
                "bias": mean_bias(shape, texture),
                "low": low,
                "high": high,
                "coverage": float((shape | texture).mean()),
                "usable": int((shape | texture).sum()),
            }
        )
    return rows


def compare(results: Sequence[Result], stimuli: Stimuli) -> list[dict[str, Any]]:
    """Distilled sets against random real images (of the same number, protocol and network) and against all images (of
    the same network): the difference of their mean shape biases with a paired bootstrap interval.

    ``significant``: 1 where the interval leaves out zero and there are at least three students of either kind. A size
    or network that only one side has is left out, so that neither tells them apart.
    """
    rows = []
    for against, name in (("random", "as many random real images"), ("full", "all training images")):

        def cell(result: Result, against: str = against) -> str | None:
            return result.match if against == "random" else result.network

        cells = {cell(r) for r in results if r.kind == "distilled"} & {cell(r) for r in results if r.kind == against}
        draws, means = [], []
        sides: dict[str, list[Result]] = {"distilled": [], against: []}
        for c in sorted(c for c in cells if c is not None):
            here = {kind: [r for r in results if r.kind == kind and cell(r) == c] for kind in sides}
            biases = [mean_bias(*_hits(mine, stimuli)) for mine in here.values()]
            if any(bias is None for bias in biases):
                continue
            first, second = (over_students(*_hits(mine, stimuli)) for mine in here.values())
            draws.append(first - second)
            means.append(np.array(biases, np.float64))
            for kind, mine in here.items():
                sides[kind] += mine
        if not means:
            continue
        with np.errstate(invalid="ignore"):
            low, high = interval(np.mean(draws, axis=0))
        first, second = np.mean(means, axis=0)
        enough = min(len(mine) for mine in sides.values()) >= ENOUGH
        apart = low is not None and high is not None and (low > 0 or high < 0)
        rows.append(
            {
                "distilled": float(first),
                "against": name,
                "other": float(second),
                "difference": float(first - second),
                "low": low,
                "high": high,
                "significant": int(enough and apart),
                "distilled_sets": len({r.made for r in sides["distilled"]}),
                **_side("distilled", sides["distilled"], stimuli),
                **_side("other", sides[against], stimuli),
            }
        )
    return rows


def _side(name: str, results: Sequence[Result], stimuli: Stimuli) -> dict[str, Any]:
    return {
        f"{name}_students": len(results),
        f"{name}_accuracy": float(np.mean([r.accuracy for r in results])),
        f"{name}_coverage": float(np.logical_or(*_hits(results, stimuli)).mean()),
    }


def headline_of(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """*Does distilling make networks more texture-biased?*, answered from the comparisons alone."""
    if not comparisons:
        return [
            "Not answered yet: that needs students of distilled sets next to students of as many random real images "
            "(under the same protocol, with the same network), or of all images."
        ]
    sets = min(row["distilled_sets"] for row in comparisons)
    few = (
        f"The students of distilled sets learned from {sets} distilled set{'s' if sets > 1 else ''}; others may differ "
        "by more than the interval says."
    )
    return [*(_sentence(row) for row in comparisons), *([few] if sets < ENOUGH else [])]


def _sentence(row: dict[str, Any]) -> str:
    if row["significant"]:
        verdict = "more texture-biased" if row["difference"] < 0 else "less texture-biased"
        start = f"Compared with {row['against']}, distilling made these networks {verdict}"
    elif min(row["distilled_students"], row["other_students"]) < ENOUGH:
        start = f"Compared with {row['against']}, there are too few students to tell (it takes {ENOUGH} of each kind)"
    else:
        start = f"Compared with {row['against']}, no significant difference"
    span = "" if row["low"] is None else f", 95 % interval {100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    return (
        f"{start}: shape bias {row['distilled']:.1%} (coverage {row['distilled_coverage']:.0%}, accuracy "
        f"{row['distilled_accuracy']:.1%}) against {row['other']:.1%} (coverage {row['other_coverage']:.0%}, accuracy "
        f"{row['other_accuracy']:.1%}), a difference of {100 * row['difference']:+.1f} points{span}."
    )
