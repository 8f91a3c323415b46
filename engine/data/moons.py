"""Stars and moons: a toy set whose classes can be told by shape, and in training by position too.

Geirhos, Jacobsen, Michaelis, Zemel, Brendel, Bethge & Wichmann, "Shortcut Learning in Deep Neural Networks", Nature
Machine Intelligence 2020, figure 2. Everything comes from a seed.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from engine.data.assemble import statistics
from engine.data.base import Dataset
from engine.errors import Refused

CLASSES = ("star", "moon")
SIZE = 28
Layout = Literal["halves", "corners"]
_FINE = 4  # figures are drawn so many times larger and averaged down


def make_moons(
    n_per_class: int, seed: int = 0, agreement: float = 1.0, layout: Layout = "halves"
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (2n, 1, 28, 28) uint8, labels (2n,) int64 (0 star, 1 moon), and the class (2n,) that each position stands
    for. Classes alternate.

    ``agreement``: the share of images, exact to one image of each class, whose position stands for their class: 1 is
    the training set of the paper, 0.5 leaves position without meaning, 0 turns it round. ``layout``: ``halves`` has
    stars on the left and moons on the right; ``corners`` stars at the lower left and upper right, moons at the other
    two, so that neither coordinate alone tells. Figures differ in place, size, angle and brightness, the ground in
    noise. Raises ``Refused``.
    """
    if n_per_class < 1 or not 0 <= agreement <= 1:
        raise Refused("Stars and moons come in one or more a class, and agree with position in a share from 0 to 1.")
    if layout not in get_args(Layout):
        raise Refused(f"Stars and moons have no positions “{layout}”; choose one of {', '.join(get_args(Layout))}.")
    random = np.random.default_rng([seed, 20200413])
    labels = np.arange(2 * n_per_class) % 2
    agree = np.empty(2 * n_per_class, bool)
    for c in range(2):
        agree[c::2] = random.permutation(np.arange(n_per_class) < round(agreement * n_per_class))
    places = np.where(agree, labels, 1 - labels)

    upper = random.random(len(labels)) < 0.5
    right = places == 1 if layout == "halves" else (places == 0) == upper
    x = np.where(right, 20.0, 8.0) + random.uniform(-1.5, 1.5, len(labels))
    y = np.where(upper, 8.0, 20.0) + random.uniform(-1.5, 1.5, len(labels))
    radius = random.uniform(4.5, 6.0, len(labels))
    angle = random.uniform(-math.pi, math.pi, len(labels))
    light = random.uniform(120, 220, len(labels))
    images = random.uniform(0, 50, (len(labels), 1, SIZE, SIZE))
    for i, label in enumerate(labels):
        images[i, 0] += light[i] * _figure(int(label), x[i], y[i], radius[i], angle[i])
    pixels = torch.from_numpy(images.clip(0, 255).round().astype(np.uint8))
    return pixels, torch.from_numpy(labels).long(), torch.from_numpy(places).long()


def load_moons(
    n_per_class: int = 400, tests: int = 200, seed: int = 0, agreement: float = 1.0, layout: Layout = "halves"
) -> Dataset:
    """Training images whose position agrees with their class in a share ``agreement``, and test images alike."""
    images, labels, _ = make_moons(n_per_class, 2 * seed, agreement, layout)
    test_images, test_labels, _ = make_moons(tests, 2 * seed + 1, agreement, layout)
    mean, std = statistics(images)
    return Dataset("moons", "Stars and moons", CLASSES, images, labels, test_images, test_labels, mean, std)


def _figure(label: int, x: float, y: float, radius: float, angle: float) -> np.ndarray:
    """How much of each pixel a figure covers, (28, 28) in [0, 1]."""
    image = Image.new("L", (SIZE * _FINE, SIZE * _FINE), 0)
    draw = ImageDraw.Draw(image)

    def disc(cx: float, cy: float, r: float, value: int) -> None:
        draw.ellipse([(cx - r) * _FINE, (cy - r) * _FINE, (cx + r) * _FINE, (cy + r) * _FINE], fill=value)

    if CLASSES[label] == "star":
        turns = [(angle + math.pi * i / 5, radius * (1.0, 0.45)[i % 2]) for i in range(10)]
        draw.polygon([((x + r * math.cos(a)) * _FINE, (y + r * math.sin(a)) * _FINE) for a, r in turns], fill=255)
    else:
        disc(x, y, 0.92 * radius, 255)
        disc(x + 0.5 * radius * math.cos(angle), y + 0.5 * radius * math.sin(angle), 0.72 * radius, 0)
    return np.asarray(image, np.float64).reshape(SIZE, _FINE, SIZE, _FINE).mean((1, 3)) / 255
