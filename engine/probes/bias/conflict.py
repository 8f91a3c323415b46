"""Shape bias: where shape and texture name different classes, which of the two decides?

Geirhos et al., "ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
robustness", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engine.probes.answerer import Work
from engine.probes.bias.measures import Bias, interval, mean_bias, over_students, shape_bias
from engine.probes.bias.people import Observer, observers
from engine.probes.bias.specs import BiasSpec
from engine.probes.bias.stimuli import (
    Stimuli,
    about,
    class_numbers,
    common_size,
    conflict,
    decide,
    group_of,
    names_of,
    students_of,
)
from engine.probes.desk import Answer

EXAMPLES = 8


def answer(spec: BiasSpec, work: Work) -> Answer:
    """Tables ``observers`` (one row a student, people pooled, networks), ``classes`` (the same by class of the shape),
    ``groups`` (students that differ in their seed) and ``decisions``; pictures of some stimuli."""
    students = students_of(work, spec.students, 8)
    classes, names = students[0].classes, names_of(students)
    options = spec.model_dump(include={"count", "technique", "steps", "stimuli", "seed"})
    stimuli = conflict(work, spec.source, students[0].dataset, classes, common_size(students), **options)

    decided, rows, single = {}, [], []
    for i, (student, name) in enumerate(zip(students, names, strict=True)):
        work.tell(0.8 + 0.2 * i / len(students), f"Asking {name}.")
        decisions, confidence = decide(student, stimuli.images)
        decided[name] = decisions
        rows.append({**about(student, name), **_row(decisions, stimuli)})
        single += [
            {
                "observer": name,
                "stimulus": stimuli.names[n],
                "shape": classes[stimuli.shape[n]],
                "texture": classes[stimuli.texture[n]],
                "decision": classes[decisions[n]],
                "confidence": round(float(confidence[n]), 4),
            }
            for n in range(len(stimuli))
        ]
    by_class = [
        {"observer": row["observer"], "kind": row["kind"], **part}
        for row in rows
        for part in class_rows(decided[row["observer"]], stimuli, classes)
    ]
    others = references(stimuli, classes)
    for name, kind, responses in others:
        repeated = _repeated(stimuli, len(responses) // len(stimuli))
        blank = dict.fromkeys(("id", "group", "network", "seed", "test_accuracy"))
        rows.append({**blank, "observer": name, "kind": kind, **_row(responses, repeated)})
        by_class += [{"observer": name, "kind": kind, **part} for part in class_rows(responses, repeated, classes)]

    examples = _examples(work, stimuli, classes, decided)
    notes = [f"Stimuli: {stimuli.origin}"]
    if stimuli.source == "shapes":
        notes.append(
            "Textures stand for classes in their order, but the dataset shapes ties none to a class: only a student "
            "whose training images did can decide for one by more than chance."
        )
    if others:
        notes.append(
            "People and networks named as references chose among sixteen categories at 224 pixels; students choose "
            f"among {len(classes)} and see {common_size(students)} pixels."
        )
    facts = {
        "source": stimuli.source,
        "origin": stimuli.origin,
        "classes": list(classes),
        "stimuli": len(stimuli),
        "guesser": {"bias": 0.5, "coverage": 2 / len(classes)},
        "examples": examples,
    }
    tables = {"observers": rows, "classes": by_class, "groups": _groups(students, names, decided, stimuli)}
    pictures = {e["image"]: f"{e['image']}.png" for e in examples}
    return Answer({**tables, "decisions": single}, facts, pictures, tuple(notes))


def _row(decisions: np.ndarray, stimuli: Stimuli) -> dict[str, Any]:
    """Bias over all stimuli, and ``macro``, the mean of the classes' biases."""
    found = shape_bias(decisions, stimuli.shape, stimuli.texture)
    each = [b.bias for b in _by_class(decisions, stimuli).values() if b.bias is not None]
    return {**found.row(), "macro": float(np.mean(each)) if each else None}


