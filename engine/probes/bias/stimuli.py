"""Where stimuli come from: generated, made from test images, or ready ones, in the form a student takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data import load
from engine.data.base import Dataset
from engine.data.catalogue import SHAPES
from engine.data.shapes import make_shapes
from engine.data.stylise import fourier, greyscale, partners, to_bytes, transfer
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.bias.people import CATEGORIES, Picture, category, read_pictures, stimuli_path
from engine.students.kept import Student, load_students


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Images with the class of their shape and of their texture.

    ``images`` (N, C, H, W) uint8; ``shape``, ``texture`` (N,) int64 class numbers, the same where there is no
    conflict; ``names`` (N,); ``source``: how they were made, ``origin`` the same as a sentence.
    """

    images: Tensor
    shape: np.ndarray
    texture: np.ndarray
    names: tuple[str, ...]
    source: str
    origin: str
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.images)


def same_classes(students: Sequence[Student]) -> tuple[str, ...]:
    """The classes that all students know. Raises ``Refused`` when they differ."""
    first = students[0]
    for other in students[1:]:
        if other.classes != first.classes:
            raise Refused(
                f"“{first.name}” knows the classes of {first.dataset}, “{other.name}” those of {other.dataset}; "
                "choose students of one dataset."
            )
    return first.classes


def students_of(work: Work, ids: str, most: int) -> list[Student]:
    """The students of a question, all with the same classes."""
    work.tell(0.0, "Loading the students.")
    students = load_students(work.store, ids, work.accel, most)
    same_classes(students)
    return students


def teacher_for(work: Work, dataset: str, size: int) -> Student:
    """The network of a dataset that lends its features; trained at first need."""
    from engine.runs.studying import teacher

    return teacher(work.store, dataset, size, work.accel, lambda f, *_: work.tell(0.5 * f, "Training the teacher."))


