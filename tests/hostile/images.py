"""Strange and hostile image files. A legitimate one is read rightly; of the others each is named and left out."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from tests.hostile.case import Case

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
PNG = b"\x89PNG\r\n\x1a\n"


# ---- making ---------------------------------------------------------------------------------------------------------


def two(left: Any = RED, right: Any = BLUE, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> Image.Image:
    """An image of two halves."""
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def saved(image: Image.Image, form: str, **how: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        out = io.BytesIO()
        image.save(out, form, **how)
        return out.getvalue()

    return make


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc or zlib.crc32(kind + content))


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def png(head: bytes, rows: bytes, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG written chunk by chunk; ``before`` and ``after`` its pixels."""
    return PNG + head + b"".join(before) + chunk(b"IDAT", zlib.compress(rows, 9)) + after + chunk(b"IEND", b"")


def rows(*pixels: bytes, count: int = 2) -> bytes:
    return (b"\0" + b"".join(pixels)) * count


def deep_png(colour: int, left: tuple[int, ...], right: tuple[int, ...], *before: bytes) -> Callable[[], bytes]:
    """Two pixels of 16 bits a channel, each twice."""
    pixel = [struct.pack(f">{len(v)}H", *v) for v in (left, right)]
    return lambda: png(header(4, 2, 16, colour), rows(pixel[0] * 2, pixel[1] * 2), *before)


def gif(screen: tuple[int, int], frame: tuple[int, int], data: bytes, width: int = 2) -> bytes:
    """A GIF of one frame, whose size need not be that of the screen."""
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes([255, 0, 0, 0, 0, 255])
    return start + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + bytes([width]) + data + b"\0;"


def bmp(width: int, height: int, bits: int, data: bytes, palette: bytes = b"", packing: int = 0) -> bytes:
    at = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + info + palette + data


def webp(canvas: int) -> bytes:
    """A WebP that says its canvas has so many pixels a side."""
    extended = b"VP8X" + struct.pack("<IB3x", 10, 0) + 2 * struct.pack("<I", canvas - 1)[:3]
    return b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended


def jpeg(image: Image.Image | None = None, **how: Any) -> bytes:
    return saved(image or two(size=(32, 32)), "JPEG", **{"quality": 95, "subsampling": 0, **how})()


def with_exif(value: Any, tag: int = 0x0112) -> Callable[[], bytes]:
    exif = Image.Exif()
    exif[tag] = value
    return lambda: jpeg(exif=exif)


def with_segment(content: bytes) -> Callable[[], bytes]:
    """A JPEG with this EXIF segment, whatever it is."""
    whole = jpeg()
    body = b"Exif\0\0" + content
    return lambda: whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + whole[2:]


