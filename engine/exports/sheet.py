"""A contact sheet to print: all images of a set by class, with what they are (torch-free)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from engine import words
from engine.exports.drawing import FAINT, INK, PAPER, fitted, font, wrapped
from engine.exports.facts import Story

DPI = 300
PAGES = {"A4": (2480, 3508), "A3": (3508, 4961), "A2": (4961, 7016)}  # pixels at DPI, upright
MARGIN = 150  # half an inch
SPACE = 24  # between two classes
LEAST = 2  # times its own size that an image is printed at, or the next larger page is taken


HEADING, FOOT, LABEL = 330, 80, 62  # pixels of the page, and of a class's name


@dataclass(frozen=True)
class Plan:
    """How images go onto a page: ``cell`` pixels each, ``across`` of a class in a line, so many classes ``beside``
    one another, ``lines`` of images each."""

    page: tuple[int, int]
    cell: int
    across: int
    beside: int
    lines: int

    @property
    def gap(self) -> int:
        """Pixels between two images."""
        return _gap(self.cell)

    @property
    def block(self) -> tuple[int, int]:
        """What a class takes, its name and the space around it included."""
        pitch = self.cell + self.gap
        return self.across * pitch + SPACE, LABEL + self.lines * pitch + SPACE


def contact_sheet(story: Story) -> bytes:
    """A PNG at 300 dpi, A4 where the images are printed at twice their size or more on it, else A3 or A2; upright or
    lying, whichever shows them larger.

    Every class has a name and its images in one or more lines. The heading says what the set is, what it reached under
    which protocol, how it was made and when; so do the file's text fields.
    """
    cells = _by_class(story)
    plan = _best(cells, story.layout["size"])
    sheet = Image.new("RGB", plan.page, PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _heading(draw, story, plan.page[0], cells)
    wide, high = plan.block
    for number, (name, images) in enumerate(cells):
        row, column = divmod(number, plan.beside)
        x, y = MARGIN + column * wide, top + row * high
        draw.text((x, y + LABEL // 2), fitted(name, font(40), wide - SPACE), INK, font(40), "lm")
        for i, image in enumerate(images):
            line, place = divmod(i, plan.across)
            pitch = plan.cell + plan.gap
            sheet.paste(_sized(image, plan.cell), (x + place * pitch, y + LABEL + line * pitch))
    _foot(draw, story, plan.page)
    out, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_itxt("Title", story.what)
    texts.add_itxt("Description", f"{story.result} {_how(story)}")
    sheet.save(out, "PNG", dpi=(DPI, DPI), pnginfo=texts)
    return out.getvalue()


def _by_class(story: Story) -> list[tuple[str, list[np.ndarray]]]:
    """The last images (S, S, C) of each class that has any. Cells below a class's last image are black in a frame."""
    layout: dict[str, Any] = story.layout
    side, rows, columns = layout["size"], layout["rows"], layout["columns"]
    pixels = np.asarray(story.frame(story.frames[-1]).convert("RGB"))
    grid = pixels.reshape(rows, side, columns, side, 3).transpose(2, 0, 1, 3, 4)
    found = []
    for name, column in zip(layout["classes"], grid, strict=True):
        filled = [i for i, image in enumerate(column) if image.any()]
        found.append((name, list(column[: filled[-1] + 1]) if filled else []))
    return [(name, images) for name, images in found if images] or [(layout["classes"][0], [grid[0][0]])]


def _best(cells: list[tuple[str, list[np.ndarray]]], native: int) -> Plan:
    """The plan with the largest images on the smallest page on which they are large enough."""
    most = max(len(images) for _, images in cells)
    best: Plan | None = None
    for page in PAGES.values():
        for turned in (page, page[::-1]):
            for beside in range(1, len(cells) + 1):
                for across in range(1, most + 1):
                    plan = _plan(turned, native, len(cells), most, beside, across)
                    if plan and (best is None or plan.cell > best.cell):
                        best = plan
        if best and best.cell >= LEAST * native:
            break
    assert best is not None  # an A2 page has 1,700 pixels for each of the most images that a set may have
    return best


def _plan(page: tuple[int, int], native: int, classes: int, most: int, beside: int, across: int) -> Plan | None:
    """The largest size of an image in such a plan, in whole multiples of its own where it is not smaller than that."""
    lines, rows = math.ceil(most / across), math.ceil(classes / beside)
    wide, high = (page[0] - 2 * MARGIN) // beside - SPACE, (page[1] - 2 * MARGIN - HEADING - FOOT) // rows - SPACE
    cell = min(wide // across, (high - LABEL) // lines, page[0] // 5)
    while cell > 0:
        cell = cell // native * native or cell
        pitch = cell + _gap(cell)
        if across * pitch <= wide and LABEL + lines * pitch <= high:
            return Plan(page, cell, across, beside, lines)
        cell -= 1
    return None


def _gap(cell: int) -> int:
    return max(2, cell // 24)


def _sized(image: np.ndarray, cell: int) -> Image.Image:
    """An image at the size of a cell: every pixel a square, or, where it has to shrink, averaged."""
    found = Image.fromarray(image)
    smaller = cell < found.width
    return found.resize((cell, cell), Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)


def _heading(draw: ImageDraw.ImageDraw, story: Story, across: int, cells: list[tuple[str, list[np.ndarray]]]) -> int:
    """The heading; returns where the images begin."""
    room, y = across - 2 * MARGIN, MARGIN
    size = next((size for size in (72, 64, 56) if font(size, True).getlength(story.what) <= room), 56)
    draw.text((MARGIN, y), fitted(story.what, font(size, True), room), INK, font(size, True))
    y += 105
    shown = sum(len(images) for _, images in cells)
    there = story.spec.get("ipc", 0) * len(cells)
    part = f" Shown: the first {shown:,} of {there:,} images." if there > shown else ""
    draw.text((MARGIN, y), fitted(f"{story.result}{part}", font(48), room), INK, font(48))
    y += 75
    for line in wrapped(_how(story), font(40), room, 2):
        draw.text((MARGIN, y), line, FAINT, font(40))
        y += 56
    return MARGIN + HEADING


def _how(story: Story) -> str:
    """How the set was made, from the settings that are not the usual ones; and when."""
    told = [
        f"{s.label.lower()}: {s.value}"
        for s in words.settings(story.kind, story.public_spec)
        if (not s.usual or s.label in ("Initial images", "Seed"))
        and s.label not in ("Dataset", "Method", "Images per class", "Baseline")  # in the heading
    ]
    how = "; ".join(told)
    took = story.origin.seconds if story.origin else story.run.seconds
    steps = f"{words.count(story.steps, 'step')} in {words.duration(took)}" if story.kind == "distill" else ""
    return ". ".join(filter(None, [f"{how[:1].upper()}{how[1:]}", steps, f"Made on {story.date}"])) + "."


def _foot(draw: ImageDraw.ImageDraw, story: Story, page: tuple[int, int]) -> None:
    text = f"Limbeck, run {story.run.id}"
    draw.text((MARGIN, page[1] - MARGIN), fitted(text, font(34), page[0] - 2 * MARGIN), FAINT, font(34), "ls")
