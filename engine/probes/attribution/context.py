"""Probe ``context``: is it the object or its context that a student answers to?

After the ImageNet-9 study (Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object Recognition", ICLR
2021): the same objects in other contexts, in noise, alone, and the context without them; and, on each of these images,
the share of the attribution volume that lies on the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.data.base import Dataset
from engine.errors import Refused
from engine.intervals import wilson
from engine.probes.answerer import Work
from engine.probes.attribution import figures, pictures
from engine.probes.attribution.agreement import many_maps
from engine.probes.attribution.asked import (
    asked_image,
    asked_students,
    data_of,
    described,
    drawn_tests,
    kept_mask,
    network_of,
    who,
)
from engine.probes.attribution.figures import interval_columns, plain
from engine.probes.attribution.methods import check
from engine.probes.attribution.specs import ContextSpec, baseline_note
from engine.probes.desk import Answer
from engine.students.kept import Student

CONDITIONS = {
    "original": "The image as it is.",
    "context-swapped": "The object on the context of an image of another class (Mixed-Rand in ImageNet-9).",
    "context-noised": "The object on noise with the context's own mean and spread.",
    "object-removed": "The context alone: the object's place is filled in from around it (Only-BG).",
    "context-removed": "The object alone, on the dataset's mean colour (Only-FG).",
}
WHOLE = (
    "There are no masks of the other images, so a swapped context is a whole image of another class behind the object."
)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images (N, C, H, W) in [0, 1] under one condition, the objects' masks (N, H, W) bool, and which of the original
    images each one is (N,)."""

    pixels: Tensor
    masks: np.ndarray
    of: Tensor


def answer(spec: ContextSpec, work: Work) -> Answer:
    """See ``ContextSpec``."""
    students = asked_students(work, spec.students)
    skipped = {s.id: why for s in students if (why := check(spec.method, s, spec))}
    if len(skipped) == len(students):
        raise Refused(" ".join(dict.fromkeys(skipped.values())))
    data = data_of(students[0], work)
    pixels, masks, labels, own = _asked(spec, students[0], data, work)
    work.tell(0.1, "Changing the images.")
    scenes = arranged(pixels, masks, labels, own, data, spec.images if len(pixels) == 1 else 1, spec.seed)

    rows: list[dict[str, Any]] = []
    examples: dict[str, list[np.ndarray]] = {}
    done, total = 0, len(CONDITIONS) * (len(students) - len(skipped))
    for i, student in enumerate(students):
        if student.id in skipped:
            continue
        original = student.logits(pixels).argmax(1)
        shown = []
        for condition, scene in scenes.items():

            def tell(fraction: float, done: int = done, student: Student = student) -> None:
                work.tell(0.15 + 0.8 * (done + fraction) / total, f"Asking {student.name}.")

            tell(0.0)
            predicted = student.logits(scene.pixels).argmax(1)
            truth = None if labels is None else labels[scene.of]
            if spec.target == "true" and truth is None:
                raise Refused("Nobody has said what your picture shows: choose the target predicted.")
            targets = truth if spec.target == "true" and truth is not None else predicted
            maps = many_maps(student, scene.pixels, targets, spec, data, tell)
            shown.append(pictures.coloured(maps[0], figures.limit_of([maps[0]])))
            rows += _rows(student, condition, scene, maps, predicted, original[scene.of], truth, spec.seed)
            done += 1
        examples[f"maps-{i}"] = shown

    big = pictures.enlarged(data.size, 128)
    strip = [pictures.shown(scene.pixels[0]) for scene in scenes.values()]
    files = {"conditions": work.picture("conditions", pictures.sheet([strip]), big)}
    files |= {name: work.picture(name, pictures.sheet([row]), big) for name, row in examples.items()}
    facts = {
        "students": described(students),
        "skipped": skipped,
        "conditions": CONDITIONS,
        "images": len(pixels),
    }
    notes = [f"{s.name}: {skipped[s.id]}" for s in students if s.id in skipped]
    notes += [baseline_note(spec.method, spec.baseline, network_of(s)) for s in students]
    if "test" not in data.masks:
        notes.append(WHOLE)
    notes.append("Maps in the pictures have a colour scale each. A share on the object as large as its area is chance.")
    return Answer({"context": rows}, facts, files, tuple(dict.fromkeys(filter(None, notes))))


def _asked(
    spec: ContextSpec, student: Student, data: Dataset, work: Work
) -> tuple[Tensor, np.ndarray, Tensor | None, int | None]:
    """Images, masks, labels, and the index of the test image where it is a single one."""
    if spec.image.strip() == "all":
        if "test" not in data.masks:
            raise Refused(f"{data.title} has no masks. Choose one image and paint its mask, or ask about shapes.")
        chosen = drawn_tests(data, spec.images, spec.seed)
        return (
            data.test_images[chosen].float() / 255,
            data.masks["test"][chosen].numpy(),
            data.test_labels[chosen],
            None,
        )
    picture = asked_image(spec.image, student, work)
    if spec.mask.strip():
        mask = kept_mask(spec.mask, data.size, work.store.home)
    elif picture.index is not None and "test" in data.masks:
        mask = data.masks["test"][picture.index]
    else:
        raise Refused("Where is the object? Paint a mask: nothing else says what is context in this image.")
    labels = None if picture.label is None else torch.tensor([picture.label])
    return picture.pixels.clamp(0, 1), mask[None].numpy(), labels, picture.index


