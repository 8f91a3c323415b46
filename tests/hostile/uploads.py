"""Files that somebody uploads on the page Your images: names and contents."""

from __future__ import annotations

from tests.hostile.archives import Entry, entries, picture, raw_zip
from tests.hostile.case import Case

NAMES = (
    "../../evil.zip",
    "/etc/evil.zip",
    "..\\evil.zip",
    "C:\\evil.zip",
    "<script>alert(1)</script>.zip",
    "\u202egpj.zip",
    "x" * 400 + ".zip",
    "a\nb.zip",
    "\x1b[2J.zip",
    ".zip",
    "....zip",
    "![x](http://example.org/x.png).zip",
    "a.b.c.zip",
)
SOUND = raw_zip(entries())
BROKEN = raw_zip([*entries(), Entry("../evil.png", picture())])

# Sound images under a name that is none are taken; broken ones are refused in a sentence with that name.
IMAGES = [
    *(
        Case(f"upload: images as {name[:40]!r}", lambda name=name: (name, SOUND), reads=lambda page: None)
        for name in NAMES[:6]
    ),
    *(
        Case(f"upload: a broken zip as {name[:40]!r}", lambda name=name: (name, BROKEN), "would leave its folder")
        for name in NAMES
    ),
    Case("upload: an empty zip", lambda: ("a.zip", b""), "is not a zip"),
    Case("upload: a page", lambda: ("a.zip", b"<html><script>alert(1)</script>"), "is not a zip"),
    Case(
        "upload: a bomb",
        lambda: ("a.zip", raw_zip([*entries(), Entry("a.txt", bytes(9_000_000), 8)])),
        "100 times its size",
    ),
]

# A set from elsewhere is read by a worker; the page keeps it under a name of its own, and queues that.
SETS = [
    Case(f"upload: a set as {name[:40]!r}", lambda name=name: (name, b"x"), reads=lambda page: None)
    for name in (*(n.replace(".zip", ".pt") for n in NAMES), "set.PT", "set.npz", "set.zip")
]
CASES = [*IMAGES, *SETS]
