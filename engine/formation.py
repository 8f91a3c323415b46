"""Several images stored in one: IDC's multi-formation (Kim et al., Dataset Condensation via Efficient Synthetic-Data
Parameterization, ICML 2022).

With a factor f, each stored image is a grid of f × f smaller ones. Whoever trains on a set decodes it first: every part
is cut out and stretched bilinearly to the full size, so that N stored images become N · f². What little detail is lost
is worth less than the variety gained.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def decode(images: Tensor, factor: int) -> Tensor:
    """Stored images (N, C, S, S) to those they stand for, (N · factor², C, S, S), the parts of each row by row.

    Differentiable, with a backward pass that is a matrix product, so that it adds in the same order on every device.
    """
    if factor == 1:
        return images
    side, cuts = images.shape[-1], _cuts(images.shape[-1], factor)
    stretch = [_stretch(stop - start, side).to(images) for start, stop in cuts]
    parts = [
        stretch[i] @ images[..., top:bottom, left:right] @ stretch[j].T
        for i, (top, bottom) in enumerate(cuts)
        for j, (left, right) in enumerate(cuts)
    ]
    return torch.stack(parts, 1).flatten(0, 1)


def compose(images: Tensor, factor: int) -> Tensor:
    """The way back: images (N · factor², C, S, S), each shrunk to its part of a stored one, to (N, C, S, S)."""
    if factor == 1:
        return images
    side = images.shape[-1]
    cuts, parts = _cuts(side, factor), images.unflatten(0, (-1, factor**2)).unbind(1)
    out = torch.empty_like(parts[0])
    for i, (top, bottom) in enumerate(cuts):
        for j, (left, right) in enumerate(cuts):
            size = (bottom - top, right - left)
            part = interpolate(parts[i * factor + j], size, mode="bilinear", align_corners=False, antialias=True)
            out[..., top:bottom, left:right] = part
    return out


def _cuts(side: int, factor: int) -> list[tuple[int, int]]:
    """Where each part begins and ends: as equal as whole pixels allow."""
    edges = [round(i * side / factor) for i in range(factor + 1)]
    return list(zip(edges, edges[1:], strict=False))


@lru_cache(maxsize=16)
def _stretch(short: int, long: int) -> Tensor:
    """The matrix (long, short) that stretches a column bilinearly, in float64."""
    columns = torch.eye(short, dtype=torch.float64).view(1, 1, short, short)
    return interpolate(columns, (long, short), mode="bilinear", align_corners=False)[0, 0]