# ---- conditions ------------------------------------------------------------------------------------------------------


def arranged(
    pixels: Tensor,
    masks: np.ndarray,
    labels: Tensor | None,
    own: int | None,
    data: Dataset,
    draws: int = 1,
    seed: int = 0,
) -> dict[str, Scenes]:
    """The images under each condition. ``draws``: how many contexts, or noises, each image is shown on. ``own``: a
    test image that must not be its own context."""
    n = len(pixels)
    alone = torch.arange(n)
    many = alone.repeat_interleave(draws)
    inside = torch.from_numpy(masks).unsqueeze(1)
    several, several_inside = pixels[many], inside[many]
    generator = torch.Generator().manual_seed(seed)

    contexts = _contexts(None if labels is None else labels[many], len(many), own, data, generator)
    count = (~inside).sum((2, 3), keepdim=True)
    mean = (pixels * ~inside).sum((2, 3), keepdim=True) / count
    spread = (((pixels - mean) ** 2 * ~inside).sum((2, 3), keepdim=True) / count).sqrt()
    noise = torch.randn(several.shape, generator=generator)
    noise = (mean[many] + spread[many].clamp_min(0.05) * noise).clamp(0, 1)
    plain_colour = torch.tensor(data.mean).view(1, -1, 1, 1).expand_as(pixels)
    filled = torch.stack([filled_in(x, m) for x, m in zip(pixels, masks, strict=True)])
    return {
        "original": Scenes(pixels, masks, alone),
        "context-swapped": Scenes(torch.where(several_inside, several, contexts), masks[many.numpy()], many),
        "context-noised": Scenes(torch.where(several_inside, several, noise), masks[many.numpy()], many),
        "object-removed": Scenes(filled, masks, alone),
        "context-removed": Scenes(torch.where(inside, pixels, plain_colour), masks, alone),
    }


def _contexts(labels: Tensor | None, count: int, own: int | None, data: Dataset, generator: torch.Generator) -> Tensor:
    """Contexts (count, C, H, W) from test images of other classes, their objects filled in where masks say where."""
    out = []
    for i in range(count):
        while True:
            at = int(torch.randint(len(data.test_labels), (1,), generator=generator))
            if at != own and (labels is None or int(data.test_labels[at]) != int(labels[i])):
                break
        image = data.test_images[at].float() / 255
        out.append(filled_in(image, data.masks["test"][at].numpy()) if "test" in data.masks else image)
    return torch.stack(out)


def filled_in(image: Tensor, mask: np.ndarray) -> Tensor:
    """An image (C, H, W) whose masked place (H, W) has the nearest colours from around it, smoothed; the mask is
    widened by a pixel, so that no rim of the object stays."""
    wide = ndimage.binary_dilation(mask)
    if wide.all():
        wide = mask
    nearest = ndimage.distance_transform_edt(wide, return_distances=False, return_indices=True)
    filled = image.numpy()[:, nearest[0], nearest[1]]
    smooth = ndimage.gaussian_filter(filled, (0, 2, 2))
    return torch.from_numpy(np.where(wide, smooth, image.numpy()).astype(np.float32))


# ---- rows ------------------------------------------------------------------------------------------------------------


def _rows(
    student: Student,
    condition: str,
    scene: Scenes,
    maps: np.ndarray,
    predicted: Tensor,
    original: Tensor,
    truth: Tensor | None,
    seed: int,
) -> list[dict[str, Any]]:
    shares = figures.inside(maps, scene.masks)
    areas = scene.masks.mean((1, 2))
    subsets = {"all": np.ones(len(maps), bool)}
    if truth is not None:
        right = (predicted == truth).numpy()
        subsets |= {"correct": right, "incorrect": ~right}
    rows = []
    for subset, chosen in subsets.items():
        hits, trials = None if truth is None else int((chosen & subsets["correct"]).sum()), int(chosen.sum())
        low, high = (None, None) if hits is None else wilson(hits, trials)
        kept = (predicted == original).numpy()[chosen]
        rows.append(
            {
                **who(student),
                "condition": condition,
                "subset": subset,
                "n": trials,
                "accuracy": plain(hits / trials) if hits is not None and trials else None,
                "accuracy_low": plain(low),
                "accuracy_high": plain(high),
                "kept": plain(float(kept.mean())) if len(kept) else None,
                **interval_columns("object_share", shares[chosen], seed),
                "area": plain(float(areas[chosen].mean())) if chosen.any() else None,
            }
        )
    return rows
