"""Where the images of a set are in the frames of its film (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def laid_out(values: Sequence[Any], places: Sequence[int], rows: int, columns: int) -> list[Any]:
    """What belongs to each image, as a frame shows them: row by row, None in cells without an image.

    ``places`` names the column of each image, in the order of the set; the images of a column stand from top to bottom
    in that order, and those for which there is no row are not shown.
    """
    found: list[Any] = [None] * (rows * columns)
    filled = [0] * columns
    for value, column in zip(values, places, strict=True):
        if filled[column] < rows:
            found[filled[column] * columns + column] = value
            filled[column] += 1
    return found
