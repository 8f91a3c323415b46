"""What can be done to the images of a set, and how that is written down (torch-free).

An edit is a word ``IMAGE:WHAT[:MORE]``, with the image's index in the set::

    3:mirror              left and right change places
    3:blur:1.5            Gaussian blur of that many pixels
    3:swap:7              a real image of its class in its place, drawn with that seed
    3:label:5             another label, by the index of its class
    3:erase:PLACE         the median colour of the image in that place
    3:paint:c86432:PLACE  that colour in that place

A ``PLACE`` is a rectangle in pixels, ``X,Y,WIDTH,HEIGHT`` from the upper left corner, or a mask ``@SIDE.BITS``: a grid
of SIDE × SIDE over the whole image, row by row, in URL-safe base64. Edits are done in their order, and written one
after another with spaces between them.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from engine.errors import Refused

MOST = 30  # edits of one set: what a link has room for
LONGEST = 30_000  # characters of them all
GRID = 64  # largest side of a mask
BLUR = (0.3, 8.0)  # pixels
SEEDS = 999_999

What = Literal["erase", "paint", "mirror", "blur", "swap", "label"]
TAKES = {
    "mirror": "3:mirror",
    "blur": "3:blur:1.5 (0.3 to 8 pixels)",
    "swap": f"3:swap:7 (a seed from 0 to {SEEDS:,})",
    "label": "3:label:5 (the index of a class)",
    "erase": "3:erase:4,4,8,8 (x, y, width and height in pixels) or 3:erase:@SIDE.BITS (a mask)",
    "paint": "3:paint:c86432:4,4,8,8 (a colour, then a place as erase takes it)",
}
_EDIT = re.compile(r"^([0-9]{1,5}):([a-z]+)(?::(.*))?$")
_NUMBER = re.compile(r"^[0-9]{1,6}$")
_DECIMAL = re.compile(r"^[0-9]{1,3}(\.[0-9]{1,3})?$")
_COLOUR = re.compile(r"^[0-9a-f]{6}$")
_RECTANGLE = re.compile(r"^[0-9]{1,3},[0-9]{1,3},[1-9][0-9]{0,2},[1-9][0-9]{0,2}$")
_MASK = re.compile(r"^@([0-9]{1,2})\.([A-Za-z0-9_-]+)$")


@dataclass(frozen=True)
class Edit:
    """One of them. ``place`` and ``colour`` as they are written; ``sigma`` in pixels; ``number``: a seed or a class."""

    image: int
    what: What
    place: str = ""
    colour: str = ""
    sigma: float = 0.0
    number: int = 0

    def __str__(self) -> str:
        more = {
            "erase": [self.place],
            "paint": [self.colour, self.place],
            "mirror": [],
            "blur": [f"{self.sigma:g}"],
            "swap": [str(self.number)],
            "label": [str(self.number)],
        }[self.what]
        return ":".join([str(self.image), self.what, *more])


def parse(text: str) -> list[Edit]:
    """The edits in a text. Raises ``Refused`` with what is wrong in the first that is none."""
    words = text.split() if len(text) <= LONGEST else []
    if len(words) > MOST or len(text) > LONGEST:
        raise Refused(f"At most {MOST} edits, {LONGEST:,} characters in all, are done to one set; leave some out.")
    return [_one(word) for word in words]


def written(edits: list[Edit]) -> str:
    """A text that ``parse`` makes the same edits of."""
    return " ".join(map(str, edits))


def told(edit: Edit, classes: list[str]) -> str:
    """What an edit does, in words: “image 3: mirrored”."""
    name = classes[edit.number] if edit.what == "label" and edit.number < len(classes) else ""
    what = {
        "erase": "a part erased",
        "paint": f"a part painted #{edit.colour}",
        "mirror": "mirrored",
        "blur": f"blurred by {edit.sigma:g} pixels",
        "swap": f"a real image in its place (seed {edit.number})",
        "label": f"labelled {name or edit.number}",
    }[edit.what]
    return f"image {edit.image}: {what}"


# ---- places ---------------------------------------------------------------------------------------------------------


def mask_of(place: str, size: int) -> np.ndarray:
    """Where a place lies in an image of ``size`` pixels: (size, size) bool. Raises ``Refused`` for one outside."""
    out = np.zeros((size, size), bool)
    if found := _MASK.match(place):
        side = int(found[1])
        bits = np.unpackbits(np.frombuffer(_bits(found[2]), np.uint8))[: side * side].reshape(side, side)
        at = np.arange(size) * side // size
        return bits.astype(bool)[np.ix_(at, at)]
    x, y, width, height = map(int, place.split(","))
    if x >= size or y >= size:
        raise Refused(f"The place {place} lies outside of the image, which is {size} pixels wide; choose another one.")
    out[y : y + height, x : x + width] = True
    return out


def place_of(mask: np.ndarray) -> str:
    """A square mask, (side, side) bool with up to ``GRID`` a side, as it is written."""
    side = len(mask)
    assert mask.shape == (side, side) and side <= GRID
    bits = np.packbits(mask.reshape(-1)).tobytes()
    return f"@{side}.{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"


def _bits(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# ---- reading --------------------------------------------------------------------------------------------------------


def _one(word: str) -> Edit:
    shown = word if len(word) <= 60 else f"{word[:60]}…"
    found = _EDIT.match(word)
    if not found or found[2] not in TAKES:
        raise Refused(f"“{shown}” is no edit; an edit is IMAGE:WHAT, with WHAT one of {', '.join(TAKES)}.")
    image, what, more = int(found[1]), cast(What, found[2]), found[3]
    edit = _read(image, what, more or "") if (more is None) == (what == "mirror") else None
    if edit is None:
        raise Refused(f"“{shown}” is no edit; {what} is written like {TAKES[what]}.")
    return edit


def _read(image: int, what: What, more: str) -> Edit | None:
    """The edit, None for what is written in another way."""
    if what == "blur":
        fits = _DECIMAL.match(more) and BLUR[0] <= float(more) <= BLUR[1]
        return Edit(image, what, sigma=float(more)) if fits else None
    if what in ("swap", "label"):
        return Edit(image, what, number=int(more)) if _NUMBER.match(more) else None
    colour, _, place = more.partition(":") if what == "paint" else ("", "", more)
    if what != "mirror" and not _is_place(place) or what == "paint" and not _COLOUR.match(colour):
        return None
    return Edit(image, what, place, colour)


def _is_place(text: str) -> bool:
    if _RECTANGLE.match(text):
        return True
    found = _MASK.match(text)
    if not found or not 1 <= int(found[1]) <= GRID:
        return False
    try:
        bits = _bits(found[2])
    except (ValueError, binascii.Error):
        return False
    return len(bits) == -(-(int(found[1]) ** 2) // 8) and any(bits)
