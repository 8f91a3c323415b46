"""Probe ``distilled-view``: synthetic images as input to the students.

What in them do students look at, which real images do they pull (nearest in feature space), and how far are they from
natural images in their power spectrum and their total variation?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution import figures, pictures
from engine.probes.attribution.agreement import many_maps
from engine.probes.attribution.asked import (
    asked_set,
    asked_students,
    data_of,
    described,
    drawn_tests,
    exact_pixels,
    network_of,
    who,
)
from engine.probes.attribution.figures import plain
from engine.probes.attribution.methods import check
from engine.probes.attribution.specs import DistilledSpec, baseline_note
from engine.probes.desk import Answer
from engine.students.kept import Student
from engine.synthetic import SyntheticSet

MOST = 20  # images that are looked at
LISTED = 200  # real images whose total variation is listed


def answer(spec: DistilledSpec, work: Work) -> Answer:
    """See ``DistilledSpec``."""
    students = asked_students(work, spec.students)
    skipped = {s.id: why for s in students if (why := check(spec.method, s, spec))}
    data = data_of(students[0], work)
    synthetic = asked_set(spec.run, students[0], work)
    indices = asked_indices(spec.indices, synthetic)
    pixels = exact_pixels(synthetic, indices)
    targets = synthetic.hard_labels[indices]
    chosen = drawn_tests(data, spec.tests, spec.seed)
    real, real_labels = data.test_images[chosen], data.test_labels[chosen]
    classes = students[0].classes

    looks: list[dict[str, Any]] = []
    nearest: list[dict[str, Any]] = []
    images = [pictures.shown(p) for p in pixels]
    across = min(10, len(images))
    big = pictures.enlarged(data.size, 96)
    files = {"set": work.picture("set", pictures.sheet(_lines(images, across)), big)}
    for i, student in enumerate(students):

        def tell(fraction: float, i: int = i, student: Student = student) -> None:
            work.tell(0.1 + 0.8 * (i + fraction) / len(students), f"Asking {student.name}.")

        tell(0.0)
        confidence, predicted = student.logits(pixels).double().softmax(1).max(1)
        for at, index in enumerate(indices):
            looks.append(
                {
                    **who(student),
                    "index": index,
                    "class": classes[int(targets[at])],
                    "predicted": classes[int(predicted[at])],
                    "confidence": plain(float(confidence[at])),
                }
            )
        if student.id not in skipped:

            def mapped(done: float, tell: Callable[[float], None] = tell) -> None:
                tell(0.6 * done)

            maps = many_maps(student, pixels, targets, spec, data, mapped)
            drawn = [pictures.blended(m, figures.limit_of([m]), image) for m, image in zip(maps, images, strict=True)]
            files[f"maps-{i}"] = work.picture(f"maps-{i}", pictures.sheet(_lines(drawn, across)), big)
        distances = 1 - cosines(student, pixels, real, lambda f, tell=tell: tell(0.6 + 0.4 * f))
        rows = []
        for at, index in enumerate(indices):
            order = distances[at].argsort(stable=True)[: spec.neighbours].tolist()
            for rank, found in enumerate(order):
                nearest.append(
                    {
                        **who(student),
                        "index": index,
                        "rank": rank + 1,
                        "test_index": int(chosen[found]),
                        "class": classes[int(real_labels[found])],
                        "own_class": int(real_labels[found]) == int(targets[at]),
                        "distance": plain(float(distances[at, found])),
                    }
                )
            rows.append([images[at], *(pictures.shown(real[found].float() / 255) for found in order)])
        files[f"nearest-{i}"] = work.picture(f"nearest-{i}", pictures.sheet(rows), big)

    work.tell(0.93, "Measuring spectra.")
    everything = exact_pixels(synthetic, slice(None))
    kinds = {"synthetic": everything, "real": real.float() / 255}
    spectrum, variation, summary = [], [], {}
    for kind, values in kinds.items():
        spectrum += _spectrum_rows(kind, values, spec.seed)
        found = total_variation(values)
        numbers = range(len(found)) if kind == "synthetic" else chosen[:LISTED].tolist()
        variation += [
            {"kind": kind, "index": int(index), "variation": plain(float(v))}
            for index, v in zip(numbers, found, strict=False)
        ]
        summary[kind] = {
            name: plain(v)
            for name, v in zip(("mean", "low", "high"), figures.bootstrap_interval(found, spec.seed), strict=True)
        }
    facts = {
        "students": described(students),
        "skipped": skipped,
        "indices": indices,
        "classes": [classes[int(c)] for c in targets],
        "total_variation": summary,
        "searched": len(chosen),
    }
    notes = [f"{s.name}: {skipped[s.id]}" for s in students if s.id in skipped]
    notes += [baseline_note(spec.method, spec.baseline, network_of(s)) for s in students]
    notes.append(
        "The maps explain the class that each synthetic image stands for (of a soft label the largest), each on a "
        f"colour scale of its own. Neighbours are sought among {len(chosen):,} test images by the cosine of features."
    )
    tables = {"looks": looks, "nearest": nearest, "spectrum": spectrum, "variation": variation}
    return Answer(tables, facts, files, tuple(dict.fromkeys(filter(None, notes))))


def asked_indices(text: str, synthetic: SyntheticSet) -> list[int]:
    """Indices of images of a set; the first of each class unless given. Raises ``Refused``."""
    count = len(synthetic.images)
    if not text.strip():
        labels = synthetic.hard_labels
        first = [int(torch.nonzero(labels == c)[0]) for c in labels.unique().tolist()]
        return first[:MOST]
    parts = list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    if not all(part.isdecimal() and int(part) < count for part in parts) or not 1 <= len(parts) <= MOST:
        raise Refused(
            f"Name 1 to {MOST} images of the set by their indices from 0 to {count - 1}, separated by commas, not "
            f"“{text[:80]}”."
        )
    return [int(part) for part in parts]


def _lines(images: list[np.ndarray], across: int) -> list[list[np.ndarray]]:
    return [images[start : start + across] for start in range(0, len(images), across)]


def cosines(student: Student, pixels: Tensor, real: Tensor, tell: Any = None) -> Tensor:
    """(N, M) cosine similarities of the features of images (N, ...) in [0, 1] to those of real ones (M, ...) uint8."""
    with torch.no_grad():
        mine = F.normalize(student.module.features(student.prepare(pixels)).float())
        out: list[Tensor] = []
        for part in real.split(250):
            if tell:
                tell(len(out) * 250 / len(real))
            out.append(mine @ F.normalize(student.module.features(student.prepare(part)).float()).T)
    return torch.cat(out, 1).cpu()


# ---- statistics of images --------------------------------------------------------------------------------------------


def radial_spectrum(pixels: Tensor) -> np.ndarray:
    """Radially averaged power (N, size // 2) of images (N, C, H, W) at 1, 2, … cycles per image.

    Grey values less their mean, under a Hann window so that the borders make no frequencies of their own; |FFT|² over
    the number of pixels, averaged over rings one cycle wide.
    """
    grey = pixels.double().mean(1).numpy()
    size = grey.shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    flat = grey - (grey * window).sum((1, 2), keepdims=True) / window.sum()
    power = np.abs(np.fft.fft2(flat * window)) ** 2 / size**2
    cycles = np.fft.fftfreq(size) * size
    ring = np.round(np.hypot(cycles[:, None], cycles[None, :])).astype(int)
    return np.stack([power[:, ring == r].mean(1) for r in range(1, size // 2 + 1)], 1)


def _spectrum_rows(kind: str, pixels: Tensor, seed: int) -> list[dict[str, Any]]:
    logs = np.log10(radial_spectrum(pixels) + 1e-12)
    rows = []
    for i in range(logs.shape[1]):
        mean, low, high = (10**v for v in figures.bootstrap_interval(logs[:, i], seed))
        rows.append({"kind": kind, "frequency": i + 1, "power": plain(mean), "low": plain(low), "high": plain(high)})
    return rows


def total_variation(pixels: Tensor) -> np.ndarray:
    """(N,) mean absolute difference between neighbouring pixels, across plus down (anisotropic total variation)."""
    across = (pixels[..., 1:] - pixels[..., :-1]).abs().mean((1, 2, 3))
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean((1, 2, 3))
    return (across + down).double().numpy()
