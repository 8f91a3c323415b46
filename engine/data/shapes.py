"""Shapes: a generated colour dataset in which what is learned can be controlled.

Ten shapes, each filled with one of ten two-tone textures, in random colours, places, sizes and angles, on soft
backgrounds. Colour and background never say anything about the class; whether texture does is a choice (``tie``), so
that probes can ask which of the two a network looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from engine.data.assemble import assemble
from engine.data.base import Dataset
from engine.data.catalogue import SHAPES
from engine.errors import Refused

TEXTURES = (
    "bars",
    "columns",
    "diagonals",
    "checks",
    "dots",
    "grid",
    "zigzag",
    "waves",
    "bricks",
    "speckle",
)
BACKGROUNDS = ("plain", "gradient", "glow", "horizon", "clouds")
SIZE = 32
Tie = Literal["independent", "tied", "conflict", "by-texture", "shape-only", "texture-only"]
MOST = 2000  # of a class: all are drawn at once, so that memory grows with their number


@dataclass(frozen=True, eq=False)
class Shapes:
    """Generated images with everything that is known about them.

    Shapes: ``images`` (N, 3, 32, 32) uint8; ``labels`` (N,) int64, the class; ``shapes`` and ``textures`` (N,) int64,
    indices into ``SHAPES`` and ``TEXTURES``, -1 where an image has none; ``backgrounds`` (N,) int64; ``masks``
    (N, 32, 32) bool, True on the foreground.
    """

    images: Tensor
    labels: Tensor
    shapes: Tensor
    textures: Tensor
    backgrounds: Tensor
    masks: Tensor


def load() -> Dataset:
    """The dataset ``shapes``: 500 training and 100 test images a class, texture independent of shape."""
    train, test = make_shapes(500, seed=0), make_shapes(100, seed=1)
    masks = {"train": train.masks, "test": test.masks}
    return assemble("shapes", (train.images, train.labels), (test.images, test.labels), masks)


@lru_cache(maxsize=8)
def make_shapes(n_per_class: int, seed: int = 0, tie: Tie = "independent") -> Shapes:
    """Images of ten classes, ``n_per_class`` of each in turn, drawn from ``seed``.

    ``tie``: ``independent`` (label = shape, texture random), ``tied`` (class c has shape c and texture c), ``conflict``
    (label = shape c, the texture of any other class), ``by-texture`` (label = texture, shape random), ``shape-only``
    (label = shape, one flat colour), ``texture-only`` (label = texture, filling the whole image). Places, sizes,
    angles, colours and backgrounds are the same for all of them, seed by seed. Raises ``Refused``.
    """
    if not 1 <= n_per_class <= MOST:
        raise Refused(f"Shapes come in 1 to {MOST:,} a class, not {n_per_class}.")
    count = len(SHAPES)
    labels = torch.arange(count).repeat_interleave(n_per_class)
    scene = torch.Generator().manual_seed(2 * seed)
    texture = torch.Generator().manual_seed(2 * seed + 1)

    other = torch.randint(1, count, labels.shape, generator=texture)
    free = torch.randint(0, count, labels.shape, generator=texture)
    none = torch.full_like(labels, -1)
    shapes = {"texture-only": none, "by-texture": free}.get(tie, labels)
    textures = {
        "independent": free,
        "tied": labels,
        "conflict": (labels + other) % count,
        "by-texture": labels,
        "shape-only": none,
        "texture-only": labels,
    }.get(tie)
    if textures is None:
        raise Refused(f"Shapes cannot be tied by “{tie}”; choose one of {', '.join(get_args(Tie))}.")

    cover = _cover(shapes, scene)
    fill = _fill(textures, texture)
    back_hue, front_hue, back_grey, flip = torch.rand(4, len(labels), generator=scene)
    backgrounds, back = _backgrounds(back_hue, 0.15 + 0.35 * back_grey, scene)

    # Light figures on dark ground or dark figures on light ground, so that brightness does not tell them apart.
    dark, light = _colour(front_hue, 0.75, 0.42), _colour(front_hue, 0.55, 0.95)
    flipped = (flip < 0.5).view(-1, 1, 1, 1)
    back = torch.where(flipped, 1 - 0.7 * back, back)
    lit = F.avg_pool2d(cover * fill, 2)
    cover = F.avg_pool2d(cover, 2)
    images = back * (1 - cover) + dark * (cover - lit) + light * lit
    return Shapes(
        (images.clamp(0, 1) * 255).round().byte(), labels, shapes, textures, backgrounds, cover.squeeze(1) > 0.5
    )


# ---- shapes ---------------------------------------------------------------------------------------------------------


def _cover(shapes: Tensor, generator: torch.Generator) -> Tensor:
    """How much of each pixel a shape covers, in [0, 1], at twice the size: (N, 1, 64, 64). Shape -1 covers all."""
    n = len(shapes)
    radius, angle, x, y = torch.rand(4, n, generator=generator)
    radius = 0.5 + 0.3 * radius
    angle = (2 * angle - 1) * math.radians(30)
    room = (1 - radius) * 0.9
    x, y = (2 * x - 1) * room, (2 * y - 1) * room
    cos, sin = angle.cos() / radius, angle.sin() / radius
    # From where a pixel is to where it lies on the shape's stencil: the inverse of scale, turn and move.
    matrix = torch.stack([cos, sin, -(cos * x + sin * y), -sin, cos, sin * x - cos * y], 1).view(n, 2, 3)
    out = torch.ones(n, 1, 2 * SIZE, 2 * SIZE)
    for shape in range(len(SHAPES)):
        mine = torch.nonzero(shapes == shape).flatten()
        if len(mine):
            grid = F.affine_grid(matrix[mine], [len(mine), 1, 2 * SIZE, 2 * SIZE], align_corners=False)
            stencil = _stencil(shape).expand(len(mine), 1, -1, -1)
            out[mine] = F.grid_sample(stencil, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return out


@lru_cache(maxsize=len(SHAPES))
def _stencil(shape: int) -> Tensor:
    """A shape within the unit circle, white on black, anti-aliased: (1, 64, 64) in [0, 1]."""
    side = 512
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)

    def at(x: float, y: float) -> tuple[float, float]:
        return (x + 1) * side / 2, (y + 1) * side / 2

    def polygon(points: list[tuple[float, float]], value: int = 255) -> None:
        draw.polygon([at(x, y) for x, y in points], fill=value)

    def disc(x: float, y: float, r: float, value: int = 255) -> None:
        draw.ellipse([*at(x - r, y - r), *at(x + r, y + r)], fill=value)

    def around(count: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
        """``count`` corners on circles of ``radii`` in turn, the first one on top."""
        angles = [2 * math.pi * i / count for i in range(count)]
        return [
            (radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a)) for i, a in enumerate(angles)
        ]

    name = SHAPES[shape]
    if name == "circle":
        disc(0, 0, 0.88)
    elif name == "square":
        polygon([(-0.74, -0.74), (0.74, -0.74), (0.74, 0.74), (-0.74, 0.74)])
    elif name == "triangle":
        polygon([(0, -0.9), (0.92, 0.72), (-0.92, 0.72)])
    elif name == "star":
        polygon(around(10, (1.0, 0.45)))
    elif name == "cross":
        a, b = 0.32, 0.92
        polygon(
            [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
        )
    elif name == "heart":
        turns = [2 * math.pi * i / 120 for i in range(120)]
        curve = [
            (16 * math.sin(t) ** 3, -13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t))
            for t in turns
        ]
        polygon([(x / 17.5, y / 17.5 - 0.1) for x, y in curve])
    elif name == "crescent":
        disc(-0.05, 0, 0.92)
        disc(0.42, 0, 0.72, 0)
    elif name == "ring":
        disc(0, 0, 0.92)
        disc(0, 0, 0.48, 0)
    elif name == "arrow":
        polygon([(0, -0.95), (0.85, 0), (0.34, 0), (0.34, 0.9), (-0.34, 0.9), (-0.34, 0), (-0.85, 0)])
    elif name == "hourglass":
        polygon([(-0.8, -0.85), (0.8, -0.85), (0.16, 0), (0.8, 0.85), (-0.8, 0.85), (-0.16, 0)])
    small = image.resize((64, 64), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(1, 64, 64).float() / 255


# ---- textures -------------------------------------------------------------------------------------------------------


def _fill(textures: Tensor, generator: torch.Generator) -> Tensor:
    """Which of its two tones a texture shows, in [0, 1], at twice the size: (N, 1, 64, 64). Texture -1 is one tone."""
    n, side = len(textures), 2 * SIZE
    shift_x, shift_y, period, angle = torch.rand(4, n, 1, 1, generator=generator)
    speckle = torch.rand(n, 1, SIZE // 2, SIZE // 2, generator=generator)
    period = 6 + 2 * period  # final pixels
    angle = (2 * angle - 1) * math.radians(8)
    line = (torch.arange(side) + 0.5) / 2 - SIZE / 2
    out = torch.full((n, 1, side, side), 0.6)
    for texture, name in enumerate(TEXTURES):
        mine = torch.nonzero(textures == texture).flatten()
        if not len(mine):
            continue
        if name == "speckle":
            out[mine] = (F.interpolate(speckle[mine], scale_factor=4, mode="nearest") > 0.5).float()
            continue
        p, cos, sin = period[mine], angle[mine].cos(), angle[mine].sin()
        u = (cos * line.view(1, 1, -1) + sin * line.view(1, -1, 1)) / p + shift_x[mine]
        v = (cos * line.view(1, -1, 1) - sin * line.view(1, 1, -1)) / p + shift_y[mine]
        out[mine, 0] = _pattern(name, u, v, p)
    return out


def _pattern(name: str, u: Tensor, v: Tensor, period: Tensor) -> Tensor:
    """A texture over coordinates that count periods, with edges about a pixel wide, in [0, 1]."""

    def ramp(distance: Tensor) -> Tensor:
        """Signed distance in periods, positive inside, to coverage."""
        return (distance * period + 0.5).clamp(0, 1)

    def stripe(t: Tensor, share: float = 0.5) -> Tensor:
        """Stripes across ``t`` that take ``share`` of each period."""
        return ramp(share / 2 - (t - t.floor() - 0.5).abs())

    def saw(t: Tensor) -> Tensor:
        """A triangle wave between 0 and 1/2."""
        return (t - t.floor() - 0.5).abs()

    if name == "bars":
        return stripe(v)
    if name == "columns":
        return stripe(u)
    if name == "diagonals":
        return stripe((u + v) * 0.75)
    if name == "checks":
        a, b = stripe(0.8 * u), stripe(0.8 * v)
        return a + b - 2 * a * b
    if name == "dots":
        return ramp(0.33 - ((u - u.floor() - 0.5) ** 2 + (v - v.floor() - 0.5) ** 2).sqrt())
    if name == "grid":
        a, b = stripe(0.9 * u, 0.3), stripe(0.9 * v, 0.3)
        return a + b - a * b
    if name == "zigzag":
        return stripe(1.1 * v + 1.3 * saw(0.6 * u))
    if name == "waves":
        return stripe(u + 0.35 * torch.sin(2 * math.pi * 0.5 * v))
    rows = 1.2 * v  # bricks: each course is moved by half a brick
    joint = stripe(rows + 0.5, 0.25)
    upright = stripe(0.6 * u + 0.5 * (rows.floor() % 2), 0.15)
    return 1 - (joint + upright - joint * upright)


# ---- colours and backgrounds ----------------------------------------------------------------------------------------


def _colour(hue: Tensor, saturation: float, value: Tensor | float) -> Tensor:
    """HSV to RGB for (N,) hues in [0, 1): (N, 3, 1, 1) in [0, 1]."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue.unsqueeze(1)) % 6
    strength = saturation * torch.minimum(k, 4 - k).clamp(0, 1)
    value = value.unsqueeze(1) if isinstance(value, Tensor) else value
    return (value * (1 - strength)).view(-1, 3, 1, 1)


