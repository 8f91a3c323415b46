"""Error consistency: do two observers err on the same images more often than their accuracies make them by chance?

Geirhos, Meding & Wichmann, "Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by measuring error
consistency", NeurIPS 2020.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from engine.data import load
from engine.probes.answerer import Work
from engine.probes.bias.conflict import responses_of
from engine.probes.bias.measures import error_consistency, kappa_interval
from engine.probes.bias.people import observers
from engine.probes.bias.specs import ConsistencySpec
from engine.probes.bias.stimuli import (
    Stimuli,
    about,
    common_size,
    conflict,
    decide,
    names_of,
    students_of,
    test_images,
)
from engine.probes.desk import Answer


def answer(spec: ConsistencySpec, work: Work) -> Answer:
    """Table ``pairs``, both ways round: observers, kappa with its interval over stimuli, observed and expected
    agreement. Table ``observers``: who they are, and their accuracies. On stimuli in conflict, right means the shape's
    class."""
    students = students_of(work, spec.students, 12)
    classes, names = students[0].classes, names_of(students)
    if spec.source == "test":
        data = load(students[0].dataset, common_size(students))
        images, labels = test_images(data, spec.count, spec.seed)
        numbers = labels.numpy()
        called = tuple(f"test-{i}" for i in range(len(numbers)))
        stimuli = Stimuli(images, numbers, numbers, called, "test", f"{len(numbers)} test images of {data.title}.")
    else:
        options = spec.model_dump(include={"count", "technique", "steps", "stimuli", "seed"})
        stimuli = conflict(work, spec.source, students[0].dataset, classes, common_size(students), **options)

    right: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for i, (student, name) in enumerate(zip(students, names, strict=True)):
        work.tell(0.7 + 0.2 * i / len(students), f"Asking {name}.")
        right[name] = decide(student, stimuli.images)[0] == stimuli.shape
        rows.append({**about(student, name), "accuracy": float(right[name].mean())})
    people: dict[str, np.ndarray] = {}
    blank = dict.fromkeys(("id", "group", "network", "seed", "test_accuracy"))
    for observer in observers(stimuli.path) if stimuli.path else []:
        if all(name in observer.responses for name in stimuli.names):
            correct = responses_of(observer, stimuli, classes) == stimuli.shape
            (people if observer.person else right)[observer.name] = correct
            if not observer.person:
                rows.append({**blank, "observer": observer.name, "kind": "network", "accuracy": float(correct.mean())})
    if people:
        crowd = f"{len(people)} people"
        accuracy = float(np.mean([p.mean() for p in people.values()]))
        rows.append({**blank, "observer": crowd, "kind": "people", "accuracy": accuracy})

    work.tell(0.95, "Comparing errors.")
    pairs = [_same(name, len(stimuli)) for name in right]
    for a, b in combinations(right, 2):
        pairs += _both_ways(a, b, _pair(right[a], right[b]))
    if people:
        for a in right:
            pairs += _both_ways(a, crowd, _mean([_pair(right[a], p) for p in people.values()]))
        among = [_pair(p, q) for p, q in combinations(people.values(), 2)]
        if among:
            pairs.append({"first": crowd, "second": crowd, **_mean(among)})
    notes = [f"Stimuli: {stimuli.origin}"]
    if people:
        notes.append(
            "With people: the mean over single persons; people with people: the mean over all pairs of persons. "
            "They saw the stimuli at 224 pixels and chose among sixteen categories."
        )
    facts = {"source": stimuli.source, "origin": stimuli.origin, "stimuli": len(stimuli)}
    return Answer({"pairs": pairs, "observers": rows}, facts, {}, tuple(notes))


def _pair(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    found = error_consistency(first, second)
    low, high = kappa_interval(first, second)
    row = {"kappa": found.kappa, "low": low, "high": high, "observed": found.observed, "expected": found.expected}
    return {**row, "stimuli": len(first)}


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The means over pairs; ``low`` and ``high`` are the least and the greatest kappa among them."""
    kappas = [r["kappa"] for r in rows if r["kappa"] is not None]
    return {
        "kappa": float(np.mean(kappas)) if kappas else None,
        "low": min(kappas, default=None),
        "high": max(kappas, default=None),
        "observed": float(np.mean([r["observed"] for r in rows])),
        "expected": float(np.mean([r["expected"] for r in rows])),
        "stimuli": rows[0]["stimuli"],
    }


def _same(name: str, stimuli: int) -> dict[str, Any]:
    one = {"kappa": 1.0, "low": 1.0, "high": 1.0, "observed": 1.0, "expected": None}
    return {"first": name, "second": name, **one, "stimuli": stimuli}


def _both_ways(a: str, b: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"first": a, "second": b, **row}, {"first": b, "second": a, **row}]
