"""The five experiments: accuracy when colour, inner structure, or everything but the texture is taken away.

Original, greyscale, silhouette, edges and texture, as in figure 2 of Geirhos et al., ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.data import load
from engine.data.catalogue import SHAPES
from engine.data.shapes import make_shapes
from engine.data.stylise import edges, greyscale, shuffle_patches, silhouettes, textures
from engine.intervals import wilson
from engine.probes.answerer import Work
from engine.probes.bias.people import CATEGORIES, category, stimuli_path
from engine.probes.bias.specs import FiveSpec
from engine.probes.bias.stimuli import (
    about,
    class_numbers,
    common_size,
    decide,
    names_of,
    pictures_of,
    students_of,
    teacher_for,
    test_images,
    to_tensor,
)
from engine.probes.desk import Answer

EXPERIMENTS = ("original", "greyscale", "silhouette", "edges", "texture")
SHOWN = 6
GRID = 4  # patches along each side of a shuffled image


@dataclass(frozen=True, eq=False)
class Experiment:
    """Images (N, C, H, W) uint8 with the class (N,) that is right, and a sentence on where they come from."""

    images: Tensor
    labels: np.ndarray
    origin: str


def answer(spec: FiveSpec, work: Work) -> Answer:
    """Table ``accuracy``, one row a student and experiment; a strip of pictures for each experiment."""
    students = students_of(work, spec.students, 8)
    classes, names = students[0].classes, names_of(students)
    experiments, notes = _experiments(spec, work, students[0].dataset, classes, common_size(students))
    rows, strips, origins = [], {}, []
    for i, (kind, experiment) in enumerate(experiments.items()):
        for j, (student, name) in enumerate(zip(students, names, strict=True)):
            work.tell(0.6 + 0.4 * (i + j / len(students)) / len(experiments), f"{kind.capitalize()}: asking {name}.")
            right = decide(student, experiment.images)[0] == experiment.labels
            low, high = wilson(int(right.sum()), len(right))
            rows.append(
                {
                    "experiment": kind,
                    **about(student, name),
                    "accuracy": float(right.mean()),
                    "low": low,
                    "high": high,
                    "correct": int(right.sum()),
                    "stimuli": len(right),
                }
            )
        strips[kind] = work.picture(kind, _strip(experiment.images), max(1, 96 // experiment.images.shape[-1]))
        origins.append({"experiment": kind, "stimuli": len(experiment.labels), "origin": experiment.origin})
    facts = {"chance": 1 / len(classes), "classes": list(classes)}
    return Answer({"accuracy": rows, "origins": origins}, facts, strips, tuple(notes))


def _experiments(
    spec: FiveSpec, work: Work, dataset: str, classes: tuple[str, ...], size: int
) -> tuple[dict[str, Experiment], list[str]]:
    """The experiments that can be made for a dataset, in their order, and sentences about those that cannot."""
    work.tell(0.05, "Making the stimuli.")
    data = load(dataset, size)
    images, labels = test_images(data, spec.count, spec.seed)
    truth = labels.numpy()
    found = {
        "original": Experiment(images, truth, f"Test images of {data.title}."),
        "greyscale": Experiment(
            greyscale(images),
            truth,
            "The same without colours." if images.shape[1] == 3 else "The same images: they are grey already.",
        ),
    }
    notes: list[str] = []
    path = stimuli_path(spec.stimuli)
    shared = {category(c) for c in classes} & set(CATEGORIES)
    if classes == SHAPES:
        per_class = -(-spec.count // len(classes))
        plain = make_shapes(per_class, 2_000_000 + spec.seed, "shape-only")
        found["silhouette"] = Experiment(
            silhouettes(plain.masks, 3), plain.labels.numpy(), "Generated shapes, black on white."
        )
        found["edges"] = Experiment(
            edges(silhouettes(plain.masks, 3)), plain.labels.numpy(), "Outlines of generated shapes."
        )
        pure = make_shapes(per_class, 3_000_000 + spec.seed, "texture-only")
        found["texture"] = Experiment(
            pure.images,
            pure.labels.numpy(),
            "Generated textures that fill the image. Right is the class of that number: chance for a student whose "
            "training images tied no texture to a class.",
        )
        return found, notes
    if path is not None and len(shared) > 1:
        numbers = class_numbers(classes)
        for kind, folder in (("silhouette", "silhouettes"), ("edges", "edges")):
            pictures = pictures_of(classes, folder, path)
            if pictures:
                found[kind] = Experiment(
                    to_tensor(pictures),
                    np.array([numbers[p.shape] for p in pictures]),
                    f"{len(pictures)} {kind if kind == 'edges' else 'silhouettes'} from {path.name}, in the classes "
                    f"{', '.join(sorted({p.shape for p in pictures}))}.",
                )
    if "silhouette" not in found:
        if images.shape[1] == 1:
            masks = images[:, 0] > images.amax((1, 2, 3)).view(-1, 1, 1) // 2
            found["silhouette"] = Experiment(
                silhouettes(masks, 1), truth, "Test images, brighter than half of their brightest pixel or not."
            )
        else:
            notes.append(f"There are no silhouettes for {data.title}: nothing says what is figure and what is ground.")
    if "edges" not in found:
        found["edges"] = Experiment(edges(images), truth, "Outlines of the test images, by Sobel's filter.")
    if spec.texture == "gram":
        made = textures(
            images, teacher_for(work, dataset, size), spec.seed, spec.steps, work.accel,
            lambda f: work.tell(0.1 + 0.5 * f, "Synthesising textures."),
        )  # fmt: skip
        how = "Synthesised from noise with the Gram matrices that a teacher's features have on the test images."
    else:
        made = shuffle_patches(images, GRID, spec.seed)
        how = f"Test images cut into {GRID}×{GRID} patches that are put together in random order."
    found["texture"] = Experiment(made, truth, how)
    return {kind: found[kind] for kind in EXPERIMENTS if kind in found}, notes


def _strip(images: Tensor) -> np.ndarray:
    """A few images side by side: (H, W, 3) uint8."""
    chosen: Sequence[int] = np.linspace(0, len(images) - 1, min(SHOWN, len(images))).round().astype(int).tolist()
    some = images[list(chosen)]
    some = some.expand(-1, 3, -1, -1) if some.shape[1] == 1 else some
    framed = torch.nn.functional.pad(some, (0, 1, 0, 0), value=255)
    return torch.cat(list(framed), 2)[:, :, :-1].permute(1, 2, 0).contiguous().numpy()
