"""Probe ``attribution``: the maps of up to four students for one image, side by side on a common scale."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution import figures, pictures
from engine.probes.attribution.asked import (
    Picture,
    asked_image,
    asked_students,
    asked_target,
    data_of,
    described,
    network_of,
    who,
)
from engine.probes.attribution.figures import plain
from engine.probes.attribution.methods import Pixels, attribute, baseline, check, completeness_gap, to_maps
from engine.probes.attribution.path import ENOUGH, along_path
from engine.probes.attribution.specs import METHOD_INFO, AttributionSpec, _Method, baseline_note
from engine.probes.desk import Answer
from engine.students.kept import Student


def answer(spec: AttributionSpec, work: Work) -> Answer:
    """See ``AttributionSpec``."""
    students = asked_students(work, spec.students)
    skipped = {s.id: why for s in students if (why := check(spec.method, s, spec))}
    if len(skipped) == len(students):
        raise Refused(" ".join(dict.fromkeys(skipped.values())))
    picture = asked_image(spec.image, students[0], work)
    data = data_of(students[0], work) if spec.baseline == "mean" else None
    classes = students[0].classes

    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    maps: list[np.ndarray | None] = []
    for i, student in enumerate(students):

        def beat(i: int = i, student: Student = student) -> None:
            work.tell(0.1 + 0.8 * i / len(students), f"Asking {student.name}.")

        beat()
        probabilities, predicted = ask(student, picture)
        for rank, c in enumerate(np.argsort(-probabilities, kind="stable")[:3].tolist()):
            answers.append(
                {
                    **who(student),
                    "rank": rank + 1,
                    "class": classes[c],
                    "probability": plain(float(probabilities[c])),
                }
            )
        if student.id in skipped:
            maps.append(None)
            continue
        target = asked_target(spec.target, picture, predicted, classes)
        began = time.perf_counter()
        found, logit, gap, steps = explained(student, picture, target, spec, data, beat)
        maps.append(found)
        rows.append(
            {
                **who(student),
                "predicted": classes[predicted],
                "confidence": plain(float(probabilities[predicted])),
                "target": classes[target],
                "logit": plain(logit),
                "gap": plain(gap),
                "steps": steps,
                "total": plain(float(np.abs(found).sum())),
                "seconds": round(time.perf_counter() - began, 3),
            }
        )

    work.tell(0.95, "Drawing.")
    drawn = [m if m is None else scaled(m, spec.scale) for m in maps]
    limit = figures.limit_of([m for m in drawn if m is not None])
    image, big = pictures.shown(picture.pixels[0]), pictures.enlarged(students[0].facts["size"])
    files = {"input": work.picture("input", image, big)}
    for i, scores in enumerate(drawn):
        if scores is not None:
            files[f"map-{i}"] = work.picture(f"map-{i}", pictures.coloured(scores, limit), big)
            files[f"blend-{i}"] = work.picture(f"blend-{i}", pictures.blended(found, limit, image), big)
    info = METHOD_INFO[spec.method]
    files["key"] = work.picture("key", pictures.key(limit, info.signed), 2)

    facts = {
        "students": described(students),
        "skipped": skipped,
        "maps": [None if m is None else [[plain(v) for v in line] for line in m.tolist()] for m in maps],
        "limit": plain(limit),
        "scale": spec.scale,
        "signed": info.signed,
        "image": picture.facts(classes),
        "classes": list(classes),
    }
    tables = {"students": rows, "answers": answers, "agreement": _pairs(students, maps)}
    return Answer(tables, facts, files, _notes(spec, students, skipped, rows))


def ask(student: Student, picture: Picture) -> tuple[np.ndarray, int]:
    """The student's probabilities (K,) for an image, and its answer."""
    logits = student.logits(picture.pixels)[0].double()
    return logits.softmax(0).numpy(), int(logits.argmax())


def explained(
    student: Student,
    picture: Picture,
    target: int,
    spec: _Method,
    data: Dataset | None,
    beat: Callable[[], object] | None = None,
) -> tuple[np.ndarray, float, float | None, int | None]:
    """The map (H, W) of one image's logit ``target``, that logit, the completeness gap, and the steps that integrated
    gradients took."""
    device = next(student.module.parameters()).device
    pixels, targets = picture.pixels.to(device), torch.tensor([target], device=device)
    if spec.method == "integrated-gradients" and not spec.smooth:
        base = baseline(pixels, spec, data)
        attribution, steps = along_path(Pixels(student, beat), pixels, base, target, spec.steps)
    else:
        attribution, steps = attribute(student, pixels, targets, spec, data, beat), None
    gap = completeness_gap(student, pixels, targets, attribution, spec, data)[0]
    return to_maps(spec.method, attribution)[0], float(student.logits(picture.pixels)[0, target]), gap, steps


def scaled(found: np.ndarray, scale: str) -> np.ndarray:
    """A map in the unit of ``scale``: raw, or as shares of its whole absolute attribution."""
    total = np.abs(found).sum()
    return found / total if scale == "share" and total > 0 else found


def _pairs(students: list[Student], maps: list[np.ndarray | None]) -> list[dict[str, Any]]:
    """Agreement of the students' maps, two by two."""
    there = [(s, m) for s, m in zip(students, maps, strict=True) if m is not None]
    return [
        {
            "id_a": a.id,
            "student_a": a.name,
            "id_b": b.id,
            "student_b": b.name,
            "rank_correlation": plain(figures.rank_correlation(one, other)),
            "overlap": plain(figures.overlap(one, other)),
        }
        for (a, one), (b, other) in itertools.combinations(there, 2)
    ]


def _notes(
    spec: AttributionSpec, students: list[Student], skipped: dict[str, str], rows: list[dict[str, Any]]
) -> tuple[str, ...]:
    notes = [f"{s.name}: {skipped[s.id]}" for s in students if s.id in skipped]
    notes += [baseline_note(spec.method, spec.baseline, network_of(s)) for s in students if s.id not in skipped]
    for row in rows:
        if spec.method == "integrated-gradients" and row["gap"] is not None and row["gap"] > ENOUGH:
            notes.append(
                f"{row['student']}: the values add up to the change of the logit only within {row['gap']:.1%}, "
                f"beyond the {ENOUGH:.0%} of a good approximation. Take more steps, or another baseline."
            )
    unit = (
        "shares of each student's whole absolute attribution" if spec.scale == "share" else "logits, as they come out"
    )
    notes.append(
        f"All maps have one colour scale, in {unit}. It ends where 98 % of all absolute attribution lies below; "
        "stronger pixels have the last colour."
    )
    return tuple(dict.fromkeys(filter(None, notes)))
