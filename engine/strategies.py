"""Augmentation strategies: which operations there are, and how strong they are (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.data.base import Dataset

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate", "translate", "zoom")


@dataclass(frozen=True)
class Strategy:
    """Which operations a call picks from, and how strong they are.

    ``brightness`` is the largest shift, in standard deviations of normalised images; ``saturation`` and ``contrast``
    are (low, high) factors about the channel mean and the image mean; ``cutout``, ``shift`` are fractions of the side;
    ``scale`` (low, high) factors; ``rotate`` degrees either way. ``edges``: what comes from outside the image repeats
    its edge, instead of being 0.
    """

    operations: tuple[str, ...]
    brightness: float = 0.5
    saturation: tuple[float, float] = (0.0, 2.0)
    contrast: tuple[float, float] = (0.5, 1.5)
    cutout: float = 0.5
    shift: float = 0.125
    scale: tuple[float, float] = (1 / 1.2, 1.2)
    rotate: float = 15.0
    edges: bool = False


def _gentle(*operations: str) -> Strategy:
    return Strategy(
        operations,
        brightness=0.25,
        saturation=(0.75, 1.25),
        contrast=(0.75, 1.25),
        cutout=0.25,
        scale=(0.8, 1.25),
        edges=True,
    )


STRATEGIES: dict[str, Strategy] = {
    # DSA's two lists: natural images, and characters (a mirrored character is another one or none)
    "color_crop_cutout_flip_scale_rotate": Strategy(("color", "crop", "cutout", "flip", "scale", "rotate")),
    "color_crop_cutout_scale_rotate": Strategy(("color", "crop", "cutout", "scale", "rotate")),
    # DC's evaluation on characters, which turns and scales them further
    "crop_scale_rotate": Strategy(("crop", "scale", "rotate"), scale=(0.8, 1.2), rotate=45.0),
    # FRePo's two lists; its crop is a resized one, called zoom here
    "flip_color_crop_rotate_translate_cutout": _gentle("flip", "color", "zoom", "rotate", "translate", "cutout"),
    "color_crop_rotate_translate_cutout": _gentle("color", "zoom", "rotate", "translate", "cutout"),
    # one operation each, at DSA's strength
    **{operation: Strategy((operation,)) for operation in OPERATIONS},
}


def flips(dataset: str, channels: int) -> bool:
    """Whether a mirrored image keeps its class: not where the images are characters."""
    return channels == 3 and dataset not in ("svhn",)


def strategy_for(dataset: Dataset, family: Literal["dsa", "frepo", "dc"] = "dsa") -> str:
    """The strategy of the papers for ``dataset``: with mirroring where a mirrored image keeps its class."""
    return named(family, dataset.flips)


def named(family: Literal["dsa", "frepo", "dc"], mirrored: bool) -> str:
    """The key of ``STRATEGIES`` for a family of operations, with mirroring or without."""
    if family == "dc":
        return "crop_scale_rotate"
    if family == "frepo":
        return "flip_color_crop_rotate_translate_cutout" if mirrored else "color_crop_rotate_translate_cutout"
    return "color_crop_cutout_flip_scale_rotate" if mirrored else "color_crop_cutout_scale_rotate"
