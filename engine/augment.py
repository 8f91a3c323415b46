"""Differentiable augmentation of image batches, with the randomness drawn apart from its application.

Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021 (DSA): each call picks one
operation of a strategy at random. With one draw of parameters shared by the real and the synthetic branch (``n=1``,
siamese) their gradients or features stay comparable; with one per image (``n=batch``) it is ordinary augmentation for
training students. FRePo (Zhou, Nezhadarya & Ba 2022) augments likewise, more gently and with translations.

``draw`` consumes an explicit generator and nothing else; ``apply`` is a pure function, differentiable in the images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.strategies import OPERATIONS, STRATEGIES, strategy_for

__all__ = ["OPERATIONS", "STRATEGIES", "Draw", "apply", "draw", "strategy_for"]


class Draw(NamedTuple):
    """One drawn augmentation: a static name, and a tensor with one row per image (or one row for all).

    ``kind`` and the columns of ``values`` float32:

    - ``flip`` (n, 1): 1 mirrors left-right, 0 does not.
    - ``shift`` (n, 2): whole pixels right and down.
    - ``cutout`` (n, 4): left, top, right, bottom edges in pixels, the last two exclusive; may reach over the border.
    - ``affine`` (n, 6): rows of the 2×3 matrix from output to input coordinates, both in [-1, 1]; ``edged``: the same,
      where what comes from outside the image repeats its edge.
    - ``color`` (n, 3): brightness added, then saturation factor, then contrast factor.
    """

    kind: str
    values: Tensor


def draw(strategy: str, generator: torch.Generator, size: int, n: int = 1) -> Draw:
    """Pick one operation of ``strategy`` (a key of ``STRATEGIES``) and draw its parameters.

    ``size``: side of the images in pixels. ``n``: 1 for the same parameters for every image of every branch
    (siamese), or the batch size for parameters of each image's own. The values lie on the generator's device.
    """
    plan = STRATEGIES[strategy]
    device = generator.device

    def uniform(low: float, high: float, columns: int = 1) -> Tensor:
        return torch.rand(n, columns, generator=generator, device=device) * (high - low) + low

    def whole(low: int, high: int) -> Tensor:  # both included
        return torch.randint(low, high + 1, (n, 2), generator=generator, device=device).float()

    picked = torch.randint(len(plan.operations), (), generator=generator, device=device)
    operation = plan.operations[int(picked)]
    if operation == "flip":
        return Draw("flip", (uniform(0, 1) < 0.5).float())
    if operation == "color":
        parts = (uniform(-plan.brightness, plan.brightness), uniform(*plan.saturation), uniform(*plan.contrast))
        return Draw("color", torch.cat(parts, 1))
    if operation == "cutout":
        side = int(size * plan.cutout + 0.5)
        corner = whole(0, size - side % 2) - side // 2
        return Draw("cutout", torch.cat((corner, corner + side), 1))
    if operation == "crop":
        reach = int(size * plan.shift + 0.5)
        return Draw("shift", whole(-reach, reach))
    one, none = torch.ones(n, 1, device=device), torch.zeros(n, 1, device=device)
    kind = "edged" if plan.edges else "affine"
    if operation == "translate":
        moved = uniform(-2 * plan.shift, 2 * plan.shift, 2)
        return Draw(kind, torch.cat((one, none, moved[:, :1], none, one, moved[:, 1:]), 1))
    if operation == "scale":
        factor = uniform(*plan.scale, 2)
        return Draw(kind, torch.cat((factor[:, :1], none, none, none, factor[:, 1:], none), 1))
    if operation == "zoom":
        factor = uniform(*plan.scale)
        moved = uniform(-1, 1, 2) * (1 - factor)  # a smaller window stays inside the image, a larger one contains it
        return Draw(kind, torch.cat((factor, none, moved[:, :1], none, factor, moved[:, 1:]), 1))
    angle = uniform(-math.radians(plan.rotate), math.radians(plan.rotate))
    cos, sin = angle.cos(), angle.sin()
    return Draw(kind, torch.cat((cos, -sin, none, sin, cos, none), 1))


def apply(images: Tensor, drawn: Draw) -> Tensor:
    """``drawn`` applied to images (N, C, H, W) of any floating type and device; the same shape comes back.

    ``drawn`` holds one row, used for every image, or N. What comes from outside the image is 0, the dataset's mean in
    normalised images, unless its kind says otherwise.
    """
    values = drawn.values.to(images.device, torch.float64 if images.dtype == torch.float64 else torch.float32)
    height, width = images.shape[2:]
    if drawn.kind == "flip":
        return torch.where(values.view(-1, 1, 1, 1) > 0.5, images.flip(3), images)
    if drawn.kind == "color":
        brightness, saturation, contrast = values.to(images.dtype).view(-1, 3, 1, 1, 1).unbind(1)
        images = images + brightness
        grey = images.mean(1, keepdim=True)
        images = (images - grey) * saturation + grey
        middle = images.mean((1, 2, 3), keepdim=True)
        return (images - middle) * contrast + middle
    if drawn.kind == "cutout":
        left, top, right, bottom = values.view(-1, 4, 1, 1, 1).unbind(1)
        x = torch.arange(width, device=images.device).view(1, 1, 1, -1)
        y = torch.arange(height, device=images.device).view(1, 1, -1, 1)
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        return images.masked_fill(inside, 0)
    if drawn.kind == "shift":
        one, none = torch.ones_like(values[:, 0]), torch.zeros_like(values[:, 0])
        across, down = -2 * values[:, 0] / width, -2 * values[:, 1] / height
        values = torch.stack((one, none, across, none, one, down), 1)
    theta = values.view(-1, 2, 3).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    mode, outside = "nearest" if drawn.kind == "shift" else "bilinear", "border" if drawn.kind == "edged" else "zeros"
    return _sample(images, grid, mode, outside)


def _sample(images: Tensor, grid: Tensor, mode: str, outside: str = "zeros") -> Tensor:
    """``images`` read at ``grid`` (N, H, W, 2), with zeros outside or the nearest of the ``border``.

    torch's own kernel is several times faster, but its backward adds in no fixed order on CUDA; with deterministic
    algorithms asked for, the same is done there by indexing, whose backward has one.
    """
    if not (images.is_cuda and images.requires_grad and torch.are_deterministic_algorithms_enabled()):
        return F.grid_sample(images, grid.to(images.dtype), mode=mode, padding_mode=outside, align_corners=False)
    return _sample_by_index(images, grid, mode, outside)


def _sample_by_index(images: Tensor, grid: Tensor, mode: str, outside: str = "zeros") -> Tensor:
    """What ``F.grid_sample`` computes, as weighted gathers."""
    n, c, height, width = images.shape
    x = ((grid[..., 0] + 1) * width - 1) / 2
    y = ((grid[..., 1] + 1) * height - 1) / 2
    if outside == "border":
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    if mode == "nearest":
        x, y = x.round(), y.round()
    left, top = x.floor(), y.floor()
    flat, out = images.flatten(2), torch.zeros_like(images)
    for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            read = flat.gather(2, index.view(n, 1, -1).expand(n, c, -1)).view_as(images)
            out = out + read * (across * down * inside).to(images.dtype).unsqueeze(1)
    return out
