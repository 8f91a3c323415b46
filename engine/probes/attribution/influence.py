"""Probe ``influence``: which training images pushed a student's answer up or down?

TracIn (Pruthi et al., "Estimating Training Data Influence by Tracing Gradient Descent", NeurIPS 2020) on the final
weights: influence of a training image z on the loss of a test image z' is ∇L(z) · ∇L(z') (their eq. 1 with one
checkpoint). Positive: a step of gradient descent on z makes the answer surer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from captum.influence import TracInCP, TracInCPFast
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from engine import baselines
from engine.data.base import Dataset
from engine.data.stylise import stylised
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution import pictures
from engine.probes.attribution.asked import (
    Picture,
    asked_image,
    asked_students,
    asked_target,
    data_of,
    described,
    who,
)
from engine.probes.attribution.figures import plain
from engine.probes.attribution.maps import ask
from engine.probes.attribution.specs import InfluenceSpec
from engine.probes.desk import Answer
from engine.runs.imports import read_set
from engine.spec import BASELINES
from engine.students.kept import Student
from engine.students.protocols import TRAINING
from engine.students.train import _targets
from engine.synthetic import SyntheticSet

GRADIENTS = 30_000_000  # numbers of per-image gradients that are held at once


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a student was trained on, or a part of it: ``images`` (N, C, H, W) in the student's space, ``labels`` (N,)
    or (N, K), ``display`` (N, C, H, W) in [0, 1], ``indices`` into the whole, ``total`` of it, ``note`` a sentence."""

    images: Tensor
    labels: Tensor
    display: Tensor
    indices: list[int]
    total: int
    note: str = ""


def answer(spec: InfluenceSpec, work: Work) -> Answer:
    """See ``InfluenceSpec``."""
    students = asked_students(work, spec.students)
    picture = asked_image(spec.image, students[0], work)
    classes = students[0].classes
    big = pictures.enlarged(students[0].facts["size"], 96)
    files = {"input": work.picture("input", pictures.shown(picture.pixels[0]), big)}
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    notes: list[str] = []
    for i, student in enumerate(students):

        def tell(fraction: float, i: int = i, name: str = student.name) -> None:
            work.tell((i + fraction) / len(students), f"Asking {name}.")

        tell(0.0)
        lesson = lesson_of(student, spec, work, lambda *_, tell=tell: tell(0.0))
        probabilities, predicted = ask(student, picture)
        target = asked_target(spec.target, picture, predicted, classes)
        influence = influences(student, lesson, picture, target, spec.layers, tell)
        similarity = similarities(student, lesson, picture)
        hard = lesson.labels if lesson.labels.ndim == 1 else lesson.labels.argmax(1)
        orders = {
            "up": [at for at in influence.argsort(descending=True, stable=True).tolist() if influence[at] > 0],
            "down": [at for at in influence.argsort(stable=True).tolist() if influence[at] < 0],
            "similar": similarity.argsort(descending=True, stable=True).tolist(),
        }
        for direction, order in orders.items():
            chosen = order[: spec.count]
            for rank, at in enumerate(chosen):
                rows.append(
                    {
                        **who(student),
                        "direction": direction,
                        "rank": rank + 1,
                        "index": lesson.indices[at],
                        "class": classes[int(hard[at])],
                        "influence": plain(float(influence[at])),
                        "similarity": plain(float(similarity[at])),
                    }
                )
            if chosen:
                row = [pictures.shown(lesson.display[at]) for at in chosen]
                files[f"{direction}-{i}"] = work.picture(f"{direction}-{i}", pictures.sheet([row]), big)
        answers.append(
            {
                **who(student),
                "predicted": classes[predicted],
                "target": classes[target],
                "probability": plain(float(probabilities[target])),
                "looked_at": len(lesson.indices),
                "training_images": lesson.total,
            }
        )
        if lesson.note:
            notes.append(f"{student.name}: {lesson.note}")
    way = "the last layer's weights" if spec.layers == "last" else "all weights"
    notes.append(
        f"Influence is the product of two images' loss gradients with respect to {way} of the trained student. It "
        "ranks images; its size means nothing across students."
    )
    facts = {"students": described(students), "answers": answers, "image": picture.facts(classes)}
    return Answer({"influence": rows}, facts, files, tuple(dict.fromkeys(notes)))


