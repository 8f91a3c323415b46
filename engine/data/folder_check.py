"""Images by class in a folder or zip of somebody's own: found, counted and checked before anything is believed.

Torch-free: the page calls ``check_folder`` by itself. Nothing is ever unpacked to disk; a member of a zip is read into
memory, up to a limit, and given to Pillow.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import stat
import struct
import threading
import time
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from engine.errors import Refused

MAX_FILES = 200_000
MAX_FILE_BYTES = 50_000_000
MAX_TOTAL_BYTES = 8_000_000_000
MAX_RATIO = 100  # unpacked over packed bytes; photographs stay below 2
RATIO_FROM = 1_000_000  # bytes below which a ratio says nothing: a small white bitmap packs very well
MAX_DIRECTORY_BYTES = 32_000_000  # of a zip's table of contents, which is read as a whole
MAX_PIXELS = 40_000_000
LARGE = 8_000_000  # pixels; of larger images, of which each copy takes tens of megabytes, one is decoded at a time
MIN_CLASSES, MAX_CLASSES = 2, 100
MIN_IMAGES = 5  # of a class: one is kept for testing, one held out, and more than one must be left
MAX_UNREADABLE = 0.25
OPENED_BY_CHECK = 2000
SECONDS_OF_CHECK = 10.0
MAX_SCANS = 200  # of a JPEG: a progressive one has about ten, and each takes a pass over all pixels

# What zipfile raises for a zip that lies: entries also point outside the file, or have a name that is no text.
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OverflowError, OSError, ValueError,
)  # fmt: skip

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")  # the first of these that is there

LAYOUT = "It takes class/image.png, or train/class/image.png with test/class/image.png, for 2 to 100 classes."


_one_large = threading.Lock()


@dataclass(frozen=True)
class FolderReport:
    """What a checked folder or zip holds.

    ``classes`` in alphabetical order; ``counts``: images of each class, of the training part where there is a test
    part, whose numbers are then in ``test_counts``. ``warnings``: sentences about what was left out.
    """

    classes: tuple[str, ...]
    counts: dict[str, int]
    warnings: list[str]
    test_counts: dict[str, int] | None = None


@dataclass(frozen=True)
class Found:
    """An image that was found: its path in the folder or zip, and its class number."""

    name: str
    label: int
    member: zipfile.ZipInfo | None = None


class Folder:
    """A folder or zip of images by class, listed. Use within ``opened``.

    ``train`` and ``test`` hold ``Found`` images in the order of class and name; ``test`` is empty where there is only
    one part.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile | None):
        self.path, self.archive, self.name = path, archive, name_of(path)
        self.warnings: list[str] = []
        found = safe_members(archive, self.name) if archive else []
        members = dict(found)
        names = sorted(members) if archive else sorted(_walk(path))
        nested = [n for n in names if n.lower().endswith(ARCHIVES)]
        if nested:
            raise Refused(
                f"{self.name} holds another archive, {presentable(nested[0])}; unpack it first, or leave it out."
            )
        images = [n for n in names if n.lower().endswith(SUFFIXES)]
        if not images:
            raise Refused(f"{self.name} holds no images ({', '.join(SUFFIXES)}). {LAYOUT}")
        if len(members) < len(found):
            same = _count(len(found) - len(members), "file")
            self.warnings.append(f"Left out, for a later one has the same name: {same}.")
        if len(images) < len(names):
            self.warnings.append(f"Left out, for they are no images: {_count(len(names) - len(images), 'file')}.")
        parts = _by_part(images)
        self.classes = tuple(sorted({c for c, _ in parts["train"]}))
        self._check_classes()
        strange = sorted({c for c, _ in parts["test"]} - set(self.classes))
        if strange:
            raise Refused(f"The class “{presentable(strange[0])}” has test images, but no training images.")
        labels = {name: label for label, name in enumerate(self.classes)}
        self.train, self.test = (
            [Found(name, labels[c], members.get(name)) for c, name in sorted(parts[part])] for part in ("train", "test")
        )
        outside = len(images) - len(self.train) - len(self.test)
        if outside:
            self.warnings.append(f"Left out, for they are in none of the class folders: {_count(outside, 'image')}.")
        self.check_counts([f.label for f in self.train], [f.label for f in self.test], bool(self.test))

    def _check_classes(self) -> None:
        count = len(self.classes)
        if not MIN_CLASSES <= count <= MAX_CLASSES:
            raise Refused(f"{self.name} holds {count:,} {'class' if count == 1 else 'classes'}. {LAYOUT}")
        for name in self.classes:
            if len(name) > 80 or not printable(name):
                raise Refused(f"The class name “{presentable(name)}” is too long or not printable; rename its folder.")

    def check_counts(self, train: list[int], test: list[int], has_test: bool) -> None:
        """Raise ``Refused`` when a class has too few images in lists of labels."""
        counts, tested = Counter(train), Counter(test)
        for label, name in enumerate(self.classes):
            if counts[label] < MIN_IMAGES:
                raise Refused(
                    f"The class “{name}” has {counts[label]} readable training images; every class needs at least "
                    f"{MIN_IMAGES}. Add some, or leave the class out."
                )
            if has_test and not tested[label]:
                raise Refused(f"The class “{name}” has no readable test image; add one, or leave the test folder out.")

    def read(self, found: Found) -> bytes:
        """The bytes of an image, ``MAX_FILE_BYTES`` at most. Raises ``Unreadable``, or ``Refused``."""
        if self.archive is not None and found.member is not None:
            return read_member(self.archive, found.member, self.name)
        return read_file(self.path, found.name)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """The images of a folder or zip, listed and checked. Raises ``Refused``."""
    try:
        path = path.expanduser().resolve()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a home of nobody
        raise Refused(f"“{presentable(str(path))}” is no path of a folder or .zip that can be read here.") from None
    if is_folder:
        try:
            folder = Folder(path, None)
        except OSError as error:
            reason = f"{name_of(path)} cannot be listed ({error.strerror})"
            raise Refused(f"{reason}; allow this program to read it.") from None
        yield folder
        return
    if not is_file:
        raise Refused(f"There is no folder and no .zip called {name_of(path)}.")
    with open_zip(path) as archive:
        yield Folder(path, archive)