def _backgrounds(hue: Tensor, value: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Kinds (N,) and soft two-colour backgrounds (N, 3, 32, 32), without any fine structure."""
    n = len(hue)
    kinds = torch.randint(0, len(BACKGROUNDS), (n,), generator=generator)
    turn, x, y, other = torch.rand(4, n, 1, 1, generator=generator)
    clouds = torch.rand(n, 1, 4, 4, generator=generator)
    line = torch.linspace(-1, 1, SIZE)
    across, down = line.view(1, 1, -1), line.view(1, -1, 1)
    slope = across * (2 * math.pi * turn).cos() + down * (2 * math.pi * turn).sin()
    mixes = {
        "plain": torch.zeros(n, SIZE, SIZE),
        "gradient": (slope + 1.4) / 2.8,
        "glow": (-((across - x + 0.5) ** 2 + (down - y + 0.5) ** 2) / 0.6).exp(),
        "horizon": ((down - 0.8 * (2 * y - 1) + 0.2 * across * (2 * x - 1)) * 8 + 0.5).clamp(0, 1),
        "clouds": F.interpolate(clouds, size=(SIZE, SIZE), mode="bicubic", align_corners=True).squeeze(1).clamp(0, 1),
    }
    mix = torch.stack([mixes[name] for name in BACKGROUNDS], 1)[torch.arange(n), kinds].unsqueeze(1)
    first = _colour(hue, 0.35, value)
    second = _colour((hue + 0.1 + 0.2 * other.view(-1)) % 1, 0.3, value + 0.2)
    return kinds, first * (1 - mix) + second * mix