def influences(
    student: Student,
    lesson: Lesson,
    picture: Picture,
    target: int,
    layers: str = "last",
    tell: Callable[[float], None] | None = None,
) -> Tensor:
    """(N,) float32: how far a small step of gradient descent on each training image would lower the cross-entropy of
    ``target`` for the image, up to a common factor."""
    device = next(student.module.parameters()).device
    protocol = TRAINING.get(student.facts.get("protocol", ""))
    labels, kind = _targets(lesson.labels, len(student.classes), protocol.loss if protocol else "cross-entropy")

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """What the student was trained with, image by image."""
        if kind == "cross-entropy":
            return F.cross_entropy(logits.float(), labels, reduction="none")
        return (logits.float() - labels).square().mean(1) / 2

    def test_loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, reduction="none")

    # The fast way knows the gradient of a linear layer; the scores of a masked one are learned through its weights.
    fast = layers == "last" and isinstance(student.module.head, nn.Linear)
    module = copy.deepcopy(student.module).to(memory_format=torch.contiguous_format)  # Captum lays gradients flat
    learned = module if layers == "all" else module.head
    at_once = 250 if fast else max(1, min(250, GRADIENTS // sum(p.numel() for p in learned.parameters())))
    test = (student.prepare(picture.pixels), torch.tensor([target], device=device))
    out = []
    for start in range(0, len(lesson.images), at_once):
        if tell:
            tell(start / len(lesson.images))
        part = slice(start, start + at_once)
        images = TensorDataset(lesson.images[part].to(device), labels[part].to(device))
        common: dict[str, Any] = {
            "checkpoints": ["trained"],
            "checkpoints_load_func": lambda *_: 1.0,  # the weights are there already, and the step size is one
            "batch_size": at_once,
        }
        if not fast:
            tracer = TracInCP(
                module,
                images,
                layers=None if layers == "all" else ["head"],
                loss_fn=_of("none", loss),
                test_loss_fn=_of("none", test_loss),
                **common,
            )
        else:
            tracer = TracInCPFast(
                module,
                module.head,
                images,
                loss_fn=_of("sum", lambda out, y: loss(out, y).sum()),
                test_loss_fn=_of("sum", lambda out, y: test_loss(out, y).sum()),
                **common,
            )
        out.append(tracer.influence(test, k=None).detach().float().cpu()[0])
    return torch.cat(out)


def _of(reduction: str, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that tells Captum how it is summed over images."""

    def named(logits: Tensor, labels: Tensor) -> Tensor:
        return loss(logits, labels)

    named.reduction = reduction  # type: ignore[attr-defined]
    return named


def similarities(student: Student, lesson: Lesson, picture: Picture) -> Tensor:
    """(N,) cosine similarity of each training image's features to the image's, before the last layer."""
    device = next(student.module.parameters()).device
    with torch.no_grad():
        mine = student.module.features(student.prepare(picture.pixels)).float()
        theirs = torch.cat([student.module.features(p.to(device)).float() for p in lesson.images.split(250)])
    return F.cosine_similarity(theirs, mine).cpu()


# ---- what a student was trained on -----------------------------------------------------------------------------------


def lesson_of(student: Student, spec: InfluenceSpec, work: Work, beat: Callable[..., None]) -> Lesson:
    """The training images of a student, or ``spec.limit`` of them drawn at random. Raises ``Refused``.

    ``beat`` is called often, whatever with, and may raise to give up.
    """
    source, asked = student.facts.get("source", {}), student.facts.get("spec", {})
    name = source.get("run") or asked.get("source", "")
    if source.get("kind") == "full" or name == "full":
        return _of_real(student, asked, spec, work, beat)
    note = ""
    folder = work.store.result_folder(name) if isinstance(name, str) else None
    if folder is not None:
        synthetic = read_set(folder)
    elif name in BASELINES:
        data, note = _styled(data_of(student, work), asked, work, beat)
        synthetic = baselines.make_baseline(
            name,
            data,
            asked["ipc"],
            seed=asked["seed"],
            accel=work.accel,
            progress=beat,
        )
    elif name and Path(name).expanduser().exists():
        synthetic = read_set(Path(name).expanduser(), dataset=data_of(student, work))
    else:
        raise Refused(f"The images that {student.name} was trained on are not here any more ({str(name)[:80]}).")
    return _of_set(synthetic, spec, note)


def _of_set(synthetic: SyntheticSet, spec: InfluenceSpec, note: str) -> Lesson:
    synthetic = synthetic.decoded()
    chosen = _drawn(len(synthetic.images), spec)
    return Lesson(
        synthetic.images[chosen],
        synthetic.labels[chosen],
        synthetic.pixels()[chosen],
        chosen.tolist(),
        len(synthetic.images),
        note,
    )


def _of_real(
    student: Student, asked: dict[str, Any], spec: InfluenceSpec, work: Work, beat: Callable[..., None]
) -> Lesson:
    data, note = _styled(data_of(student, work), asked, work, beat)
    everything = torch.arange(len(data.train_labels))
    limit = asked.get("limit")
    if limit and limit < len(everything):  # the draw that the training made
        everything = torch.randperm(len(everything), generator=torch.Generator().manual_seed(asked["seed"]))[:limit]
    chosen = everything[_drawn(len(everything), spec)]
    images = data.train_images[chosen]
    notes = [note]
    if len(chosen) < len(everything):
        notes.append(f"{len(chosen):,} of its {len(everything):,} training images were looked at, drawn at random.")
    return Lesson(
        student.prepare(images).cpu(),
        data.train_labels[chosen],
        images.float() / 255,
        chosen.tolist(),
        len(everything),
        " ".join(filter(None, notes)),
    )


def _styled(data: Dataset, asked: dict[str, Any], work: Work, beat: Callable[..., None]) -> tuple[Dataset, str]:
    """The dataset as the student was trained on it, and a sentence where it can only be shown as it was before."""
    style = asked.get("style", "original")
    if style == "original":
        return data, ""
    if style != "fourier":
        return data, "it was trained on stylised versions of these images, which are not kept: these are the originals."
    images = stylised(data, style, asked["seed"], work.accel, beat)
    return replace(data, train_images=images), ""


def _drawn(count: int, spec: InfluenceSpec) -> Tensor:
    """Indices of at most ``spec.limit`` of so many images."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(spec.seed))[: spec.limit].sort().values
