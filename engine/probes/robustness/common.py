"""What the probes of this folder share: test images, intervals, pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torchvision.transforms.v2.functional as V
from scipy import stats
from torch import Tensor

from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.intervals import wilson
from engine.probes.answerer import Work
from engine.students.kept import Student, load_students


def same_dataset(ids: str, work: Work) -> tuple[list[Student], Dataset]:
    """Students that know the same classes at the same size, and their dataset. Raises ``Refused``."""
    students = load_students(work.store, ids, work.accel)
    first = students[0]
    for student in students:
        if (student.dataset, student.classes) != (first.dataset, first.classes) or shape(student) != shape(first):
            raise Refused(
                f"{first.name} and {student.name} were trained on different datasets ({first.dataset}, "
                f"{student.dataset}); choose students of one dataset."
            )
    work.tell(0.01, f"Loading {first.dataset}.")
    data = load(first.dataset, shape(first)[1])
    if (data.channels, data.size) != shape(first) or len(data.classes) != len(first.classes):
        raise Refused(
            f"{data.title} is no longer what {first.name} was trained on: its images or classes have changed. Train "
            "the student again."
        )
    return students, data


def shape(student: Student) -> tuple[int, int]:
    """Channels and side of the images that a student takes."""
    return int(student.facts["channels"]), int(student.facts["size"])


def about(student: Student) -> dict[str, Any]:
    """The columns that say whose row it is."""
    source = student.facts.get("source", {})
    return {
        "student": student.id,
        "name": student.name,
        "kind": source.get("kind", "full"),
        "network": student.facts.get("network", ""),
    }


def drawn(images: Tensor, labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """At most ``count`` of the images and labels, and their indices, at random but always the same for a seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count]
    return images[order], labels[order], order


def share(right: int, of: int, name: str = "accuracy") -> dict[str, Any]:
    """The columns of a share: counts, the share, and its 95 % Wilson interval. None for a share of nothing."""
    low, high = wilson(right, of)
    return {
        "images": of,
        "right" if name == "accuracy" else "count": right,
        name: right / of if of else None,
        "low": low,
        "high": high,
    }


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean and Student's t interval; (mean, None, None) of a single value."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, None, None
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


def spearman(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float | None]:
    """Spearman's rank correlation and its two-sided p-value by permutation of all (or 5,000 random) orders; None for
    fewer than three pairs, or where one side is constant."""
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None, None

    def statistic(x: Any) -> float:
        return float(stats.spearmanr(x, b).statistic)

    test = stats.permutation_test(
        (list(a),), statistic, permutation_type="pairings", n_resamples=5000, rng=0, vectorized=False
    )
    return float(test.statistic), float(test.pvalue)


def adapt(images: Tensor, channels: int, size: int) -> Tensor:
    """uint8 images (N, C, H, W) with another number of channels and another side: grey is repeated, colour becomes
    luminance, and the side is changed bilinearly with anti-aliasing."""
    if images.shape[1] != channels:
        images = images.expand(-1, 3, -1, -1) if channels == 3 else V.rgb_to_grayscale(images)
    if images.shape[-1] != size:
        images = V.resize(images, [size, size], antialias=True)
    return images.contiguous()


def sheet(rows: Iterable[Iterable[Tensor]], gap: int = 2) -> Tensor:
    """Images (C, H, W), uint8 or in [0, 1], row by row in one picture, uint8 (H', W', 3), on grey."""
    grid = [[_colour(image) for image in row] for row in rows]
    side = grid[0][0].shape[0]
    columns = max(len(row) for row in grid)
    out = torch.full(((side + gap) * len(grid) - gap, (side + gap) * columns - gap, 3), 128, dtype=torch.uint8)
    for i, row in enumerate(grid):
        for j, image in enumerate(row):
            out[i * (side + gap) : i * (side + gap) + side, j * (side + gap) : j * (side + gap) + side] = image
    return out


def _colour(image: Tensor) -> Tensor:
    """(C, H, W), uint8 or in [0, 1], as uint8 (H, W, 3)."""
    image = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().byte()
    return image.expand(3, -1, -1).permute(1, 2, 0).cpu()