@contextlib.contextmanager
def open_zip(path: Path, most: int | None = None) -> Iterator[zipfile.ZipFile]:
    """A zip whose table of contents can be read, of ``most`` members (``MAX_FILES`` unless given).

    Raises ``Refused``.
    """
    name, most = name_of(path), MAX_FILES if most is None else most
    try:
        bounded = _Bounded(path, most)
    except OSError as error:
        raise Refused(f"{name} cannot be opened ({error.strerror}); allow this program to read it.") from None
    with bounded as file:
        try:
            archive = zipfile.ZipFile(file)
        except _TooMany:
            raise Refused(f"{name} holds more than {most:,} files; take a part of them.") from None
        except BROKEN:
            raise Refused(f"{name} is not a zip that can be read; make it anew, or give a folder.") from None
        file.most = None
        with archive:
            yield archive


def check_folder(path: Path) -> FolderReport:
    """List and check the images by class in a folder or zip.

    Up to 2,000 images, evenly spread, are opened in full, fewer where that takes long; those that cannot be read are
    named in a warning and will be left out. Raises ``Refused`` with a sentence when something is wrong with the whole.
    """
    with opened(path) as folder:
        everything = [*folder.train, *folder.test]
        chosen = everything[:: -(-len(everything) // OPENED_BY_CHECK)]
        random.Random(0).shuffle(chosen)  # so that those opened in time are from all classes
        unreadable, until = [], time.monotonic() + SECONDS_OF_CHECK
        for at, found in enumerate(chosen):
            if at and time.monotonic() > until:
                chosen = chosen[:at]
                break
            try:
                open_image(folder.read(found), 64)
            except Unreadable as problem:
                unreadable.append((found, str(problem)))
        warnings = list(folder.warnings)
        if unreadable:
            unreadable.sort(key=lambda pair: pair[0].name)
            warnings.append(left_out(unreadable, len(chosen)))
            bad = {f.name for f, _ in unreadable}
            train, test = ([f for f in part if f.name not in bad] for part in (folder.train, folder.test))
            folder.check_counts([f.label for f in train], [f.label for f in test], bool(folder.test))
        else:
            train, test = folder.train, folder.test
        if len(chosen) < len(everything):
            warnings.append(f"{len(chosen):,} of the {len(everything):,} images were opened to check them.")
        counts, tested = ({c: 0 for c in folder.classes} for _ in range(2))
        for part, count in ((train, counts), (test, tested)):
            for found in part:
                count[folder.classes[found.label]] += 1
        return FolderReport(folder.classes, counts, warnings, tested if test else None)


# ---- single images --------------------------------------------------------------------------------------------------


class Unreadable(Exception):
    """One image cannot be read; the message says why in a few words."""


def open_image(content: bytes, size: int) -> Image.Image:
    """A decoded image, in RGB or grey (mode ``L``), transparency laid on white, not smaller than it will be needed.

    The size in its header is checked before a pixel is decoded. Raises ``Unreadable``.
    """
    try:
        if content.count(b"\xff\xda") > MAX_SCANS and content.startswith(b"\xff\xd8"):
            raise Unreadable("more scans than a JPEG needs")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable(f"{image.width}×{image.height} pixels are too many")
            image.draft(None, (4 * size, 4 * size))  # lets a JPEG be decoded at a fraction of its size
            if image.width * image.height <= LARGE:
                return _flat(image)
        with _one_large:
            return _shrunk(content, size)
    except Unreadable:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise Unreadable(type(error).__name__) from None


def _shrunk(content: bytes, size: int) -> Image.Image:
    """A large image, no larger than it need be. All copies of it are gone when this returns."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.draft(None, (4 * size, 4 * size))
        flat = _flat(image)
        return flat.reduce(max(1, min(flat.size) // (4 * size)))


def _flat(image: Image.Image) -> Image.Image:
    """An image that was opened, upright, in RGB or grey, on white. As few copies at a time as can be."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # telephones keep how they were held beside the pixels
    if image.mode.startswith("I;16"):
        image = image.point(lambda v: v / 257, "L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def left_out(unreadable: list[tuple[Found, str]], total: int) -> str:
    """A sentence that names unreadable files. Raises ``Refused`` when they are too many of ``total``."""
    shown = ", ".join(f"{presentable(found.name)} ({why})" for found, why in unreadable[:3])
    more = f" and {len(unreadable) - 3:,} more" if len(unreadable) > 3 else ""
    if len(unreadable) > MAX_UNREADABLE * total:
        raise Refused(f"{len(unreadable):,} of {total:,} images cannot be read: {shown}{more}. Mend or remove them.")
    return f"{_count(len(unreadable), 'image')} left out, for they cannot be read: {shown}{more}."


# ---- folders and zips -----------------------------------------------------------------------------------------------


class _TooMany(Exception):
    """A zip lists more members than are taken."""


class _Bounded(io.FileIO):
    """A file that will not be read in one large gulp, as a hostile zip's table of contents would be.

    As long as ``most`` is a number the table of contents is read, and may list so many members: each takes twenty times
    as much memory as in the file.
    """

    def __init__(self, path: Path, most: int):
        super().__init__(path)
        self.most: int | None = most

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()  # the rest of the file: zipfile looks for its end so
        if size > (MAX_FILE_BYTES if self.most is None else MAX_DIRECTORY_BYTES):
            raise zipfile.BadZipFile("its table of contents is too large")
        content = super().read(size) or b""
        if self.most is not None and content.count(b"PK\1\2") > self.most:
            raise _TooMany
        return content


def safe_members(archive: zipfile.ZipFile, name: str) -> list[tuple[str, zipfile.ZipInfo]]:
    """Path and entry of the files of a zip, hidden ones left out, once all of them are harmless. Raises ``Refused``."""
    members = [m for m in archive.infolist() if not m.filename.endswith("/")]
    assert archive.fp is not None  # it is open
    packed, total = os.fstat(archive.fp.fileno()).st_size, 0
    for m in members:
        path, shown = m.filename.replace("\\", "/"), presentable(m.filename)
        if not path or path.startswith("/") or path[1:2] == ":" or ".." in path.split("/"):
            raise Refused(f"{name} holds a file that would leave its folder ({shown}); such a zip is not read.")
        if stat.S_IFMT(m.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refused(f"{name} holds a link or a device ({shown}); put the files themselves into it.")
        if m.flag_bits & 1:
            raise Refused(f"{name} is encrypted; make it without a password.")
        if m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"{name} is packed in an unusual way ({shown}); pack it as an ordinary zip.")
        if m.file_size > MAX_FILE_BYTES:
            raise Refused(f"{shown} in {name} is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
        if m.file_size > RATIO_FROM and m.file_size > MAX_RATIO * max(m.compress_size, 1):
            raise Refused(f"{shown} in {name} unpacks to more than {MAX_RATIO} times its size; it is not read.")
        total += m.file_size
    # Against the size of the zip itself: members may lie about their packed size, or share it.
    if total > MAX_TOTAL_BYTES or (total > RATIO_FROM and total > MAX_RATIO * packed):
        raise Refused(
            f"{name} would unpack to {total / 1e6:,.0f} MB, which is too much for what it is; it is not read."
        )
    split = (([p for p in m.filename.replace("\\", "/").split("/") if p not in ("", ".")], m) for m in members)
    return [("/".join(parts), m) for parts, m in split if not _hidden(parts)]


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    """One file of a zip. Raises ``Refused`` when it is damaged or larger than it claims."""
    try:
        with archive.open(member) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) < min(member.file_size, MAX_FILE_BYTES):
            raise EOFError
    except BROKEN:
        raise Refused(f"{name} is damaged at {presentable(member.filename)}; make the zip anew.") from None
    if len(content) > MAX_FILE_BYTES:
        raise Refused(f"{presentable(member.filename)} in {name} is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
    return content


def read_file(root: Path, name: str) -> bytes:
    """One file of a folder. Raises ``Unreadable``, or ``Refused`` when it is too large."""
    try:
        with (root / name).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Unreadable(error.strerror or "not to be opened") from None
    if len(content) > MAX_FILE_BYTES:
        raise Refused(f"{presentable(name)} is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
    return content


def _walk(root: Path) -> Iterator[str]:
    """Paths of the files under ``root``, relative to it, hidden ones left out. Links are refused, not followed."""
    waiting, count, total = [root], 0, 0
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(root).as_posix()
                if entry.is_symlink():
                    raise Refused(
                        f"{name_of(root)} holds a link ({presentable(name)}); put the files themselves into it."
                    )
                if _hidden([entry.name]):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if name.count("/") < 4:
                        waiting.append(Path(entry.path))
                    continue
                if not entry.is_file(follow_symlinks=False):
                    continue
                count, total = count + 1, total + entry.stat(follow_symlinks=False).st_size
                if count > MAX_FILES:
                    raise Refused(f"{name_of(root)} holds more than {MAX_FILES:,} files; take a part of them.")
                if total > 10 * MAX_TOTAL_BYTES:
                    raise Refused(f"{name_of(root)} holds more than {MAX_TOTAL_BYTES // 100_000_000} GB; take a part.")
                yield name


def _by_part(names: list[str]) -> dict[str, list[tuple[str, str]]]:
    """(class, name) of the images of each part. A single folder around everything is looked through."""
    found = [(tuple(n.split("/")), n) for n in names]
    for top in (0, 1):
        heads = {p[top] for p, _ in found if len(p) > top + 1}
        lower = {h.lower(): h for h in heads}
        train = next((lower[t] for t in TRAIN if t in lower), None)
        if train and any(p[top] == train and len(p) == top + 3 for p, _ in found):
            test = next((lower[t] for t in TEST if t in lower), None)
            inside = [(p[top], p[top + 1], n) for p, n in found if len(p) == top + 3]
            return {
                part: [(c, n) for h, c, n in inside if h == name] for part, name in (("train", train), ("test", test))
            }
        if train:
            raise Refused(f"There are no classes in the folder “{presentable(train)}”. {LAYOUT}")
        if len(heads) > 1:
            return {"train": [(p[top], n) for p, n in found if len(p) == top + 2], "test": []}
    return {"train": [(p[-2], n) for p, n in found if len(p) > 1], "test": []}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _hidden(parts: list[str]) -> bool:
    return any(p.startswith(".") or p in ("__MACOSX", "Thumbs.db", "desktop.ini") for p in parts)


def name_of(path: Path) -> str:
    """The name of a file or folder, fit to be shown."""
    return presentable(path.name or str(path))


def printable(text: str) -> bool:
    """Whether a text is a line of letters, signs and spaces, none of which hides or turns what follows."""
    return all(unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029" for c in text)


def presentable(name: str) -> str:
    """A name from elsewhere, fit to be shown: short, and printable."""
    name = "".join(c if printable(c) else "?" for c in name)
    return name if len(name) <= 80 else f"…{name[-79:]}"