def conflict(
    work: Work,
    source: str,
    dataset: str,
    classes: tuple[str, ...],
    size: int,
    *,
    count: int,
    technique: Literal["gram", "adain"],
    steps: int,
    stimuli: str | None,
    seed: int,
) -> Stimuli:
    """Cue-conflict stimuli for networks that know ``classes``, ``count`` of them where they are made here.

    ``dataset``, ``size``: whose test images are used. ``source`` and the rest as in ``BiasSpec``. Raises ``Refused``.
    """
    if source == "auto":
        source = _best(dataset, classes, stimuli)
    per_class = -(-count // len(classes))
    if source == "shapes":
        if classes != SHAPES:
            raise Refused("The generated shapes suit students of the dataset shapes only; choose fourier or style.")
        drawn = make_shapes(per_class, 1_000_000 + seed, "conflict")
        names = tuple(f"{SHAPES[s]}-{i}" for i, s in enumerate(drawn.shapes.tolist()))
        origin = f"{len(drawn.images)} generated images: the shape of one class filled with the texture of another."
        return Stimuli(drawn.images, drawn.shapes.numpy(), drawn.textures.numpy(), names, source, origin)
    if source == "geirhos":
        return _ready(classes, stimuli)
    data = load(dataset, size)
    images, labels = test_images(data, count, seed)
    chosen = partners(labels, seed)
    if source == "fourier":
        made = to_bytes(fourier(images, images[chosen]))
        how = "with its phase spectrum and the amplitude spectrum of one of another class"
    else:
        teacher = teacher_for(work, dataset, size)
        made = transfer(
            images, images[chosen], teacher, technique, steps, work.accel,
            lambda f: work.tell(0.5 + 0.3 * f, "Transferring styles."),
        )  # fmt: skip
        how = {
            "gram": "moved until a teacher's features have the Gram matrices of one of another class",
            "adain": "moved until a teacher's features have the means and deviations of one of another class",
        }[technique]
    names = tuple(f"{classes[a]}-{classes[b]}-{i}" for i, (a, b) in enumerate(zip(labels, labels[chosen], strict=True)))
    origin = f"{len(made)} test images of {data.title}, each {how}."
    return Stimuli(made, labels.numpy(), labels[chosen].numpy(), names, source, origin)


def _best(dataset: str, classes: tuple[str, ...], stimuli: str | None) -> str:
    if classes == SHAPES:
        return "shapes"
    shared = {category(c) for c in classes} & set(CATEGORIES)
    return "geirhos" if len(shared) > 1 and stimuli_path(stimuli) else "fourier"


def pictures_of(classes: tuple[str, ...], kind: str, path: Path) -> list[Picture]:
    """Ready stimuli of one kind in the categories that ``classes`` stand for."""
    return read_pictures(path, kind, sorted({category(c) for c in classes}))


def class_numbers(classes: tuple[str, ...]) -> dict[str, int]:
    """The class number of each category."""
    return {category(c): i for i, c in enumerate(classes)}


def to_tensor(pictures: Sequence[Picture], side: int = 64) -> Tensor:
    """Pictures as (N, 3, side, side) uint8."""
    each = [torch.from_numpy(np.array(p.pixels)).permute(2, 0, 1).unsqueeze(0) for p in pictures]
    return torch.cat([resized(image, side) for image in each])


def _ready(classes: tuple[str, ...], stimuli: str | None) -> Stimuli:
    path = stimuli_path(stimuli)
    if path is None:
        raise Refused(
            "The published stimuli (texture-vs-shape.zip) are not in the folder that LIMBECK_DATA names; give the path "
            "of a folder or .zip of stimuli named shape1-texture2.png, or choose fourier."
        )
    pictures = pictures_of(classes, "cue-conflict", path)
    numbers = class_numbers(classes)
    pictures = [p for p in pictures if p.shape != p.texture]
    if not pictures:
        raise Refused(
            f"{path.name} holds no stimuli whose shape and texture are two classes that the students know "
            f"({', '.join(classes[:10])}); choose fourier or style."
        )
    origin = (
        f"{len(pictures)} ready stimuli from {path.name} whose shape and texture are classes the students know "
        f"({', '.join(sorted({p.shape for p in pictures}))})."
    )
    return Stimuli(
        to_tensor(pictures),
        np.array([numbers[p.shape] for p in pictures]),
        np.array([numbers[p.texture] for p in pictures]),
        tuple(p.name for p in pictures),
        "geirhos",
        origin,
        path,
    )


def test_images(data: Dataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """About ``count`` test images, as many of each class, drawn from ``seed``, and their labels."""
    per_class = -(-count // len(data.classes))
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for c in range(len(data.classes)):
        members = torch.nonzero(data.test_labels == c).flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    indices = torch.cat(chosen)
    return data.test_images[indices], data.test_labels[indices]


test_images.__test__ = False  # type: ignore[attr-defined]  # a test runner would take its name for a test's


def resized(images: Tensor, side: int) -> Tensor:
    """uint8 images (N, C, H, W) at another size, antialiased."""
    if images.shape[-1] == side:
        return images
    return to_bytes(F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True, align_corners=False))


def fitted(images: Tensor, student: Student) -> Tensor:
    """uint8 images (N, C, H, W) as a student takes them: its size, its number of channels."""
    images = resized(images, int(student.facts["size"]))
    if images.shape[1] == student.facts["channels"]:
        return images
    grey = greyscale(images)[:, :1]
    return grey if student.facts["channels"] == 1 else grey.expand(-1, 3, -1, -1).contiguous()


def decide(student: Student, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A student's decisions (N,) and its confidence in them (N,), in [0, 1]."""
    confidence, decisions = student.logits(fitted(images, student)).softmax(1).max(1)
    return decisions.numpy(), confidence.numpy()


# ---- who the students are -------------------------------------------------------------------------------------------


def names_of(students: Sequence[Student]) -> list[str]:
    """A name for each that no other has."""
    all_names = [s.name for s in students]
    return [n if all_names.count(n) == 1 else f"{n} ({s.id[-5:]})" for n, s in zip(all_names, students, strict=True)]


def network_name(network: str, width: int = 128, depth: int = 3) -> str:
    """A network in words; width and depth of a ConvNet where they are not the usual ones."""
    if network not in ("convnet", "edge-popup"):
        return network
    return network + (f", width {width}" if width != 128 else "") + (f", depth {depth}" if depth != 3 else "")


def network_of(student: Student) -> str:
    """The same of a student, with how long it was trained where that was asked for."""
    facts, spec = student.facts, student.facts.get("spec") or {}
    name = network_name(str(facts.get("network", "network")), spec.get("width", 128), spec.get("depth", 3))
    if facts.get("network") == "edge-popup":
        name += f", {spec.get('keep', 0.5):.0%} of {spec.get('weights', 'kaiming')} weights"
    return name + (f", {spec['epochs']} epochs" if spec.get("epochs") else "")


def group_of(student: Student) -> str:
    """What students of different seeds have in common: training set and network, in words."""
    facts, source = student.facts, student.facts.get("source") or {}
    spec = facts.get("spec") or {}
    kind = source.get("kind", "full")
    parts = [{"full": "full data", "random": "random real", "selected": "selected real"}.get(kind, kind)]
    if source.get("method") and source["method"] != kind:
        parts.append(str(source["method"]))
    if kind != "full" and source.get("ipc"):
        parts.append(f"{source['ipc']} per class")
    elif source.get("images"):
        parts.append(f"{source['images']:,} images")
    parts.append(network_of(student))
    if facts.get("protocol"):
        parts.append(str(facts["protocol"]))
    if spec.get("style", "original") != "original":
        parts.append(f"{spec['style']} style")
    if spec.get("epsilon"):
        parts.append(f"adversarial {spec['epsilon']:g}/255")
    return ", ".join(parts)


def about(student: Student, name: str) -> dict[str, object]:
    """What identifies a student in a table."""
    facts = student.facts
    return {
        "observer": name,
        "id": student.id,
        "kind": (facts.get("source") or {}).get("kind", "full"),
        "group": group_of(student),
        "network": network_of(student),
        "seed": facts.get("seed"),
        "test_accuracy": facts.get("accuracy"),
    }


def common_size(students: Sequence[Student]) -> int:
    """The largest side that any of them takes: test images are read at this size."""
    return max(int(s.facts["size"]) for s in students)
