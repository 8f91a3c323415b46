"""What a question names, as objects: students, images, masks, targets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from engine.accel import Accel
from engine.data import load
from engine.data.base import Dataset
from engine.data.folder_check import Unreadable, open_image
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.runs.imports import read_set
from engine.runs.store import Store
from engine.students.kept import Student, load_student
from engine.synthetic import SyntheticSet

KEPT_FILE = re.compile(r"^[0-9a-f]{24}\.png$")
MAX_BYTES = 8_000_000
MAX_SIDE = 4096
PNG = b"\x89PNG\r\n\x1a\n"


# ---- students --------------------------------------------------------------------------------------------------------


def asked_students(work: Work, ids: str, least: int = 1, most: int = 4) -> list[Student]:
    """The students with these ids, in this order. Raises ``Refused`` when they do not know the same classes of images
    of the same size."""
    names = list(dict.fromkeys(filter(None, (part.strip() for part in ids.split(",")))))
    if not least <= len(names) <= most:
        raise Refused(
            f"Name {f'{least} to {most} students' if most > least else 'one student'} by their ids, separated by "
            f"commas, not {len(names)}; “python -m engine student list” shows those there are."
        )
    found = [_student(work, name) for name in names]
    for other in found[1:]:
        if _kind(other) != _kind(found[0]):
            raise Refused(
                f"{found[0].name} knows {found[0].dataset} ({found[0].facts['size']} pixels) and {other.name} knows "
                f"{other.dataset} ({other.facts['size']} pixels): only students of one dataset can be asked together."
            )
    return found


def _kind(student: Student) -> tuple[Any, ...]:
    return student.dataset, student.facts["size"], student.facts["channels"], student.classes


def _student(work: Work, id: str) -> Student:
    """A student, kept in memory for as long as its file stays the same."""
    path = work.store.folder(id) / "student" / "student.json"
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _loaded(str(work.store.home), id, stamp, work.accel)


@lru_cache(maxsize=24)
def _loaded(home: str, id: str, stamp: int, accel: Accel) -> Student:
    student = load_student(Store(Path(home)), id, accel)
    if accel.device.type == "cpu":  # where pooling and passes without gradients take much less time with channels last
        student.module.to(memory_format=torch.channels_last)
    return student


def described(students: list[Student]) -> list[dict[str, Any]]:
    """``facts["students"]`` of every answer."""
    return [
        {"id": s.id, "name": s.name, "kind": s.facts.get("source", {}).get("kind", ""), "network": network_of(s)}
        for s in students
    ]


def who(student: Student) -> dict[str, str]:
    """The columns that say whose row it is."""
    return {"id": student.id, "student": student.name}


def network_of(student: Student) -> str:
    """The network's name."""
    return student.facts.get("network", "")


def data_of(student: Student, work: Work) -> Dataset:
    """The dataset whose classes it knows. Raises ``Refused`` when that is not here."""
    return load(student.dataset, student.facts["size"], lambda fraction, what: work.tell(0.1 * fraction, what))


