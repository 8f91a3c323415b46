"""A run's film as a GIF or WebP that plays anywhere: caption, class names, images, step (torch-free)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import Literal

from PIL import Image, ImageDraw

from engine import words
from engine.errors import Refused
from engine.exports.drawing import COPPER, FAINT, INK, PAPER, enlarged, fitted, font, heads, width, wrapped
from engine.exports.facts import Story, thinned

MOST = 120  # frames
LIMIT = 12_000_000  # bytes; fewer frames are taken where it would be more
WIDE, HIGH = 900, 680  # pixels that the images may take
LEAST = 480  # pixels of width, so that the caption has room
MARGIN, GAP = 16, 2  # pixels around everything, and between two images
SECONDS = 9.0  # that all frames but the last take, as far as 40 to 500 ms each allow
HELD = 2500  # milliseconds of the last frame
TOLD_BY = 20_000  # pixels of a frame that its colours are chosen by
COLOURS = 236  # of a GIF's 256 that the images get; the others are the paper's and the text's


def animate(story: Story, kind: Literal["gif", "webp"]) -> bytes:
    """The film as an animated image of at most ``LIMIT`` bytes and ``MOST`` frames, which repeats for ever.

    Frames are spread evenly over the logarithm of the step, since images change most in the beginning. Each pixel of a
    frame becomes a square; of images that do not fit into ``WIDE`` by ``HIGH`` pixels the first of each class are
    shown, and the caption says so. WebP keeps every colour, a GIF 236 of each frame. Raises ``Refused`` where nothing
    moves.
    """
    if len(story.frames) < 2:
        raise Refused("Nothing moves here: this run has a single frame. Take its contact sheet instead.")
    stage = Stage(story)
    save = partial(_webp if kind == "webp" else _gif, story, stage)
    return thinned(save, story.frames, MOST, LIMIT)


def _durations(count: int) -> list[int]:
    """Milliseconds of each frame; a GIF counts in hundredths of a second."""
    each = 10 * round(min(max(SECONDS / count, 0.04), 0.5) * 100)
    return [max(each, 400), *[each] * (count - 2), HELD]


def _webp(story: Story, stage: Stage, steps: Sequence[int]) -> bytes:
    first, *rest = (stage.show(story.frame(step), step) for step in steps)
    out = io.BytesIO()
    first.save(
        out, "WEBP", save_all=True, append_images=rest, duration=_durations(len(steps)), loop=0, lossless=True,
        quality=0, method=0,
    )  # fmt: skip
    return out.getvalue()


def _gif(story: Story, stage: Stage, steps: Sequence[int]) -> bytes:
    first, *rest = (stage.show_few(story.frame(step), step) for step in steps)
    out = io.BytesIO()
    first.save(
        out, "GIF", save_all=True, append_images=rest, duration=_durations(len(steps)), loop=0, optimize=False,
        comment=f"{story.what}. {story.result} Made with Limbeck."[:200].encode(),
    )  # fmt: skip
    return out.getvalue()


class Stage:
    """The picture around the frames of one run: what stands still, and where the images and the step go."""

    def __init__(self, story: Story):
        layout = story.layout
        side = layout["size"]
        self.columns = min(layout["columns"], max(1, WIDE // side))
        self.rows = min(layout["rows"], max(1, HIGH // side))
        self.side = side
        self.factor = max(1, min(WIDE // (self.columns * side), HIGH // (self.rows * side)))
        self.pitch = side * self.factor + GAP
        shown = (self.columns * self.pitch - GAP, self.rows * self.pitch - GAP)
        self.total = story.steps
        names = heads(layout["classes"][: self.columns], self.pitch, 15)
        full = max(shown[0], LEAST) + 2 * MARGIN
        lines = [(text, INK, 17, True) for text in wrapped(story.what, font(17, True), full - 2 * MARGIN, 2)]
        said = [story.result, *self._left_out(story)]
        lines += [(t, INK, 14, False) for s in said for t in wrapped(s, font(14), full - 2 * MARGIN, 2)]
        self.place = ((full - shown[0]) // 2, MARGIN + 25 * len(lines) + 6 + names.height + 4)
        self.foot = self.place[1] + shown[1] + 10
        self.still = Image.new("RGB", (full, self.foot + 30), PAPER)
        draw = ImageDraw.Draw(self.still)
        for i, (text, colour, size, bold) in enumerate(lines):
            draw.text((MARGIN, MARGIN + 25 * i), text, colour, font(size, bold))
        self.still.paste(names, (self.place[0], self.place[1] - 4 - names.height))
        mark = f"Limbeck, {story.date}"
        draw.text((full - MARGIN - width(mark, font(12)), self.foot + 8), mark, FAINT, font(12))
        self.room = full - 3 * MARGIN - width(mark, font(12))
        self.few: Image.Image | None = None  # what stands still, in a GIF's colours

    def _left_out(self, story: Story) -> list[str]:
        """A sentence about images that there is no room for, here or in the frames."""
        parts, columns = [], story.layout["columns"]
        rows = max(story.layout["rows"], story.spec.get("ipc") or 0)
        if self.rows < rows:
            parts.append(f"the first {words.count(self.rows, 'image')} of {rows} per class")
        if self.columns < columns:
            parts.append(f"the first {self.columns} of {columns} classes")
        return [f"Shown: {' of '.join(parts)}."] if parts else []

    def set(self, step: int) -> Image.Image:
        """The picture of a step, without its images."""
        canvas = self.still.copy()
        draw = ImageDraw.Draw(canvas)
        text = f"step {step:,} of {self.total:,}"
        draw.text((MARGIN, self.foot + 6), fitted(text, font(14), self.room), INK, font(14))
        done = step / self.total if self.total else 1.0
        draw.rectangle(
            (MARGIN, self.foot, MARGIN + round((canvas.width - 2 * MARGIN - 1) * done), self.foot + 2), COPPER
        )
        return canvas

    def lay(self, canvas: Image.Image, frame: Image.Image) -> Image.Image:
        """Put the images of a frame in their places, each of their pixels a square."""
        side = self.side
        for row in range(self.rows):
            for column in range(self.columns):
                image = frame.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
                at = (self.place[0] + column * self.pitch, self.place[1] + row * self.pitch)
                canvas.paste(enlarged(image, self.factor), at)
        return canvas

    def show(self, frame: Image.Image, step: int) -> Image.Image:
        """The picture of a step in all its colours."""
        canvas = self.set(step)
        return self.lay(canvas, frame)

    def show_few(self, frame: Image.Image, step: int) -> Image.Image:
        """The picture of a step in 256 colours: ``COLOURS`` that fit its images best, and those of paper and text.

        Images are reduced before they are enlarged, without dithering: all of a pixel's square has one colour.
        """
        shown = frame.crop((0, 0, self.columns * self.side, self.rows * self.side)).convert("RGB")
        every = max(1, round((shown.width * shown.height / TOLD_BY) ** 0.5))
        some = shown.resize((-(-shown.width // every), -(-shown.height // every)), Image.Resampling.NEAREST)
        few = some.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few = shown.quantize(palette=few, dither=Image.Dither.NONE) if every > 1 else few
        if self.few is None:
            self.few = _in_shades(self.still)
        canvas, below = self.few.copy(), (0, self.foot, *self.still.size)
        canvas.paste(_in_shades(self.set(step).crop(below)), (0, self.foot))
        self.lay(canvas, few)
        own = (few.getpalette() or [])[: 3 * COLOURS]
        canvas.putpalette([*own, *[0] * (3 * COLOURS - len(own)), *_shades()])
        return canvas


def _shades() -> list[int]:
    """The colours of a GIF that are not its images': from paper to ink, and copper."""
    last = 256 - COLOURS - 2
    paper, ink = (tuple(bytes.fromhex(c[1:])) for c in (PAPER, INK))
    mixed = [round(p + (i - p) * n / last) for n in range(last + 1) for p, i in zip(paper, ink, strict=True)]
    return [*mixed, *bytes.fromhex(COPPER[1:])]


def _in_shades(image: Image.Image) -> Image.Image:
    """A picture in the colours of ``_shades``, which come after those of a frame's images."""
    shades = Image.new("P", (1, 1))
    shades.putpalette(_shades())
    return image.quantize(palette=shades, dither=Image.Dither.NONE).point(lambda i: i + COLOURS)
