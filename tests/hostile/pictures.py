"""Hostile pictures, drawings and masks for the Attribution page and its probes, and stimuli for Texture & shape."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile import images
from tests.hostile.archives import Entry, raw_zip
from tests.hostile.case import Case

NAME = "0123456789abcdef01234567.png"
URL = "data:image/png;base64,"


# ---- what the probes are given: pictures that a page has kept -------------------------------------------------------


def kept(content: bytes | Callable[[], bytes], name: str = NAME) -> Callable[[Path], str]:
    """A file among the uploads; how a question names it."""

    def make(home: Path) -> str:
        (home / "uploads").mkdir()
        (home / "uploads" / NAME).write_bytes(content() if callable(content) else content)
        return name

    return make


def linked(target: str) -> Callable[[Path], str]:
    def make(home: Path) -> str:
        (home / "uploads").mkdir()
        (home / "secret.png").write_bytes(png())
        (home / "uploads" / NAME).symlink_to(target)
        return NAME

    return make


def special(put: Callable[[Path], Any]) -> Callable[[Path], str]:
    def make(home: Path) -> str:
        (home / "uploads").mkdir()
        put(home / "uploads" / NAME)
        return NAME

    return make


def png(size: tuple[int, int] = (16, 16), colour: Any = 200, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return out.getvalue()


def headed(width: int, height: int) -> bytes:
    return images.png(images.header(width, height), images.BLACK_ROWS)


def grey(found: Any) -> None:
    """(1, 1, 16, 16) in [0, 1]."""
    assert found.shape == (1, 1, 16, 16) and 0 <= float(found.min()) <= float(found.max()) <= 1


NO_NAME = "no name of a kept picture"
UNSOUND = "not a PNG|cannot be read|pixels; sides may have"

KEPT = [
    *(
        Case(f"kept: named {n[:40]!r}", kept(png(), n), NO_NAME)
        for n in (
            "",
            "..",
            "../secret.png",
            f"../uploads/{NAME}",
            f"{NAME}\0",
            f"{NAME}\n",
            f"/{NAME}",
            NAME.upper(),
            NAME[1:],
            f"{NAME}.png",
            "x" * 5000,
            "%2e%2e%2f" + NAME,
            "０" * 24 + ".png",
            NAME.replace(".png", ".gif"),
            f"./{NAME}",
            "store.sqlite",
            "<script>.png",
        )
    ),
    Case("kept: one that is gone", lambda home: NAME, "not here any more"),
    Case("kept: a link to another picture", linked("../secret.png"), "not here any more"),
    Case("kept: a link to passwords", linked("/etc/passwd"), "not here any more"),
    Case("kept: a link to endless zeros", linked("/dev/zero"), "not here any more"),
    Case("kept: a folder", special(os.mkdir), "not here any more"),
    Case("kept: a pipe", special(os.mkfifo), "not here any more"),
    Case("kept: nine megabytes", kept(png() + bytes(9_000_000)), "larger than 8 MB"),
    *(
        Case(f"kept: {w}×{h}", kept(headed(w, h)), "sides may have 1 to 4,096")
        for w, h in ((0, 5), (5, 0), (4097, 1), (1, 4097), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1))
    ),
    *(Case(f"kept: {name}", kept(make), UNSOUND) for name, make in images.UNREADABLE if "scans" not in name),
    *(
        Case(f"kept: {name}", kept(make), reads=grey)
        for name, make, _ in images.LEGITIMATE
        if make()[:8] == images.PNG and name not in ("a line", "a post") and "million" not in name
    ),
    Case("kept: four thousand a side", kept(lambda: png((4096, 4096), 9)), reads=grey),
    Case("kept: a long line", kept(lambda: png((4096, 1))), reads=grey),
]


def spotted(share: float) -> bytes:
    """A mask of which this share is bright."""
    pixels = np.zeros((100, 100), np.uint8)
    pixels.ravel()[: round(10_000 * share)] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


MASKS = [
    *(
        Case(f"mask: {text[:30]!r}", lambda home, t=text: t, "Name the mask as file:NAME")
        for text in ("", "none", NAME, "http://example.org/x.png", "File:" + NAME, "test:0", "x" * 5000, "\0")
    ),
    *(
        Case(f"mask: {text[:30]!r}", lambda home, t=text: t, NO_NAME)
        for text in ("file:", "file:../x", "file:file:" + NAME, "file:a b", "file:" + NAME + "\0")
    ),
    *(
        Case(f"mask: {100 * share:g} % bright", kept(spotted(share), f"file:{NAME}"), "must mark an object")
        for share in (0, 0.001, 0.95, 1)
    ),
    *(
        Case(f"mask: {100 * share:g} % bright", kept(spotted(share), f"file:{NAME}"), reads=lambda m: m.any())
        for share in (0.1, 0.8)
    ),
    Case("mask: half grey", kept(png(colour=127), f"file:{NAME}"), "must mark an object"),
    Case("mask: a text", kept(b"text", f"file:{NAME}"), "not a PNG"),
]

# ---- what the page is given: drawings and uploads -------------------------------------------------------------------


def drawing(content: bytes) -> str:
    return URL + base64.b64encode(content).decode()


def sound(image: Image.Image) -> None:
    assert image.mode in ("RGB", "L") and image.width == image.height <= 512


DRAWINGS = [
    *(
        Case(f"drawing: {url[:40]!r}", lambda url=url: url, "did not arrive whole")
        for url in (
            "",
            " ",
            "x",
            "data:",
            "data:image/png",
            URL[:-1],
            "data:image/svg+xml;base64,PHN2Zz4=",
            "data:text/html,<script>",
            "http://example.org/x.png",
            "file:///etc/passwd",
            "javascript:alert(1)",
            URL + "====",
            URL + "a",
            URL + "é" * 50,
            URL + "%%%%",
            URL + "A" * 2_000_001,
            URL.upper() + "aaaa",
            " " + URL + "aaaa",
            URL + "aaaa\n",
            URL + "\0" * 40,
            URL + "QQ" + "\u202e",
        )
    ),
    *(
        Case(f"drawing: {name}", lambda make=make: drawing(make()), "did not arrive whole")
        for name, make in images.UNREADABLE
        if name
        in (
            "nothing",
            "half a PNG",
            "SVG",
            "a pickle",
            "PostScript",
            "a PNG that grows",
            "a PNG of 80 MB of text",
            "a PNG of width 0",
            "a GIF of 65,535×65,535",
            "a PNG line of 2³¹ pixels",
        )
    ),
    *(
        Case(f"drawing: {name}", lambda make=make: drawing(make()), reads=sound)
        for name, make, _ in images.LEGITIMATE
        if name
        in (
            "alpha",
            "grey of 16 bits",
            "one bit",
            "palette",
            "animated PNG",
            "one pixel",
            "a line",
            "a post",
            "interlaced",
            "CMYK",
        )
    ),
    *(
        Case(f"drawing: {w}×{h} of {c}", lambda w=w, h=h, c=c: drawing(png((w, h), c)), reads=sound)
        for w, h, c in ((1, 1, 255), (1, 4000, 255), (4000, 1, 255), (256, 256, 0), (256, 256, 255), (2, 3, 1))
    ),
]

# ---- ready stimuli --------------------------------------------------------------------------------------------------


def stimuli(*entries: Entry) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "own.zip").write_bytes(raw_zip(entries))
        return folder / "own.zip"

    return make


def in_folder(name: str, size: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "own").mkdir()
        with (folder / "own" / name).open("wb") as file:
            file.truncate(size)
        return folder / "own"

    return make


ONE = "cat1-dog2.png"
STIMULI = [
    Case("stimuli: an empty zip", stimuli(), reads=lambda found: found == []),
    Case("stimuli: hidden files alone", stimuli(Entry(f".x/{ONE}", png())), reads=lambda found: found == []),
    Case("stimuli: a script for a name", stimuli(Entry("<script>.png", png())), "stimuli are named like"),
    Case("stimuli: a name that turns", stimuli(Entry("\u202egpj.png", png())), r"holds \?gpj.png"),
    Case(
        "stimuli: a name of a thousand letters", stimuli(Entry("x" * 1000 + "!.png", png())), "stimuli are named like"
    ),
    Case("stimuli: dots that climb", stimuli(Entry(f"a/../../{ONE}", png())), "leave its folder"),
    Case("stimuli: a bomb of pixels", stimuli(Entry(ONE, headed(60_000, 60_000))), "cannot be read"),
    Case("stimuli: a wrong checksum", stimuli(Entry(ONE, png(), crc=5)), "is damaged"),
    Case("stimuli: 2,001 of them", stimuli(*(Entry(f"{i}_{ONE}") for i in range(2001))), "more than 2,000 stimuli"),
    Case("stimuli: a file of sixty megabytes", in_folder(ONE, 60_000_000), "larger than 50 MB"),
    Case("stimuli: an empty file", in_folder(ONE, 0), "cannot be read"),
]
CASES = [*KEPT, *MASKS, *DRAWINGS, *STIMULI]