# ---- images ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in question: ``pixels`` (1, C, H, W) float32, in [0, 1] but for synthetic ones, which may go beyond;
    ``label`` its class, None where nobody knows; ``index`` of a test image; ``text`` what it is."""

    pixels: Tensor
    label: int | None
    text: str
    index: int | None = None

    def facts(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """What answers say about it."""
        return {
            "text": self.text,
            "label": self.label,
            "class": None if self.label is None else classes[self.label],
            "index": self.index,
        }


def asked_image(text: str, student: Student, work: Work) -> Picture:
    """The image that ``text`` names (see ``IMAGE_HELP``), as ``student`` takes images. Raises ``Refused``."""
    kind, _, rest = text.strip().partition(":")
    if kind in ("test", "train"):
        data = data_of(student, work)
        images, labels = (
            (data.test_images, data.test_labels) if kind == "test" else (data.train_images, data.train_labels)
        )
        at = _place(rest, labels, student.classes, f"{kind} images of {data.title}")
        name = f"{kind} image {at} of {data.title}"
        return Picture(images[at : at + 1].float() / 255, int(labels[at]), name, at if kind == "test" else None)
    if kind == "synthetic":
        run, _, number = rest.rpartition(":")
        synthetic = asked_set(run, student, work)
        at = _index(number, len(synthetic.images), f"images of set {run}")
        return Picture(
            exact_pixels(synthetic, slice(at, at + 1)), int(synthetic.hard_labels[at]), f"image {at} of {run}"
        )
    if kind == "file":
        pixels = kept_picture(rest, student.facts["size"], student.facts["channels"], work.store.home)
        return Picture(pixels, None, "your picture")
    raise Refused(
        f"“{text[:80]}” names no image: write test:INDEX, train:INDEX, synthetic:RUN:INDEX or file:NAME, for example "
        "test:0."
    )


def _place(text: str, labels: Tensor, classes: tuple[str, ...], what: str) -> int:
    """The index among all images of ``INDEX``, or of ``CLASS:INDEX``, which counts within a class."""
    name, _, number = text.rpartition(":")
    if not name:
        return _index(text, len(labels), what)
    label = asked_class(name, classes)
    within = torch.nonzero(labels == label).flatten().tolist()
    return within[_index(number, len(within), f"{what} of class {classes[label]}")]


def _index(text: str, count: int, what: str) -> int:
    if not text.strip().isdecimal() or int(text) >= count:
        raise Refused(f"“{text[:40]}” is no index of the {count:,} {what}: they count from 0 to {count - 1}.")
    return int(text)


def asked_set(run: str, student: Student, work: Work) -> SyntheticSet:
    """The set that a run made, decoded so that each image is one picture.

    Raises ``Refused`` when there is none, or one that ``student`` cannot look at.
    """
    folder = work.store.result_folder(run)
    if folder is None:
        raise Refused(f"Run “{run[:80]}” has made no set that can be looked at; name a finished run.")
    synthetic = read_set(folder).decoded()
    shape = (student.facts["channels"], student.facts["size"], student.facts["size"])
    if tuple(synthetic.images.shape[1:]) != shape or synthetic.classes != student.classes:
        raise Refused(
            f"The set of run {run} stands for {synthetic.dataset}, but {student.name} knows {student.dataset}; choose "
            "a set and students of one dataset."
        )
    return synthetic


def exact_pixels(synthetic: SyntheticSet, which: Any) -> Tensor:
    """Images of a set in pixel space, as training used them: not cut off at 0 and 1."""
    images = synthetic.images[which]
    images = synthetic.zca.unwhiten(images) if synthetic.zca else images
    return images * torch.tensor(synthetic.std).view(-1, 1, 1) + torch.tensor(synthetic.mean).view(-1, 1, 1)


def kept_picture(name: str, size: int, channels: int, home: Path) -> Tensor:
    """A PNG that a page kept under ``home/uploads``, cut to its central square and resized: (1, C, size, size) in
    [0, 1]. Raises ``Refused`` for anything else than a sound PNG of moderate size."""
    if not KEPT_FILE.fullmatch(name):
        raise Refused("That is no name of a kept picture: it has 24 hexadecimal digits and ends in .png.")
    path = home / "uploads" / name
    if path.is_symlink() or not path.is_file():
        raise Refused("That picture is not here any more; upload or draw it again.")
    if path.stat().st_size > MAX_BYTES:
        raise Refused(f"The picture is larger than {MAX_BYTES // 1_000_000} MB; save it smaller.")
    content = path.read_bytes()
    # The size stands in the first chunk: signature, length, IHDR, width, height.
    if content[:8] != PNG or content[12:16] != b"IHDR":
        raise Refused("The picture is not a PNG; save it as one.")
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise Refused(f"The picture has {width}×{height} pixels; sides may have 1 to {MAX_SIDE:,}.")
    try:
        image = open_image(content, size)
    except Unreadable as problem:
        raise Refused(f"The picture cannot be read ({problem}); save it again as PNG.") from None
    image = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image).reshape(size, size, channels)).permute(2, 0, 1)[None].float() / 255


def kept_mask(text: str, size: int, home: Path) -> Tensor:
    """The mask that ``file:NAME`` names: (size, size) bool, True where the picture is bright."""
    kind, _, name = text.strip().partition(":")
    if kind != "file":
        raise Refused("Name the mask as file:NAME: a kept picture that is bright on the object and dark elsewhere.")
    mask = kept_picture(name, size, 1, home)[0, 0] > 0.5
    if not 0.005 <= float(mask.float().mean()) <= 0.9:
        raise Refused("The mask must mark an object: more than nothing, and less than nine tenths of the picture.")
    return mask


def drawn_tests(data: Dataset, count: int, seed: int) -> Tensor:
    """Indices (int64) of ``count`` test images drawn at random, or of all where there are fewer, ascending."""
    order = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(seed))
    return order[:count].sort().values


# ---- targets ---------------------------------------------------------------------------------------------------------


def asked_class(text: str, classes: tuple[str, ...]) -> int:
    """A class by its name or number. Raises ``Refused``."""
    word = text.strip()
    names = [name.lower() for name in classes]
    if word.lower() in names:
        return names.index(word.lower())
    if word.isdecimal() and int(word) < len(classes):
        return int(word)
    raise Refused(f"There is no class “{word[:60]}”; there are {', '.join(classes)}.")


def asked_target(text: str, picture: Picture, predicted: int, classes: tuple[str, ...]) -> int:
    """The class whose logit is explained: ``predicted``, ``true``, or a class by name or number."""
    if text == "predicted":
        return predicted
    if text == "true":
        if picture.label is None:
            raise Refused("Nobody has said what your picture shows: choose predicted, or a class, as the target.")
        return picture.label
    return asked_class(text, classes)
