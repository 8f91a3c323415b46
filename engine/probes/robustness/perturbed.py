"""Accuracy under common corruptions and adversarial attacks at three severities, students side by side."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.probes.answerer import Work
from engine.probes.desk import Answer
from engine.probes.robustness.attacks import fgsm, pgd, smallest_radius
from engine.probes.robustness.common import about, drawn, same_dataset, share, sheet
from engine.probes.robustness.corruptions import CORRUPTIONS, corrupt
from engine.probes.robustness.specs import RobustnessSpec
from engine.students.kept import Student

SEVERITIES = (1, 2, 3)
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD"}
BATCH = 50  # images attacked at once
SHOWN = 8  # images of a picture


def answer(spec: RobustnessSpec, work: Work) -> Answer:
    """Tables ``accuracy`` (a row per student, perturbation and severity; severity 0 is the images as they are),
    ``summary`` (a row per student), ``radii`` (a row per student and searched image); pictures of corrupted
    images, of images before an attack (``attacked``), and per student of PGD's at severity 3 with what it changed
    (``attack-0`` and so on); facts ``shown`` and ``said`` are their classes and what the student takes them for."""
    students, data = same_dataset(spec.students, work)
    images, labels, indices = drawn(data.test_images, data.test_labels, spec.images, spec.seed)
    attacked = min(spec.attacked, len(images))
    searched = min(spec.searched, attacked)
    radii = {1: spec.epsilon / 2, 2: spec.epsilon, 3: 2 * spec.epsilon}

    # Work in images passed through a network; a gradient costs about three passes, a search about 18 attacks.
    corrupting = len(images) * (1 + 3 * len(CORRUPTIONS))
    attacking = 3 * 3 * attacked * (1 + spec.steps)
    searching = 3 * 10 * searched * spec.steps
    whole = len(students) * (corrupting + attacking + searching)
    done = 0.0

    def tell(more: float, sentence: str) -> None:
        nonlocal done
        done += more
        work.tell(0.02 + 0.98 * done / whole, sentence)

    accuracy: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def count(student: Student, perturbation: str, name: str, family: str, severity: int, strength: float | None,
              right: int, of: int) -> None:  # fmt: skip
        columns = {"perturbation": perturbation, "title": name, "family": family, "severity": severity}
        accuracy.append({**about(student), **columns, "strength": strength, **share(right, of)})

    def right_of(student: Student, pixels: Tensor, truth: Tensor, sentence: str) -> int:
        hits = 0
        for part, wanted in zip(pixels.split(100), truth.split(100), strict=True):
            hits += int((student.logits(part).argmax(1) == wanted).sum())
            tell(len(part), sentence)
        return hits

    for student in students:
        clean = right_of(student, images, labels, f"{student.name}: images as they are.")
        count(student, "clean", "As they are", "clean", 0, None, clean, len(images))
    for made in CORRUPTIONS.values():
        for severity in SEVERITIES:
            pixels = corrupt(images, made.id, severity, spec.seed)
            for student in students:
                hits = right_of(student, pixels, labels, f"{student.name}: {made.name.lower()}, severity {severity}.")
                strength = made.strengths[severity - 1]
                count(student, made.id, made.name, "corruption", severity, strength, hits, len(images))

    pictures = {"corruptions": work.picture("corruptions", _corruption_sheet(images, spec.seed), 2)}
    device = work.accel.device
    pixels, truth = images[:attacked].float().div(255).to(device), labels[:attacked].to(device)
    said: dict[str, list[str]] = {}
    if attacked:
        pictures["attacked"] = work.picture("attacked", sheet([pixels[:SHOWN].cpu()]), 2)
    for number, student in enumerate(students if attacked else ()):
        with torch.no_grad():
            hits = int((student.module(student.prepare(pixels)).argmax(1) == truth).sum())
        for attack, name in ATTACKS.items():
            count(student, attack, name, "attack", 0, 0.0, hits, attacked)
            perturb = fgsm(student) if attack == "fgsm" else pgd(student, spec.steps, spec.seed)
            for severity, radius in radii.items():
                hits_now, first = 0, None
                for part, wanted in zip(pixels.split(BATCH), truth.split(BATCH), strict=True):
                    moved = perturb(part, wanted, radius)
                    first = moved if first is None else first
                    with torch.no_grad():
                        hits_now += int((student.module(student.prepare(moved)).argmax(1) == wanted).sum())
                    gradients = 1 if attack == "fgsm" else spec.steps
                    tell(3 * gradients * len(part), f"{student.name}: {name}, radius {radius:g}/255.")
                count(student, attack, name, "attack", severity, radius, hits_now, attacked)
        assert first is not None
        first = first[:SHOWN]
        said[student.id] = [data.classes[c] for c in student.logits(first).argmax(1)]
        change = 0.5 + (first - pixels[: len(first)]).cpu() * 255 / (4 * spec.epsilon)
        name = f"attack-{number}"
        pictures[name] = work.picture(name, sheet([first.cpu(), change]), 2)
        perturb = pgd(student, spec.steps, spec.seed, random_start=False)
        for i in range(searched):
            tell(30 * spec.steps, f"{student.name}: smallest radius of image {i + 1} of {searched}.")
            smallest = smallest_radius(student, pixels[i : i + 1], int(truth[i]), perturb, spec.reach)
            found.append({**about(student), "image": int(indices[i]), "radius": smallest, "reach": spec.reach})

    facts = {
        "dataset": data.name,
        "images": len(images),
        "attacked": attacked,
        "searched": searched,
        "radii": list(radii.values()),
        "reach": spec.reach,
        "corruptions": {c.id: {"name": c.name, "unit": c.unit, "strengths": c.strengths} for c in CORRUPTIONS.values()},
        "students": [student.id for student in students],
        "shown": [data.classes[c] for c in truth[:SHOWN]],
        "said": said,
    }
    summary = [_summary(about(student), accuracy, found, data) for student in students]
    notes = (
        f"Radii are in 255ths of the pixel range, before any normalising or whitening. Severities 1 to 3 of the "
        f"attacks are {radii[1]:g}, {radii[2]:g} and {radii[3]:g}.",
    )
    return Answer({"summary": summary, "accuracy": accuracy, "radii": found}, facts, pictures, notes)


def _summary(
    columns: dict[str, Any], accuracy: list[dict[str, Any]], found: list[dict[str, Any]], data: Dataset
) -> dict[str, Any]:
    """A student in one row: clean accuracy, the mean over all corruptions and severities, PGD, the median radius."""
    mine = [row for row in accuracy if row["student"] == columns["student"]]

    def of(perturbation: str, severity: int) -> float | None:
        return next(
            (r["accuracy"] for r in mine if r["perturbation"] == perturbation and r["severity"] == severity), None
        )

    corrupted = [row["accuracy"] for row in mine if row["family"] == "corruption"]
    clean = of("clean", 0)
    # Never flipped within reach counts as beyond it: the median stays right while fewer than half are.
    radii = [
        r["radius"] if r["radius"] is not None else float("inf") for r in found if r["student"] == columns["student"]
    ]
    median = statistics.median_low(radii) if radii else None
    return {
        **columns,
        "clean": clean,
        "corrupted": statistics.fmean(corrupted),
        "kept": statistics.fmean(corrupted) / clean if clean else None,
        **{f"{attack}_{severity}": of(attack, severity) for attack in ATTACKS for severity in SEVERITIES},
        "median_radius": None if median is None or median == float("inf") else median,
        "never_flipped": sum(r == float("inf") for r in radii) if radii else None,
        "searched": len(radii),
        "chance": 1 / len(data.classes),
    }


def _corruption_sheet(images: Tensor, seed: int) -> Tensor:
    """A column per corruption, a row per severity, the image as it is on top of each column."""
    one = images[[i % len(images) for i in range(len(CORRUPTIONS))]]
    rows = [one]
    for severity in SEVERITIES:
        rows.append(
            torch.stack([corrupt(images, id, severity, seed)[i % len(images)] for i, id in enumerate(CORRUPTIONS)])
        )
    return sheet(rows)