@cache
def turned(orientation: int) -> bytes:
    """A picture that is red in its upper left corner, stored as a telephone held so would."""
    upright = Image.new("RGB", (32, 32), BLUE)
    upright.paste(RED, (0, 0, 16, 16))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes each, as Image.Transpose counts
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(upright.transpose(Image.Transpose(back[orientation])), exif=exif)


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes so many times."""
    whole = jpeg(Image.new("L", (3000, 3000), 99), progressive=True)
    last = whole.rindex(b"\xff\xda")
    table = whole.rindex(b"\xff\xc4", 0, last)
    return whole[:table] + whole[table:-2] * count + whole[-2:]


def huge(mode: str, side: int = 6300) -> Callable[[], bytes]:
    """As many pixels as are taken, in few bytes."""

    def make() -> bytes:
        channels = {"RGB": 3, "RGBA": 4}[mode]
        squeeze = zlib.compressobj(6)
        row = b"\0" + b"\x80" * (side * channels)
        data = b"".join([*(squeeze.compress(row) for _ in range(side)), squeeze.flush()])
        head = header(side, side, 8, {"RGB": 2, "RGBA": 6}[mode])
        return PNG + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")

    return make


def half(form: str) -> Callable[[], bytes]:
    def make() -> bytes:
        out = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(out, form)
        return out.getvalue()[: len(out.getvalue()) // 2]

    return make


def spoiled(form: str, seed: int) -> Callable[[], bytes]:
    """A sound file of which some bytes were changed: read as something, or unreadable."""

    def make() -> bytes:
        content, dice = bytearray(saved(two(size=(40, 40)), form)()), random.Random(seed)
        for _ in range(12):
            content[dice.randrange(len(content))] = dice.randrange(256)
        return bytes(content)

    return make


# ---- what is expected -----------------------------------------------------------------------------------------------


def shows(left: Any, right: Any, off: int = 6) -> Callable[[Image.Image], None]:
    """The two halves have these colours, or nearly."""

    def check(image: Image.Image) -> None:
        found = np.asarray(image.convert("RGB")).astype(int)
        middle, width = found[found.shape[0] // 2], found.shape[1]
        for at, wanted in ((0, left), (width - 1, right)):
            assert np.abs(middle[at] - np.array(wanted)).max() <= off, (at, middle[at], wanted)

    return check


def corner(image: Image.Image) -> None:
    """Red in its upper left corner, and nowhere else."""
    pixels = np.asarray(image).astype(int)
    redness = pixels[..., 0] - pixels[..., 2]
    assert (redness[2:13, 2:13] > 150).all() and (redness[:, 19:] < -150).all() and (redness[19:] < -150).all()


def whatever(image: Image.Image) -> None:
    assert image.mode in ("RGB", "L") and image.width * image.height <= 40_000_000


def sized(width: int, height: int) -> Callable[[Image.Image], None]:
    def check(image: Image.Image) -> None:
        assert image.size == (width, height)

    return check


BOTH = shows(RED, BLUE)
GREY = shows(WHITE, BLACK)
FIRST = [two(), two(GREEN, WHITE), two(WHITE, GREEN)]
PALETTE = two(mode="RGB").quantize(4)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("Comment", "<script>alert(1)</script>" * 100, zip=True)


def _transparent() -> Image.Image:
    image = two((255, 0, 0, 255), (0, 0, 255, 0), "RGBA")
    return image


LEGITIMATE: list[tuple[str, Callable[[], bytes], Callable[[Image.Image], None]]] = [
    ("CMYK", saved(two(mode="RGB").convert("CMYK"), "JPEG", quality=95), shows(RED, BLUE, 12)),
    ("CMYK of grey", saved(two(WHITE, BLACK).convert("CMYK"), "JPEG", quality=95), shows(WHITE, BLACK, 12)),
    ("progressive", lambda: jpeg(progressive=True), BOTH),
    ("grey JPEG", saved(two(255, 0, "L"), "JPEG", quality=95), GREY),
    (
        "several pictures in one JPEG",
        saved(FIRST[0].resize((32, 32)), "MPO", save_all=True, append_images=FIRST[1:], quality=95),
        shows(RED, BLUE, 40),
    ),
    ("a profile of colours", lambda: jpeg(icc_profile=ICC), BOTH),
    ("grey of 16 bits", deep_png(0, (65_535,), (0,)), GREY),
    ("middle grey of 16 bits", deep_png(0, (32_896,), (257,)), shows((128,) * 3, (1,) * 3, 1)),
    ("grey of 16 bits with a transparent one", deep_png(0, (65_535,), (0,), chunk(b"tRNS", b"\0\0")), whatever),
    ("grey of 16 bits with alpha", deep_png(4, (0, 65_535), (0, 0)), shows(BLACK, WHITE)),
    ("colours of 16 bits", deep_png(2, (65_535, 0, 0), (0, 0, 65_535)), BOTH),
    ("colours of 16 bits with alpha", deep_png(6, (65_535, 0, 0, 65_535), (0, 0, 0, 0)), shows(RED, WHITE)),
    ("palette", saved(PALETTE, "PNG"), BOTH),
    ("palette of two", saved(two().quantize(2), "PNG", bits=1), BOTH),
    (
        "palette with a transparent colour",
        saved(PALETTE, "PNG", transparency=PALETTE.getpixel((15, 0))),
        shows(RED, WHITE),
    ),
    ("palette with alpha", saved(PALETTE, "PNG", transparency=b"\xff" * 4), BOTH),
    ("one bit", saved(two(1, 0, "1"), "PNG"), GREY),
    ("two bits", lambda: png(header(4, 2, 2, 0), rows(b"\xf0")), GREY),
    ("four bits", lambda: png(header(4, 2, 4, 0), rows(b"\xff\x00")), GREY),
    ("grey with alpha", saved(two((0, 255), (0, 0), "LA"), "PNG"), shows(BLACK, WHITE)),
    ("alpha", saved(_transparent(), "PNG"), shows(RED, WHITE)),
    (
        "half transparent",
        saved(two((255, 0, 0, 128), (0, 0, 255, 128), "RGBA"), "PNG"),
        shows((255, 127, 127), (127, 127, 255)),
    ),
    ("one transparent colour", saved(two(), "PNG", transparency=BLUE), shows(RED, WHITE)),
    ("one transparent grey", saved(two(0, 77, "L"), "PNG", transparency=77), shows(BLACK, WHITE)),
    ("interlaced", lambda: png(header(1, 1, 8, 2, 1), b"\0" + bytes(RED)), shows(RED, RED)),
    ("text that is a script", saved(two(), "PNG", pnginfo=TEXT), BOTH),
    ("a profile that is none", saved(two(), "PNG", icc_profile=b"none"), BOTH),
    ("animated GIF", saved(FIRST[0], "GIF", save_all=True, append_images=FIRST[1:]), BOTH),
    ("animated PNG", saved(FIRST[0], "PNG", save_all=True, append_images=FIRST[1:]), BOTH),
    ("animated WebP", saved(FIRST[0], "WEBP", save_all=True, append_images=FIRST[1:], lossless=True), BOTH),
    ("GIF", saved(two(), "GIF"), BOTH),
    ("transparent GIF", saved(PALETTE, "GIF", transparency=PALETTE.getpixel((15, 0))), shows(RED, WHITE)),
    ("WebP", saved(two(size=(64, 64)), "WEBP", quality=95), shows(RED, BLUE, 25)),
    ("WebP with alpha", saved(_transparent(), "WEBP", lossless=True), shows(RED, WHITE)),
    ("bitmap", saved(two(), "BMP"), BOTH),
    ("bitmap of one bit", saved(two(1, 0, "1"), "BMP"), GREY),
    ("bitmap with a palette", saved(PALETTE, "BMP"), BOTH),
    ("bitmap from the top", lambda: bmp(2, -1, 24, bytes([0, 0, 255, 255, 0, 0, 0, 0])), BOTH),
    (
        "bitmap of run lengths",
        lambda: bmp(4, 1, 8, bytes([2, 0, 2, 1, 0, 1]), bytes([0, 0, 255, 0, 255, 0, 0, 0]), 1),
        BOTH,
    ),
    ("bitmap of 32 bits", lambda: bmp(2, 1, 32, bytes([0, 0, 255, 0, 255, 0, 0, 0])), BOTH),
    ("one pixel", saved(Image.new("RGB", (1, 1), RED), "PNG"), sized(1, 1)),
    ("a line", saved(Image.new("RGB", (20_000, 1), RED), "PNG"), sized(20_000, 1)),
    ("a post", saved(Image.new("L", (1, 20_000), 9), "PNG"), sized(1, 20_000)),
    ("forty million pixels", huge("RGB"), whatever),
    ("forty million pixels with alpha", huge("RGBA"), whatever),
    ("garbage behind", lambda: saved(two(), "PNG")() + bytes(100_000), BOTH),
    ("a GIF that is a script too", lambda: saved(two(), "GIF")() + b"/*<script>alert(1)</script>*/", BOTH),
    *((f"turned {n}", lambda n=n: turned(n), corner) for n in (2, 3, 4, 5, 7, 8)),
    *((f"an orientation of {v!r}", with_exif(v), BOTH) for v in (0, 9, 65_535)),
    ("an orientation in words", with_segment(b"II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0up\0\0\0\0\0\0"), BOTH),
    ("an EXIF that is cut", with_segment(b"II*\0\x08\0\0\0\xff\xff"), BOTH),
    (
        "an EXIF that leads to itself",
        with_segment(b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"),
        BOTH,
    ),
    ("an EXIF beyond the end", with_segment(b"II*\0\xf0\xff\xff\xff"), BOTH),
    ("an EXIF of zeros", with_segment(bytes(60_000)), BOTH),
    (
        "a thousand frames",
        saved(FIRST[0], "GIF", save_all=True, append_images=[FIRST[i % 2 + 1] for i in range(999)]),
        BOTH,
    ),
    (
        "an animation that claims 2³² frames",
        lambda: png(header(2, 1), rows(bytes(RED + BLUE), count=1), chunk(b"acTL", b"\xff" * 8)),
        BOTH,
    ),
]

LONG_TEXT = zlib.compress(bytes(80_000_000), 9)  # 80 kB
BLACK_ROWS = rows(bytes(6), count=1)
UNREADABLE: list[tuple[str, Callable[[], bytes]]] = [
    ("nothing", lambda: b""),
    ("one byte", lambda: b"\x89"),
    *(
        (f"the beginning of a {k} alone", lambda b=b: b)
        for k, b in (
            ("PNG", PNG),
            ("JPEG", b"\xff\xd8\xff"),
            ("GIF", b"GIF89a"),
            ("bitmap", b"BM"),
            ("WebP", b"RIFF\0\0\0\0WEBP"),
        )
    ),
    *((f"half a {k}", half(k)) for k in ("PNG", "GIF", "BMP", "WEBP")),
    ("a PNG of width 0", lambda: png(header(0, 5), b"")),
    ("a bitmap of height 0", lambda: bmp(5, 0, 24, b"")),
    ("a GIF of 0×0", lambda: gif((0, 0), (0, 0), b"\2\x44\1")),
    ("a bitmap of 60,000×60,000", lambda: bmp(60_000, 60_000, 1, bytes(100))),
    ("a bitmap of 2³¹×2³¹", lambda: bmp(2**31 - 1, 2**31 - 1, 32, bytes(100))),
    ("a GIF of 65,535×65,535", lambda: gif((65_535, 65_535), (1, 1), b"\2\x44\1")),
    ("a GIF with a frame of 65,535×65,535", lambda: gif((1, 1), (65_535, 65_535), b"\2\x44\1")),
    ("a WebP of 16,777,216 a side", lambda: webp(1 << 24)),
    ("a JPEG of 65,535×65,535", lambda: jpeg().replace(struct.pack(">HH", 32, 32), b"\xff\xff\xff\xff", 1)),
    ("a PNG that grows", lambda: png(header(2, 1), BLACK_ROWS, header(60_000, 60_000))),
    ("a PNG line of 2³¹ pixels", lambda: png(header(2**31 - 1, 1), BLACK_ROWS)),
    ("a PNG of 80 MB of text", lambda: png(header(2, 1), BLACK_ROWS, chunk(b"zTXt", b"a\0\0" + LONG_TEXT))),
    (
        "a PNG of 80 MB of text in another way",
        lambda: png(header(2, 1), BLACK_ROWS, chunk(b"iTXt", b"a\0\1\0\0\0" + LONG_TEXT)),
    ),
    ("a PNG with a wrong checksum", lambda: PNG + chunk(b"IHDR", bytes(13), crc=5) + chunk(b"IEND", b"")),
    ("a PNG of 3 bits", lambda: png(header(2, 1, 3, 0), BLACK_ROWS)),
    ("a PNG of no known colours", lambda: png(header(2, 1, 8, 5), BLACK_ROWS)),
    ("a PNG without pixels", lambda: PNG + header(2, 1) + chunk(b"IEND", b"")),
    ("a PNG of noise", lambda: PNG + header(64, 64) + chunk(b"IDAT", b"noise" * 9) + chunk(b"IEND", b"")),
    ("a PNG chunk of four gigabytes", lambda: PNG + header(2, 1) + b"\xff\xff\xff\xffIDAT" + bytes(9)),
    ("a GIF of an impossible code", lambda: gif((2, 2), (2, 2), b"\2\xff\xff", width=200)),
    ("a JPEG without an image", lambda: b"\xff\xd8" + b"\xff\xfe\0\4ab" * 5000 + b"\xff\xd9"),
    ("a JPEG of three thousand scans", lambda: scans(3000)),
    ("a WebP without pixels", lambda: b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f" + bytes(12)),
    *(
        (k, lambda b=b: b)
        for k, b in (
            ("HTML", b"<html><script>alert(1)</script>"),
            (
                "SVG",
                b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><image href='file:///etc/passwd'/></svg>",
            ),
            (
                "PostScript",
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch sprung) (w) file\nshowpage\n",
            ),
            ("PDF", b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj"),
            ("a pickle", b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch sprung\x85R."),
            ("PHP", b"<?php system('touch sprung'); ?>"),
            ("a program", b"\x7fELF" + bytes(99)),
            ("a zip", b"PK\3\4" + bytes(99)),
            ("text", "ما هذا؟".encode()),
            ("zeros", bytes(9999)),
            ("a Photoshop file", b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\1\0\0\0\1\0\x08\0\3" + bytes(40)),
            ("a portable pixmap", b"P6 1 1 255 abc"),
            ("a Windows icon", b"\0\0\1\0\1\0\1\1\0\0\1\0\x20\0\x30\0\0\0\x16\0\0\0" + bytes(60)),
            ("an OLE file", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),
            ("a HEIC photograph", b"\0\0\0\x18ftypheic" + bytes(60)),
        )
    ),
    ("a TIFF", saved(two(), "TIFF")),
]

CASES = [
    *(Case(f"image: {name}", make, reads=reads) for name, make, reads in LEGITIMATE),
    *(
        Case(f"image: {name}", make, "1 image left out, for they cannot be read: cats/hostile.png")
        for name, make in UNREADABLE
    ),
    *(
        Case(f"image: {form}, changed at random, {seed}", spoiled(form, seed), "hostile", whatever)
        for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP")
        for seed in range(2)
    ),
]
