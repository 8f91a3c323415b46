"""Probe ``agreement``: how far students' maps agree over test images, and the distance between models.

Song et al., "Deep Model Transferability from Attribution Maps", NeurIPS 2019: models are near each other when their
attribution maps of the same probe images point the same way. Their distance is the number of images over the sum of
the cosine similarities; here d(a, b) = 1 - mean cosine similarity, which orders pairs the same way, is 0 for equal
maps, and is also defined where maps contradict each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution import figures
from engine.probes.attribution.asked import asked_students, data_of, described, drawn_tests, network_of
from engine.probes.attribution.figures import interval_columns, plain
from engine.probes.attribution.methods import attribute, check, to_maps
from engine.probes.attribution.specs import AgreementSpec, _Method, baseline_note
from engine.probes.desk import Answer
from engine.students.kept import Student

MOST = 12  # students
AT_ONCE = 8  # images


def answer(spec: AgreementSpec, work: Work) -> Answer:
    """See ``AgreementSpec``."""
    everybody = asked_students(work, spec.students, least=2, most=MOST)
    reasons = {s.id: check(spec.method, s, spec) for s in everybody}
    students = [s for s in everybody if not reasons[s.id]]
    notes = [f"{s.name} is left out. {reasons[s.id]}" for s in everybody if reasons[s.id]]
    if len(students) < 2:
        raise Refused("Maps are compared of at least two students. " + " ".join(dict.fromkeys(notes)))
    data = data_of(students[0], work)
    chosen = drawn_tests(data, spec.images, spec.seed)
    pixels, labels = data.test_images[chosen].float() / 255, data.test_labels[chosen]

    maps, predicted = [], []
    for i, student in enumerate(students):
        answers = student.logits(pixels).argmax(1)
        predicted.append(answers)
        targets = answers if spec.target == "predicted" else labels

        def tell(fraction: float, i: int = i, student: Student = student) -> None:
            work.tell(0.1 + 0.8 * (i + fraction) / len(students), f"Asking {student.name}.")

        maps.append(many_maps(student, pixels, targets, spec, data, tell))
    work.tell(0.92, "Comparing.")

    rows: list[dict[str, Any]] = []
    matrices = {name: np.eye(len(students)) for name in ("rank_correlation", "overlap", "cosine")}
    for a, b in itertools.combinations(range(len(students)), 2):
        pairs = list(zip(maps[a], maps[b], strict=True))
        values = {
            "rank_correlation": np.array([figures.rank_correlation(x, y) for x, y in pairs]),
            "overlap": np.array([figures.overlap(x, y, spec.share) for x, y in pairs]),
            "cosine": np.array([figures.cosine(x, y) for x, y in pairs]),
        }
        row: dict[str, Any] = {
            "id_a": students[a].id,
            "student_a": students[a].name,
            "id_b": students[b].id,
            "student_b": students[b].name,
        }
        for name, found in values.items():
            row |= interval_columns(name, found, spec.seed)
            matrices[name][a, b] = matrices[name][b, a] = found.mean()
        row["same_answer"] = plain(float((predicted[a] == predicted[b]).double().mean()))
        row["distance"] = plain(1 - float(values["cosine"].mean()))
        rows.append({**row, "n": len(pixels)})
    distance = 1 - matrices["cosine"]
    facts = {
        "students": described(students),
        "distance": _plain_matrix(distance),
        "rank_correlation": _plain_matrix(matrices["rank_correlation"]),
        "overlap": _plain_matrix(matrices["overlap"]),
        "tree": tree(distance),
        "indices": chosen.tolist(),
    }
    notes += [baseline_note(spec.method, spec.baseline, network_of(s)) for s in students]
    notes.append(
        f"Of two unrelated maps, {spec.share:.0%} of the most important pixels would be the same by chance, and rank "
        "correlation and cosine would be 0 (of maps without negative values the cosine would be above 0)."
    )
    return Answer({"pairs": rows}, facts, {}, tuple(dict.fromkeys(filter(None, notes))))


def many_maps(
    student: Student,
    pixels: Tensor,
    targets: Tensor,
    spec: _Method,
    data: Dataset | None,
    tell: Callable[[float], object] | None = None,
) -> np.ndarray:
    """Maps (N, H, W) of images (N, C, H, W), a few at a time. ``tell`` hears of the fraction done, and may raise."""
    device = next(student.module.parameters()).device
    out: list[np.ndarray] = []
    for x, y in zip(pixels.split(AT_ONCE), targets.split(AT_ONCE), strict=True):
        fraction = len(out) * AT_ONCE / len(pixels)
        beat = partial(tell, fraction) if tell else None
        out.append(to_maps(spec.method, attribute(student, x.to(device), y.to(device), spec, data, beat)))
    return np.concatenate(out)


def tree(distance: np.ndarray) -> dict[str, Any]:
    """The average-linkage dendrogram of a distance matrix: ``order`` of the leaves, and ``lines`` as [xs, ys], with
    leaf i of the order at x = i and heights in units of distance."""
    joined = linkage(squareform(np.clip(distance, 0, None), checks=False), "average")
    drawn = dendrogram(joined, no_plot=True)
    lines = [
        [[plain((x - 5) / 10) for x in xs], [plain(y) for y in ys]]  # scipy puts leaf i at 10 i + 5
        for xs, ys in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    return {"order": drawn["leaves"], "lines": lines}


def _plain_matrix(values: np.ndarray) -> list[list[float | None]]:
    return [[plain(float(v)) for v in row] for row in values]
