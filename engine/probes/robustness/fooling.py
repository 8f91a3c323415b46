"""Adversarial examples made on one student, shown to the others.

Networks that fool one another attend to the same brittle features (Papernot, McDaniel & Goodfellow 2016). Beside the
fooling matrix stand how often the students agree on images as they are, how often random noise of the same size
changes an answer, and, where a target dataset is given, how well each student transfers to it: whether the two go
together is asked by Liang et al., "Uncovering the Connections Between Adversarial Transferability and Knowledge
Transferability" (ICML 2021).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.robustness.attacks import fgsm, pgd
from engine.probes.robustness.common import about, drawn, same_dataset, share, sheet, spearman
from engine.probes.robustness.specs import FoolingSpec, TransferSpec
from engine.probes.robustness.transfer import SCORES, measure
from engine.students.kept import Student

BATCH = 50
SHOWN = 10


def answer(spec: FoolingSpec, work: Work) -> Answer:
    """Tables ``pairs`` (a row per student that examples are made on and student they are shown to), ``students`` and,
    with a target, ``transfer`` (a row per student: fooling, scores, accuracies reached) and ``correlations``; fact
    ``spearman``: fooling with agreement over different students; a picture of examples."""
    students, data = same_dataset(spec.students, work)
    reached, begun = [], 0.02  # begun: the share of the time that goes to what comes before the attacks
    if spec.target != "none":
        asked = TransferSpec(students=spec.students, target=spec.target, seed=spec.seed)
        begun = 0.7
        reached = measure(students, asked, lambda fraction, sentence: work.tell(begun * fraction, sentence))[1]
    images, labels, _ = drawn(data.test_images, data.test_labels, spec.images, spec.seed)
    pixels = images.float() / 255
    said = [_said(student, pixels) for student in students]
    right = [answers == labels for answers in said]
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(spec.seed)) < 0.5
    noisy = (pixels + (noise.float() * 2 - 1) * spec.epsilon / 255).clamp(0, 1)

    pairs: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    shown = [pixels[:SHOWN]]
    for i, maker in enumerate(students):
        perturb = fgsm(maker) if spec.attack == "fgsm" else pgd(maker, spec.steps, spec.seed)
        moved = []
        for part, wanted in zip(pixels.split(BATCH), labels.split(BATCH), strict=True):
            part, wanted = part.to(work.accel.device), wanted.to(work.accel.device)
            moved.append(perturb(part, wanted, spec.epsilon).cpu())
            fraction = min(1.0, BATCH * len(moved) / len(pixels))
            work.tell(begun + (0.98 - begun) * (i + fraction) / len(students), f"Making examples on {maker.name}.")
        examples = torch.cat(moved)
        shown.append(examples[:SHOWN])
        for j, viewer in enumerate(students):
            both = right[i] & right[j]
            fooled = _said(viewer, examples) != labels
            pairs.append(
                {
                    "made_on": maker.id,
                    "made_on_name": maker.name,
                    "shown_to": viewer.id,
                    "shown_to_name": viewer.name,
                    **share(int((fooled & both).sum()), int(both.sum()), "fooled"),
                    "agreement": float((said[i] == said[j]).double().mean()),
                    "both_right": int(both.sum()),
                }
            )
        by_noise = (_said(maker, noisy) != labels) & right[i]
        rows.append(
            {
                **about(maker),
                "clean": float(right[i].double().mean()),
                **share(int(by_noise.sum()), int(right[i].sum()), "fooled_by_noise"),
            }
        )
    others = [p for p in pairs if p["made_on"] != p["shown_to"] and p["fooled"] is not None]
    rho = _rho(others, len(students))
    tables = {"pairs": pairs, "students": rows}
    if reached:
        tables["transfer"] = [{**_fooling(pairs, row["student"]), **row} for row in reached]
        tables["correlations"] = _correlations(tables["transfer"])
    facts = {
        "dataset": data.name,
        "images": len(images),
        "epsilon": spec.epsilon,
        "attack": spec.attack,
        "target": spec.target if reached else None,
        "students": [student.id for student in students],
        "shown": [data.classes[c] for c in labels[:SHOWN]],
        "spearman": rho,
    }
    notes = ["Only images that both students get right count, so that no answer was wrong before the attack."]
    if len(students) < 2:
        notes.append("With a single student there is nobody else to fool; choose two or more.")
    picture = work.picture("examples", sheet(shown), 2)
    return Answer(tables, facts, {"examples": picture}, tuple(notes))


def _said(student: Student, pixels: Tensor) -> Tensor:
    return student.logits(pixels, 100).argmax(1)


def _rho(others: list[dict[str, Any]], students: int) -> float | None:
    """Spearman's correlation of fooling with agreement over ordered pairs of at least three students. Pairs share
    students, so that no p-value of independent pairs applies."""
    if students < 3:
        return None
    return spearman([p["agreement"] for p in others], [p["fooled"] for p in others])[0]


def _fooling(pairs: list[dict[str, Any]], student: str) -> dict[str, float | None]:
    """How often a student's examples fool the others, and theirs fool it: means over the others."""

    def mean(mine: str, other: str) -> float | None:
        values = [p["fooled"] for p in pairs if p[mine] == student != p[other] and p["fooled"] is not None]
        return sum(values) / len(values) if values else None

    return {"fools_others": mean("made_on", "shown_to"), "fooled_by_others": mean("shown_to", "made_on")}


def _correlations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's correlation over students of fooling others with each score and each accuracy reached."""
    out = []
    for measured in (*SCORES, "fixed", "tuned"):
        pairs = [(r["fools_others"], r[measured]) for r in rows if None not in (r["fools_others"], r[measured])]
        if len(pairs) >= 3:
            rho, p = spearman(*zip(*pairs, strict=True))
            out.append({"measure": measured, "spearman": rho, "p": p, "students": len(pairs)})
    return out
