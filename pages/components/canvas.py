"""A board to draw a picture or paint a mask on, and the pictures that people give (torch-free)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from engine.data.folder_check import Unreadable, open_image
from engine.errors import Refused
from engine.home import aside
from pages.components import roles
from pages.components.component import component

SIDE = 512  # largest side of a kept picture
URL = "data:image/png;base64,"
MOST = 2_000_000  # characters of a drawing

_mount = component("draw")


def board(*, key: str, kind: str = "draw", label: str, colours: bool = False, under: str = "", brush: int = 24) -> str:
    """A board of 256×256 pixels; what is on it as a data URL, empty when it is.

    ``kind``: ``draw``, on black, heard of after every stroke; or ``mask``, painted over the picture at the URL
    ``under``, heard of when its button is pressed: white where something was painted, else black. ``colours``: whether
    the ink can be other than white. ``brush``: its first width in those pixels.
    """
    data = {"kind": kind, "label": label, "colours": colours, "under": under, "brush": brush}
    found = _mount(key=key, data=data, on_picture_change=lambda: None).get("picture")
    return found if isinstance(found, str) else ""


# ---- keeping pictures ------------------------------------------------------------------------------------------------


def drawn(url: str) -> Image.Image:
    """The picture in a data URL of a board. Raises ``Refused``."""
    try:
        if not url.startswith(URL) or len(url) > MOST:
            raise ValueError
        return opened(base64.b64decode(url.removeprefix(URL), validate=True))
    except (ValueError, binascii.Error):
        raise Refused("The drawing did not arrive whole; draw it again.") from None


def opened(content: bytes) -> Image.Image:
    """The central square of a picture file, at most ``SIDE`` pixels wide, RGB or grey. Raises ``Refused``."""
    try:
        image = open_image(content, SIDE)
    except Unreadable as problem:
        raise Refused(f"The picture cannot be read ({problem}); choose a PNG, JPEG or WebP.") from None
    side = min(SIDE, *image.size)
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def keep(image: Image.Image, home: Path) -> str:
    """Keep a picture under ``home/uploads``; ``file:NAME``, as probes ask for it. The same picture has one name."""
    roles.demand("bring pictures")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:24]}.png"
    folder = home / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    with aside(folder / name) as part:
        part.write_bytes(buffer.getvalue())
    return f"file:{name}"


def centred(image: Image.Image, share: float) -> Image.Image:
    """A drawing on black as digits are in MNIST: its larger side ``share`` of the picture's, its centre of mass in the
    middle (LeCun, Cortes & Burges 1998)."""
    grey = image.convert("L")
    box = grey.getbbox()
    if box is None:
        return image
    side = image.width
    cut = image.crop(box)
    scale = share * side / max(cut.size)
    cut = cut.resize([max(1, round(scale * length)) for length in cut.size], Image.Resampling.LANCZOS)
    mass = np.asarray(cut.convert("L"), float) + 1e-9
    y, x = (float((mass.sum(1 - axis) * np.arange(mass.shape[axis])).sum() / mass.sum()) for axis in (0, 1))
    out = Image.new(image.mode, image.size)
    # Not so far that anything of it would be cut off
    left, top = (min(max(round(side / 2 - at), 0), side - length) for at, length in zip((x, y), cut.size, strict=True))
    out.paste(cut, (left, top))
    return out
