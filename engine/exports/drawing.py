"""Text and grids of images on paper, with Pillow alone (torch-free)."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT, COPPER = "#fdfcf9", "#211e1a", "#6b6459", "#a6561f"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int, bold: bool = False) -> Font:
    """A font of ``size`` pixels with the letters of most languages: DejaVu Sans, as matplotlib (a dependency of
    captum) brings it on every system, else the machine's own; Pillow's built-in one knows little beyond ASCII."""
    name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    found = importlib.util.find_spec("matplotlib")
    brought = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name if found and found.origin else None
    for candidate in (str(brought), name, "Arial.ttf"):
        try:
            return ImageFont.truetype(candidate, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def width(text: str, face: Font) -> int:
    """How wide a line of text is, in pixels."""
    return int(face.getlength(text) + 0.999)


def fitted(text: str, face: Font, room: int) -> str:
    """``text``, cut with an ellipsis where it is wider than ``room``."""
    if width(text, face) <= room:
        return text
    while text and width(f"{text}…", face) > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def wrapped(text: str, face: Font, room: int, lines: int) -> list[str]:
    """``text`` in at most so many lines of at most ``room`` pixels, the last one cut where it has to be."""
    found, rest = [""], text.split()
    while rest:
        longer = f"{found[-1]} {rest[0]}".strip()
        if not found[-1] or width(longer, face) <= room or len(found) == lines:
            found[-1] = longer
            rest.pop(0)
        else:
            found.append("")
    return [fitted(line, face, room) for line in found]


def enlarged(image: Image.Image, factor: int) -> Image.Image:
    """``image`` so many times as large, every pixel a square."""
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def heads(names: list[str], column: int, size: int) -> Image.Image:
    """The class names over the columns of a grid, ``column`` pixels wide each, as a picture of its own: side by side
    where all of them fit, else standing upright, at most eight times the font's size tall."""
    face = font(size)
    lying = all(width(name, face) <= column - 2 for name in names)
    if lying:
        height = round(1.35 * size)
        strip = Image.new("RGB", (column * len(names), height), PAPER)
        draw = ImageDraw.Draw(strip)
        for i, name in enumerate(names):
            draw.text((i * column + column // 2, height // 2), name, INK, face, "mm")
        return strip
    face = font(max(8, min(size, column)))
    texts = [fitted(name, face, 8 * size) for name in names]
    height = max(width(text, face) for text in texts) + 4
    strip = Image.new("RGB", (column * len(names), height), PAPER)
    for i, text in enumerate(texts):
        tag = Image.new("RGB", (height, column), PAPER)
        ImageDraw.Draw(tag).text((2, column // 2), text, INK, face, "lm")
        strip.paste(tag.transpose(Image.Transpose.ROTATE_90), (i * column, 0))
    return strip
