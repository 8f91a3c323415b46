"""Probe ``quiz``: images of a set to guess the class of, and what a trained network says to them."""

from __future__ import annotations

import torch

from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution.pictures import enlarged, shown
from engine.probes.desk import Answer
from engine.probes.whatif.specs import QuizSpec
from engine.probes.whatif.students import asked_set
from engine.students.kept import Student, load_student
from engine.synthetic import SyntheticSet

CHOICES = 10  # classes to choose from: those that fit on the page and on the keys


def answer(spec: QuizSpec, work: Work) -> Answer:
    """Pictures ``image-0`` …: the questions, whose names tell nothing. Table ``questions``: a row each, with ``truth``
    and ``network`` (null without one) as places in the fact ``choices``, and how ``sure`` the network was."""
    synthetic, data = asked_set(spec.source, work)
    synthetic = synthetic.decoded()
    choices, chosen = drawn(synthetic, spec.images, spec.seed)
    teacher = None
    if spec.student:
        teacher = load_student(work.store, spec.student, work.accel)
        check_teacher(teacher, synthetic, data)
    pixels = synthetic.pixels()[chosen]
    sure = teacher.logits(pixels)[:, choices].softmax(1) if teacher else None
    questions, files = [], {}
    for i, at in enumerate(chosen):
        files[f"image-{i}"] = work.picture(f"image-{i}", shown(pixels[i]), enlarged(pixels.shape[-1], 320))
        questions.append(
            {
                "image": at,
                "truth": choices.index(int(synthetic.hard_labels[at])),
                "network": None if sure is None else int(sure[i].argmax()),
                "sure": None if sure is None else float(sure[i].max()),
            }
        )
    facts = {
        "choices": [synthetic.classes[c] for c in choices],
        "network": teacher.name if teacher else "",
        "accuracy": teacher.facts.get("accuracy") if teacher else None,
        "of": len(synthetic.classes),
    }
    return Answer({"questions": questions}, facts, files)


def drawn(synthetic: SyntheticSet, count: int, seed: int) -> tuple[list[int], list[int]]:
    """The classes to choose from, at most ``CHOICES`` of those that have images, and the images that are shown: of
    each class as many as of any other, less one where that does not come out even, in random order."""
    generator = torch.Generator().manual_seed(seed)
    labels = synthetic.hard_labels
    there = labels.unique()
    choices = sorted(there[torch.randperm(len(there), generator=generator)[:CHOICES]].tolist())
    rounds: list[list[int]] = []
    for c in choices:
        members = torch.nonzero(labels == c).flatten()
        for turn, at in enumerate(members[torch.randperm(len(members), generator=generator)].tolist()):
            rounds += [[]] * (turn + 1 - len(rounds))
            rounds[turn] = [*rounds[turn], at]
    shuffled = [at for turn in rounds for at in (turn[i] for i in torch.randperm(len(turn), generator=generator))]
    chosen = shuffled[:count]
    return choices, [chosen[i] for i in torch.randperm(len(chosen), generator=generator).tolist()]


def check_teacher(teacher: Student, synthetic: SyntheticSet, data: Dataset) -> None:
    """``Refused`` unless a network knows the classes of the set and takes its images."""
    theirs = (teacher.facts["channels"], teacher.facts["size"])
    if teacher.classes != synthetic.classes or theirs != (data.channels, data.size):
        raise Refused(
            f"The network {teacher.name} knows other classes or takes other images; choose one of {data.title}."
        )
