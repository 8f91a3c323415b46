"""Hostile and strange archives, and folders, of images by class."""

from __future__ import annotations

import io
import os
import random
import socket
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from engine.data.folder_check import FolderReport
from tests.hostile.case import Case

TWO = ("cats", "dogs")


@cache
def picture(shade: int = 0, side: int = 8) -> bytes:
    """A small sound PNG."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), (shade % 256, 90, 120)).save(out, "PNG")
    return out.getvalue()


def files(classes: Iterable[str] = TWO, count: int = 6, top: str = "") -> dict[str, bytes]:
    """Names and contents of a sound dataset."""
    return {f"{top}{name}/{i}.png": picture(20 * i) for name in classes for i in range(count)}


# ---- zips, written byte by byte so that they can lie ---------------------------------------------------------------


@dataclass
class Entry:
    """A member; what is None is what it honestly is. ``size`` and ``packed``: claims; ``kind``: its Unix file type."""

    name: str | bytes
    content: bytes = b""
    method: int = zipfile.ZIP_STORED
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    flags: int = 0x800
    kind: int = 0
    extra: bytes = b""
    offset: int | None = None
    disk: int = 0


def raw_zip(entries: Iterable[Entry], *, tail: Callable[[int, int, int], bytes] | None = None) -> bytes:
    """A zip of ``entries``; ``tail`` makes its last record from count, size and offset of the table of contents."""
    body, table, count = bytearray(), bytearray(), 0
    for e in entries:
        name = e.name if isinstance(e.name, bytes) else e.name.encode()
        data = e.content
        if e.method == zipfile.ZIP_DEFLATED:
            squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
            data = squeeze.compress(data) + squeeze.flush()
        size = len(e.content) if e.size is None else e.size
        packed = len(data) if e.packed is None else e.packed
        crc = zlib.crc32(e.content) if e.crc is None else e.crc
        at = len(body) if e.offset is None else e.offset
        shared = struct.pack("<HHHHHIII", 20, e.flags, e.method, 0, 33, crc, packed, size)[2:]
        body += b"PK\3\4" + struct.pack("<H", 20) + shared + struct.pack("<HH", len(name), 0) + name + data
        table += b"PK\1\2" + struct.pack("<HH", 0x31E, 20) + shared
        table += struct.pack("<HHHHHII", len(name), len(e.extra), 0, e.disk, 0, e.kind << 16, at) + name + e.extra
        count += 1
    end = (tail or ending)(count, len(table), len(body))
    return bytes(body + table) + end


def ending(count: int, size: int, offset: int, comment: bytes = b"") -> bytes:
    """The end of a zip, honest unless given something else."""
    some = count & 0xFFFF
    return b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, some, some, size, offset, len(comment)) + comment


def ending64(count: int, size: int, offset: int, *, at: int | None = None, disks: int = 1) -> bytes:
    """The end of a zip64, whose 32-bit record points to it."""
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
    where = offset + size if at is None else at
    locator = b"PK\6\7" + struct.pack("<IQI", 0, where & (2**64 - 1), disks)
    return record + locator + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def entries(contents: dict[str, bytes] | None = None) -> list[Entry]:
    return [Entry(name, content) for name, content in (contents or files()).items()]


def saved(*more: Entry, contents: dict[str, bytes] | None = None, **how: object) -> Callable[[Path], Path]:
    """Two sound classes and ``more``, as a.zip."""
    return lambda folder: write(folder, raw_zip([*entries(contents), *more], **how))


def write(folder: Path, content: bytes) -> Path:
    path = folder / "a.zip"
    path.write_bytes(content)
    return path


def named(*classes: str, count: int = 6) -> Callable[[Path], Path]:
    return lambda folder: write(folder, raw_zip(entries(files(classes, count))))


def changed(change: Callable[[bytearray], bytes | bytearray | None]) -> Callable[[Path], Path]:
    """A sound zip that is then damaged."""

    def make(folder: Path) -> Path:
        content = bytearray(raw_zip(entries()))
        return write(folder, bytes(change(content) or content))

    return make


# ---- what is expected -----------------------------------------------------------------------------------------------


def classes_are(*names: str, count: int = 6, warned: str = "") -> Callable[[FolderReport], None]:
    """The report has these classes, so many images of each, and no warning but one with this word."""

    def check(report: FolderReport) -> None:
        assert report.classes == tuple(sorted(names))
        assert set(report.counts.values()) == {count}
        assert bool(report.warnings) == bool(warned) and all(warned in w for w in report.warnings), report.warnings

    return check


SOUND = classes_are(*TWO)


def left_out(word: str) -> Callable[[FolderReport], None]:
    return classes_are(*TWO, warned=word)


def more_cats(report: FolderReport, count: int = 1) -> None:
    assert report.counts == {"cats": 6 + count, "dogs": 6}


# ---- names ----------------------------------------------------------------------------------------------------------

LEAVING = {
    "a share": r"\\server\share\evil.png",
    "backslashes that climb": r"cats\..\..\evil.png",
    "a drive without a slash": "c:evil.png",
    "a drive with backslashes": r"C:\Windows\evil.png",
    "down and up again": "cats/../dogs/evil.png",
    "dots alone": "..",
    "two slashes": "//etc/evil.png",
    "a device path": r"\\.\PhysicalDrive0.png",
    "a long path of Windows": r"\\?\C:\evil.png",
    "both kinds of slash": r"cats/..\../evil.png",
    "many steps up": "../" * 300 + "evil.png",
    "an absolute path of backslashes": r"\evil.png",
}
STRAY = {  # names that lead nowhere, and are left out as images of no class
    "an address": "file:///etc/evil.png",
    "deep folders": "/".join("a" * 2000) + "/evil.png",
    "a name as long as a zip allows": "cats/more/" + "x" * 65_000 + ".png",
}
REFUSED_CLASSES = {
    "an escape": "do\x1b[2Jgs",
    "a bell": "do\x07gs",
    "a line end": "do\ngs",
    "a carriage return": "do\rgs",
    "a tab": "do\tgs",
    "delete": "do\x7fgs",
    "next line": "do\x85gs",
    "line separator": "do\u2028gs",
    "paragraph separator": "do\u2029gs",
    "right-to-left override": "do\u202egs",
    "right-to-left mark": "do\u200fgs",
    "isolate": "do\u2066gs",
    "zero width": "do\u200bgs",
    "byte order mark": "\ufeffdogs",
    "private use": "do\ue000gs",
    "no character": "do\uffffgs",
    "a tag": "do\U000e0041gs",
    "eighty-one letters": "d" * 81,
    "a thousand": "d" * 1000,
}
WILD_CLASSES = {  # strange, but names all the same
    "an image tag": "<img src=x onerror=alert(1)>",
    "a script tag": "<script>alert(1)<!--",
    "quotes": "\"'><svg onload=x>",
    "SQL": "'; DROP TABLE runs;--",
    "a template": "{{7*7}}${7*7}%s%n",
    "a formula": "=1+1",
    "Markdown": "![x](y) **b** `c`",
    "emoji": "🐶",
    "Chinese": "狗",
    "Arabic": "كلب",
    "many accents": "d" + "\u0301" * 70,
    "eighty letters": "d" * 80,
    "a device": "CON",
    "another device": "NUL.txt",
    "a space": "  ",
    "digits of another script": "１２",
}


# ---- members that are no ordinary files ----------------------------------------------------------------------------


def _listed(names: list[bytes]) -> bytes:
    """Empty members of these names, all of one length, that lie in the same place: quick to make in large numbers."""
    body = b"PK\3\4" + bytes(26)
    head = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(names[0]), 0, 0, 0, 0, 0, 0)
    table = b"".join(head + name for name in names)
    return body + table + ending64(len(names), len(table), len(body))


def _many(count: int) -> bytes:
    return _listed([b"cats/%06d.png" % i for i in range(count)])


def _classes(count: int, each: int) -> bytes:
    return _listed([b"c%05d/%d.png" % (c, i) for c in range(count) for i in range(each)])


def _shared(count: int) -> bytes:
    """Members that share the same packed megabyte, each under its own name."""
    kernel = Entry("cats/a.bmp", bytes(900_000), zipfile.ZIP_DEFLATED)
    return raw_zip([kernel, *(Entry(f"cats/{i}.bmp", size=900_000, packed=900, offset=0) for i in range(count))])


def _quine(depth: int = 4) -> bytes:
    inner = raw_zip(entries())
    for _ in range(depth):
        inner = raw_zip([*entries(), Entry("cats/inner.zip", inner)])
    return inner


def _noise(content: bytearray, count: int) -> bytearray:
    """The same ``count`` bytes changed every time."""
    dice = random.Random(count)
    for _ in range(count):
        content[dice.randrange(len(content))] = dice.randrange(256)
    return content


def zip64_extra(size: int, packed: int) -> bytes:
    return struct.pack("<HHQQ", 1, 16, size, packed)


NOT_A_ZIP = "a.zip is not a zip that can be read"
DAMAGED = "a.zip (is damaged at|is not a zip that can be read|holds no images)"

CASES = [
    # names that would leave
    *(Case(f"zip: {k}", saved(Entry(n, picture())), "would leave its folder") for k, n in LEAVING.items()),
    *(Case(f"zip: {k}", saved(Entry(n, picture())), reads=left_out("none of the class")) for k, n in STRAY.items()),
    Case("zip: a home", saved(Entry("~/evil.png", picture())), "“~” has 1 readable"),
    Case("zip: a variable", saved(Entry("$HOME/evil.png", picture())), "“\\$HOME” has 1 readable"),
    Case("zip: a stream of Windows", saved(Entry("cats/0.png:evil", picture())), reads=left_out("no images")),
    Case("zip: names that start with a dot and a slash", saved(contents=files(top="./")), reads=SOUND),
    Case("zip: doubled slashes", saved(contents={n.replace("/", "//"): c for n, c in files().items()}), reads=SOUND),
    Case("zip: backslashes", saved(contents={n.replace("/", "\\"): c for n, c in files().items()}), reads=SOUND),
    Case("zip: one name twice", saved(Entry("cats/0.png", picture(7))), reads=left_out("same name")),
    Case("zip: one name with both slashes", saved(Entry("cats\\0.png", picture(7))), reads=left_out("same name")),
    Case("zip: an empty name", saved(Entry("", b"x")), "would leave its folder"),
    Case("zip: a zero byte in a name", saved(Entry("cats/9.png\0.exe", picture())), reads=more_cats),
    Case("zip: a name that is no UTF-8", saved(Entry(b"cats/\xff\xfe.png", picture())), NOT_A_ZIP),
    Case(
        "zip: device names",
        saved(*(Entry(f"cats/{n}.png", picture()) for n in ("CON", "nul", "aux", "COM1", "PRN"))),
        reads=lambda report: more_cats(report, 5),
    ),
    # classes
    *(Case(f"class: {k}", named("cats", n), "is too long or not printable") for k, n in REFUSED_CLASSES.items()),
    *(Case(f"class: {k}", named("cats", n), reads=classes_are("cats", n)) for k, n in WILD_CLASSES.items()),
    Case("classes: none but text", saved(contents={"cats/a.txt": b"x", "dogs/b.txt": b"x"}), "holds no images"),
    Case("classes: one in a folder in a folder", saved(contents=files(["a/b/cats"])), "1 class"),
    Case(
        "classes: exactly a hundred",
        named(*(f"c{i:03d}" for i in range(100)), count=5),
        reads=classes_are(*(f"c{i:03d}" for i in range(100)), count=5),
    ),
    Case("classes: ten thousand", lambda f: write(f, _classes(10_000, 1)), "10,000 classes"),
    Case("classes: twenty thousand of two images", lambda f: write(f, _classes(20_000, 2)), "20,000 classes"),
    Case("classes: an empty one", saved(Entry("birds/", kind=stat.S_IFDIR | 0o755)), reads=SOUND),
    Case("classes: one of hidden files", saved(Entry("birds/.a.png", picture())), reads=SOUND),
    Case("classes: one of text", saved(Entry("birds/a.txt", b"x")), reads=left_out("no images")),
    Case(
        "classes: one of five with an empty file",
        saved(*(Entry(f"owls/{i}.png", picture() if i else b"") for i in range(5))),
        "“owls” has 4 readable",
    ),
    Case("classes: train without a class", saved(Entry("train/0.png", picture())), "no classes in the folder “train”"),
    Case(
        "classes: a name that is a file's too",
        saved(Entry("cats/0.png/1.png", picture())),
        reads=left_out("none of the class"),
    ),
    # special files
    *(
        Case(f"zip: {k}", saved(Entry("cats/x.png", b"/etc/passwd", kind=t | 0o777)), says)
        for k, t, says in (
            ("a device for characters", stat.S_IFCHR, "holds a link or a device"),
            ("a device for blocks", stat.S_IFBLK, "holds a link or a device"),
            ("a pipe", stat.S_IFIFO, "holds a link or a device"),
            ("a socket", stat.S_IFSOCK, "holds a link or a device"),
        )
    ),
    Case(
        "zip: a link that calls itself a folder", saved(Entry("cats/", b"/etc", kind=stat.S_IFLNK | 0o777)), reads=SOUND
    ),
    *(
        Case(f"zip: packed by {k}", saved(Entry("cats/x.png", b"x", method=m)), "packed in an unusual way")
        for k, m in (
            ("shrinking", 1),
            ("imploding", 6),
            ("deflate64", 9),
            ("bzip2", 12),
            ("lzma", 14),
            ("zstd", 93),
            ("ppmd", 98),
            ("nothing known", 65_535),
        )
    ),
    Case("zip: strongly encrypted", saved(Entry("cats/x.png", picture(), flags=0x841)), "is encrypted"),
    Case(
        "zip: strongly encrypted, half told",
        saved(Entry("cats/x.png", picture(), flags=0x840)),
        "is damaged at cats/x.png",
    ),
    Case("zip: a patch of another zip", saved(Entry("cats/x.png", picture(), flags=0x820)), "is damaged at cats/x.png"),
    # sizes that lie
    Case("zip: claims to be smaller", saved(Entry("cats/x.png", picture(), size=20)), "is damaged at cats/x.png"),
    Case("zip: claims to be larger", saved(Entry("cats/x.png", picture(), size=9000)), "is damaged at cats/x.png"),
    Case("zip: claims to be empty", saved(Entry("cats/x.png", picture(), size=0)), "is damaged at cats/x.png"),
    Case(
        "zip: claims to be packed smaller", saved(Entry("cats/x.png", picture(), packed=20)), "is damaged at cats/x.png"
    ),
    Case(
        "zip: claims to be packed larger",
        saved(Entry("cats/x.png", picture(), packed=10**6, size=10**6)),
        "would unpack to 1 MB",
    ),
    Case(
        "zip: packed data cut",
        saved(Entry("cats/x.png", bytes(9000), zipfile.ZIP_DEFLATED, packed=9)),
        "is damaged at cats/x.png",
    ),
    Case(
        "zip: no packed data",
        saved(Entry("cats/x.png", b"", zipfile.ZIP_STORED, size=50, crc=7)),
        "is damaged at cats/x.png",
    ),
    Case(
        "zip: stored data called packed",
        saved(Entry("cats/x.png", picture(), flags=0x800, crc=1)),
        "is damaged at cats/x.png",
    ),
    Case("zip: a wrong checksum", saved(Entry("dogs/x.png", picture(), crc=123)), "is damaged at dogs/x.png"),
    Case(
        "zip: sixty megabytes claimed",
        saved(Entry("cats/x.png", b"", size=60_000_000, packed=60_000_000)),
        "is larger than 50 MB",
    ),
    Case(
        "zip: four gigabytes claimed",
        saved(Entry("cats/x.png", b"", size=2**32 - 2, packed=2**32 - 2)),
        "is larger than 50 MB",
    ),
    Case(
        "zip: a bomb beside a text",
        saved(Entry("readme.txt", bytes(10_000_000), zipfile.ZIP_DEFLATED)),
        "100 times its size",
    ),
    Case("zip: a hidden bomb", saved(Entry(".cats/x", bytes(10_000_000), zipfile.ZIP_DEFLATED)), "100 times its size"),
    Case("zip: data that many share", lambda f: write(f, _shared(800)), "would unpack to 72. MB"),
    Case("zip: one in one in one", lambda f: write(f, _quine()), "another archive, cats/inner.zip"),
    *(
        Case(f"zip: holds {k}", saved(Entry(f"cats/more{k}", b"x")), "holds another archive")
        for k in (".tar", ".TAR.GZ", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
    ),
    Case(
        "zip: one that calls itself an image", saved(Entry("cats/x.png", raw_zip(entries()))), reads=left_out("x.png")
    ),
    Case("zip: 200,001 members", lambda f: write(f, _many(200_001)), "more than 200,000 files"),
    # the table of contents
    Case("zip64: an honest one", saved(tail=ending64), reads=SOUND),
    Case("zip64: a count beyond all", saved(tail=lambda c, s, o: ending64(2**63, s, o)), reads=SOUND),
    Case("zip64: a size beyond all", saved(tail=lambda c, s, o: ending64(c, 2**63, o)), NOT_A_ZIP),
    Case("zip64: an offset beyond all", saved(tail=lambda c, s, o: ending64(c, s, 2**64 - 1)), DAMAGED),
    Case(
        "zip64: a record that is elsewhere", saved(tail=lambda c, s, o: ending64(c, s, o, at=2**62)), NOT_A_ZIP, SOUND
    ),
    Case("zip64: nine disks", saved(tail=lambda c, s, o: ending64(c, s, o, disks=9)), NOT_A_ZIP),
    Case(
        "zip64: a member of exabytes",
        saved(Entry("cats/x.png", b"", size=2**32 - 1, packed=2**32 - 1, extra=zip64_extra(2**62, 2**62))),
        "is larger than 50 MB",
    ),
    Case(
        "zip64: a member of a negative size",
        saved(Entry("cats/x.png", b"", size=2**32 - 1, packed=2**32 - 1, extra=zip64_extra(2**64 - 1, 2**64 - 1))),
        "is larger than 50 MB",
    ),
    Case(
        "zip64: sizes that are missing", saved(Entry("cats/x.png", b"", size=2**32 - 1, extra=b"\1\0\0\0")), NOT_A_ZIP
    ),
    Case("zip: an extra field that is cut", saved(Entry("cats/x.png", picture(), extra=b"\1\0\xff\xff")), NOT_A_ZIP),
    Case("zip: a count too small", saved(tail=lambda c, s, o: ending(1, s, o)), reads=SOUND),
    Case("zip: a count too large", saved(tail=lambda c, s, o: ending(60_000, s, o)), reads=SOUND),
    Case(
        "zip: a table said to be short", saved(tail=lambda c, s, o: ending(c, s // 2, o)), "1 class|not a zip|damaged"
    ),
    Case("zip: a table said to be empty", saved(tail=lambda c, s, o: ending(0, 0, o + s)), "holds no images"),
    Case("zip: a table said to be huge", saved(tail=lambda c, s, o: ending(c, 2**32 - 2, o)), NOT_A_ZIP),
    Case("zip: a table said to lie behind", saved(tail=lambda c, s, o: ending(c, s, 2**32 - 2)), DAMAGED),
    Case("zip: a long comment", saved(tail=lambda c, s, o: ending(c, s, o, b"PK\5\6" * 16_000)), NOT_A_ZIP),
    Case("zip: an end alone", lambda f: write(f, ending(0, 0, 0)), "holds no images"),
    Case("zip: a member on another disk", saved(Entry("cats/x.png", picture(), disk=3)), reads=more_cats),
    Case(
        "zip: all members in one place",
        saved(*(Entry(f"cats/x{i}.png", picture(), offset=0) for i in range(5))),
        "is damaged at cats/x",
    ),
    Case("zip: a member beyond the end", saved(Entry("cats/x.png", picture(), offset=2**31)), "a.zip is damaged"),
    Case("zip: a program before it", changed(lambda c: b"MZ" + bytes(5000) + c), reads=SOUND),
    Case("zip: garbage after it", changed(lambda c: c + bytes(70_000)), NOT_A_ZIP),
    Case("zip: twice, one after the other", changed(lambda c: c + c), reads=SOUND),
    *(
        Case(f"zip: cut at {p} %", changed(lambda c, p=p: c[: len(c) * p // 100]), NOT_A_ZIP)
        for p in (1, 10, 75, 90, 99)
    ),
    Case("zip: its beginning cut", changed(lambda c: c[300:]), DAMAGED),
    *(
        Case(f"zip: {n} bytes changed", changed(lambda c, n=n: _noise(c, n)), "a.zip|readable")
        for n in (3, 30, 300, 1500)
    ),
    Case("zip: a tar", lambda f: write(f, bytes(257) + b"ustar\0" + bytes(2000)), NOT_A_ZIP),
    Case("zip: a gzip", lambda f: write(f, zlib.compress(b"x" * 100, wbits=31)), NOT_A_ZIP),
    Case("zip: a program", lambda f: write(f, b"\x7fELF" + bytes(2000)), NOT_A_ZIP),
]


# ---- folders --------------------------------------------------------------------------------------------------------


def unpacked(folder: Path, contents: dict[str, bytes] | None = None) -> Path:
    root = folder / "mine"
    for name, content in (contents or files()).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def with_pipe(folder: Path) -> Path:
    os.mkfifo(unpacked(folder) / "cats" / "pipe.png")
    return folder / "mine"


def with_socket(folder: Path) -> Path:
    root = unpacked(folder)
    with socket.socket(socket.AF_UNIX) as one:
        before = os.getcwd()
        os.chdir(root / "cats")  # the names of sockets must be short
        one.bind("socket.png")
        os.chdir(before)
    return root


def with_hole(size: int) -> Callable[[Path], Path]:
    """A file of this size that takes no room on the disk."""

    def make(folder: Path) -> Path:
        with (unpacked(folder) / "cats" / "hole.png").open("wb") as file:
            file.truncate(size)
        return folder / "mine"

    return make


def with_bytes(name: bytes, content: bytes) -> Callable[[Path], Path]:
    """A file whose name is no text."""

    def make(folder: Path) -> Path:
        path = os.fsencode(unpacked(folder)) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return folder / "mine"

    return make


def with_link(folder: Path) -> Path:
    (unpacked(folder) / "cats" / "gone.png").symlink_to("/no/such/file")
    return folder / "mine"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.zip")
    return folder / "pipe.zip"


def deep(folder: Path) -> Path:
    root = unpacked(folder)
    path = root / "cats" / "/".join("d" * 200)
    path.mkdir(parents=True)
    (path / "x.png").write_bytes(picture())
    return root


def badly_named(folder: Path) -> Path:
    """A folder whose own name is no text."""
    path = os.fsencode(folder) + b"/\xff\x1b[31m"
    os.mkdir(path)
    return Path(os.fsdecode(path))


UNIX = sys.platform.startswith("linux")
FOLDERS = (
    [
        Case("folder: a pipe in a class", with_pipe, reads=SOUND),
        Case("folder: a socket in a class", with_socket, reads=SOUND),
        Case("folder: a broken link", with_link, "holds a link"),
        Case("folder: a file of sixty megabytes", with_hole(60_000_000), "hole.png is larger than 50 MB"),
        Case("folder: a file of a hundred gigabytes", with_hole(100_000_000_000), "holds more than 80 GB"),
        Case(
            "folder: a class whose name is no text",
            with_bytes(b"\xff\xfe/x.png", picture()),
            "too long or not printable",
        ),
        Case(
            "folder: an image whose name is no text",
            with_bytes(b"cats/\xff.png", b"broken"),
            reads=left_out("cats/?.png"),
        ),
        Case("folder: a class of 10,000 letters in levels", deep, reads=SOUND),
        Case("folder: its own name is no text", badly_named, r"\?\?\[31m holds no images"),
        Case("path: a pipe", pipe, "no folder and no .zip called pipe.zip"),
        *(
            Case(f"path: {p}", lambda _, p=p: Path(p), says)
            for p, says in (
                ("/dev/zero", "no folder and no .zip"),
                ("/dev/null", "no folder and no .zip"),
                ("/dev/stdin", "no folder and no .zip"),
                ("/dev/tty", "no folder and no .zip"),
                ("/proc/self/mem", "is not a zip"),
                ("/", "/ holds (a link|no images|more than)"),
                ("~nobody-of-that-name/x", "no path of a folder"),
                ("a\0b", "no path of a folder"),
                ("x" * 300, "no path of a folder"),
                ("/x" * 3000, "no path of a folder"),
                ("x\ny.zip", "no folder and no .zip called x\\?y.zip"),
                ("\u202egpj.zip", "no folder and no .zip called \\?gpj.zip"),
            )
        ),
    ]
    if UNIX
    else []
)