def _by_class(decisions: np.ndarray, stimuli: Stimuli) -> dict[int, Bias]:
    return {
        int(c): shape_bias(
            decisions[stimuli.shape == c], stimuli.shape[stimuli.shape == c], stimuli.texture[stimuli.shape == c]
        )
        for c in np.unique(stimuli.shape)
    }


def class_rows(decisions: np.ndarray, stimuli: Stimuli, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class of the shape."""
    return [{"class": classes[c], **bias.row()} for c, bias in _by_class(decisions, stimuli).items()]


def references(stimuli: Stimuli, classes: tuple[str, ...]) -> list[tuple[str, str, np.ndarray]]:
    """(name, ``people`` or ``network``, decisions) of those who decided on the same ready stimuli: people pooled, one
    after the other, and each network. Decisions for classes that students do not know are -1."""
    if stimuli.path is None:
        return []
    found = [o for o in observers(stimuli.path) if all(name in o.responses for name in stimuli.names)]
    people = [responses_of(o, stimuli, classes) for o in found if o.person]
    out = [(f"{len(people)} people", "people", np.concatenate(people))] if people else []
    return out + [(o.name, "network", responses_of(o, stimuli, classes)) for o in found if not o.person]


def responses_of(observer: Observer, stimuli: Stimuli, classes: tuple[str, ...]) -> np.ndarray:
    """Class numbers (N,) that an observer chose, -1 for another category."""
    numbers = class_numbers(classes)
    return np.array([numbers.get(observer.responses[name], -1) for name in stimuli.names])


def _repeated(stimuli: Stimuli, times: int) -> Stimuli:
    """The classes of stimuli that were shown ``times`` times, one round after the other."""
    if times == 1:
        return stimuli
    return Stimuli(
        stimuli.images, np.tile(stimuli.shape, times), np.tile(stimuli.texture, times), stimuli.names * times,
        stimuli.source, stimuli.origin, stimuli.path,
    )  # fmt: skip


def _groups(
    students: Sequence[Any], names: Sequence[str], decided: dict[str, np.ndarray], stimuli: Stimuli
) -> list[dict[str, Any]]:
    """Students that differ in their seed, pooled: the mean of their biases with a bootstrap interval over both
    students and stimuli."""
    members: dict[str, list[str]] = {}
    kinds, accuracies = {}, {}
    for student, name in zip(students, names, strict=True):
        members.setdefault(group_of(student), []).append(name)
        kinds[group_of(student)] = (student.facts.get("source") or {}).get("kind", "full")
        accuracies[name] = student.facts.get("accuracy")
    rows = []
    for group, mine in members.items():
        shape = np.stack([decided[n] == stimuli.shape for n in mine])
        texture = np.stack([decided[n] == stimuli.texture for n in mine])
        low, high = interval(over_students(shape, texture))
        known = [accuracies[n] for n in mine if accuracies[n] is not None]
        rows.append(
            {
                "group": group,
                "kind": kinds[group],
                "students": len(mine),
                "bias": mean_bias(shape, texture),
                "low": low,
                "high": high,
                "coverage": float((shape | texture).mean()),
                "test_accuracy": float(np.mean(known)) if known else None,
            }
        )
    return rows


def _examples(
    work: Work, stimuli: Stimuli, classes: Sequence[str], decided: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Some stimuli as pictures, spread over the classes, with what everybody said."""
    chosen = np.linspace(0, len(stimuli) - 1, min(EXAMPLES, len(stimuli))).round().astype(int)
    out = []
    for i, n in enumerate(chosen):
        image = stimuli.images[n].permute(1, 2, 0)
        image = image.expand(-1, -1, 3) if image.shape[-1] == 1 else image
        work.picture(f"stimulus-{i}", image.to(torch.uint8).contiguous(), max(1, 128 // image.shape[0]))
        out.append(
            {
                "image": f"stimulus-{i}",
                "shape": classes[stimuli.shape[n]],
                "texture": classes[stimuli.texture[n]],
                "decisions": {name: classes[d[n]] for name, d in decided.items()},
            }
        )
    return out
