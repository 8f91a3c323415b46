"""Soft labels from a teacher for any set: what a trained network sees in its images, instead of one class each.

For real images this is dataset reinforcement (Faghri et al., Reinforce Data, Multiply Impact, ICCV 2023), which stores
a teacher's answers with the images; the labels themselves are those of knowledge distillation (Hinton, Vinyals & Dean
2015). Students train on them with the cross-entropy, under any protocol.
"""

from __future__ import annotations

from dataclasses import replace

from engine.errors import Refused
from engine.students.kept import Student
from engine.synthetic import SyntheticSet


def soften(synthetic: SyntheticSet, teacher: Student, temperature: float = 1.0) -> SyntheticSet:
    """``synthetic`` with labels softmax(teacher logits / ``temperature``), (N, K) float32; all else stays as it is.

    The teacher sees the images as people do, in [0, 1], and prepares them its own way (normalisation, whitening). Where
    a stored image holds several smaller ones, its label is the mean over them. Raises ``Refused`` when the teacher
    knows other classes or takes images of another shape.
    """
    if not 0.05 <= temperature <= 100:
        raise Refused(f"The temperature was {temperature:g}, but must be from 0.05 to 100.")
    if tuple(synthetic.classes) != teacher.classes:
        raise Refused(
            f"The teacher {teacher.name} tells other classes ({', '.join(teacher.classes)[:200]}) than the set's "
            f"({', '.join(synthetic.classes)[:200]}); choose a teacher that was trained on the set's dataset."
        )
    ours, theirs = tuple(synthetic.images.shape[1:]), (teacher.facts["channels"], *2 * (teacher.facts["size"],))
    if ours != theirs:
        raise Refused(
            f"The teacher {teacher.name} takes images of {'×'.join(map(str, theirs))}, but those of the set are "
            f"{'×'.join(map(str, ours))}; choose a teacher that was trained on images of their size."
        )
    probabilities = (teacher.logits(synthetic.decoded().pixels()) / temperature).softmax(1)
    labels = probabilities.view(len(synthetic.images), -1, len(synthetic.classes)).mean(1)
    agreement = float((labels.argmax(1) == synthetic.hard_labels).double().mean())
    facts = {
        "teacher": teacher.id,
        "teacher_name": teacher.name,
        "temperature": temperature,
        "agreement": agreement,  # share of the images in which the teacher sees the class of their earlier label
    }
    return replace(synthetic, labels=labels, provenance={**synthetic.provenance, "softened": facts})
