"""Maps and images as pictures: uint8 arrays (H, W, 3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

# From blue (against) over near-white to burnt orange (for): told apart by colour-blind eyes, and alike in lightness,
# so that strength can be read in grey. After ColorBrewer's PuOr and RdBu.
AGAINST = ((247, 247, 247), (146, 197, 222), (33, 102, 172), (5, 48, 97))
FOR = ((247, 247, 247), (253, 184, 99), (197, 90, 17), (110, 47, 5))
GAP = 2  # white pixels between the images of a sheet


def coloured(values: np.ndarray, limit: float) -> np.ndarray:
    """A map (H, W) in colours, from ``-limit`` (blue) over 0 (near-white) to ``limit`` (orange)."""
    strength = np.clip(np.abs(values) / (limit or 1.0), 0, 1)
    stops = np.linspace(0, 1, len(FOR))
    sides = [
        np.stack([np.interp(strength, stops, [c[i] for c in colours]) for i in range(3)], -1)
        for colours in (AGAINST, FOR)
    ]
    return np.where((values >= 0)[..., None], sides[1], sides[0]).round().astype(np.uint8)


def blended(values: np.ndarray, limit: float, image: np.ndarray) -> np.ndarray:
    """The coloured map, printed over the paled grey image (H, W, 3) so that one sees what lies where."""
    grey = image.astype(float).mean(-1, keepdims=True)
    return (coloured(values, limit) * (0.35 + 0.65 * grey / 255)).round().astype(np.uint8)


def key(limit: float, signed: bool, width: int = 128, height: int = 8) -> np.ndarray:
    """The colours from ``-limit`` (from 0 when nothing is negative) to ``limit``, left to right."""
    return coloured(np.tile(np.linspace(-limit if signed else 0.0, limit, width), (height, 1)), limit)


def shown(pixels: Tensor) -> np.ndarray:
    """An image (C, H, W) in [0, 1] (what lies beyond is cut off) as (H, W, 3)."""
    array = (pixels.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.repeat(array, 3, 2) if array.shape[2] == 1 else array


def sheet(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Images of one size in rows, with white gaps; shorter rows end in white."""
    height, width = rows[0][0].shape[:2]
    most = max(len(row) for row in rows)
    out = np.full((len(rows) * (height + GAP) - GAP, most * (width + GAP) - GAP, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            y, x = r * (height + GAP), c * (width + GAP)
            out[y : y + height, x : x + width] = image
    return out


def enlarged(size: int, to: int = 256) -> int:
    """The whole number by which images of ``size`` pixels are enlarged to about ``to``."""
    return max(1, round(to / size))
