"""Probe ``ownership``: was this student trained from this set?

Dataset inference (Maini, Yaghini & Papernot 2021) for distilled sets: a network lies farther from its decision
boundaries at what it was trained on. The statistic of a suspect is the mean margin z_y - max_{k≠y} z_k on the set less
the one on as many real test images, in units of the margins' spread, so that a suspect's scale does not matter. It is
set against references that cannot have seen the set: networks trained here, alike, on random real images. p is the
chance of so large a statistic under a normal distribution with the references' mean and spread, as for one more
reference (a prediction interval, with Student's t).
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from engine.baselines import make_baseline
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.applications.specs import OwnershipSpec
from engine.probes.desk import Answer
from engine.probes.robustness.common import about, drawn, same_dataset
from engine.runs.imports import read_set
from engine.students.fit import as_student
from engine.students.kept import Student
from engine.students.train import train_student

LEVEL = 0.01  # below which a suspect counts as trained from the set


def answer(spec: OwnershipSpec, work: Work) -> Answer:
    """See ``OwnershipSpec``. Table ``suspects``: statistic, z, p and verdict of each; ``references`` likewise."""
    students, data = same_dataset(spec.students, work)
    owned = read_set(work.store.result_folder(spec.source) or Path(spec.source).expanduser()).decoded()
    if owned.images.shape[1:] != data.train_images.shape[1:] or owned.classes != data.classes:
        raise Refused(f"The set does not stand for {data.title}, which the students know; choose another set.")
    pixels, labels = owned.pixels(), owned.hard_labels
    real, truth, _ = drawn(data.test_images, data.test_labels, max(200, len(pixels)), spec.seed)
    ipc = max(1, len(pixels) // len(data.classes))
    references = []
    for number in range(spec.references):
        work.tell(number / (spec.references + 1), f"Reference {number + 1} of {spec.references}.")
        other = make_baseline("random", data, ipc, seed=10_000 + spec.seed + number)
        module = train_student(other, data, spec.protocol, seed=20_000 + spec.seed + number, accel=work.accel)
        references.append(as_student(module, data, f"Reference {number + 1}"))
    found = [statistic(student, pixels, labels, real, truth) for student in references]
    mean, spread = statistics.fmean(found), statistics.stdev(found)
    rows: list[dict[str, Any]] = []
    for student in students:
        value = statistic(student, pixels, labels, real, truth)
        z = (value - mean) / max(spread, 1e-12)
        p = float(stats.t.sf(z / math.sqrt(1 + 1 / len(found)), len(found) - 1))
        verdict = "trained from it" if p < LEVEL else "no sign of it"
        rows.append({**about(student), "statistic": value, "z": z, "p": p, "verdict": verdict})
    facts = {"mean": mean, "spread": spread, "level": LEVEL, "references": len(found), "images": len(pixels)}
    table = [{"name": s.name, "statistic": v} for s, v in zip(references, found, strict=True)]
    notes = ("A student of a set that resembles this one, such as another run from the same real images, may be told "
             "guilty too.",)  # fmt: skip
    return Answer({"suspects": rows, "references": table}, facts, notes=notes)


def statistic(student: Student, pixels: Tensor, labels: Tensor, real: Tensor, truth: Tensor) -> float:
    """Mean margin on the set less that on real images, over the spread of both together."""
    own, other = margins(student.logits(pixels), labels), margins(student.logits(real), truth)
    return float((own.mean() - other.mean()) / torch.cat([own, other]).std().clamp_min(1e-12))


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) logit of the labelled class less the largest other one."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.max(1).values
