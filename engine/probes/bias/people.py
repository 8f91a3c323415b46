"""Published cue-conflict stimuli, and how people and other networks decided on them (torch-free).

Geirhos et al., "ImageNet-trained CNNs are biased towards texture", ICLR 2019: stimuli of sixteen categories named
``shape1-texture2.png``, and a table of single decisions of ten people and of networks on the same stimuli.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from engine.data.folder_check import (
    Unreadable,
    _walk,
    name_of,
    open_image,
    open_zip,
    presentable,
    read_file,
    read_member,
    safe_members,
)
from engine.errors import Refused
from engine.home import data_folder

STIMULI = "texture-vs-shape.zip"
DECISIONS = "-decisions.csv"
CATEGORIES = (
    "airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat", "chair", "clock", "dog", "elephant",
    "keyboard", "knife", "oven", "truck",
)  # fmt: skip
CALLED = {"ship": "boat", "automobile": "car", "aeroplane": "airplane", "plane": "airplane", "bike": "bicycle"}
NETWORKS = {
    "resnet50": "ResNet-50",
    "alexnet": "AlexNet",
    "googlenet": "GoogLeNet",
    "vgg": "VGG-16",
    "vgg16": "VGG-16 (torchvision)",
    "alexnet_train_60_epochs_lr0.001": "AlexNet, trained on stylised images",
    "vgg16_train_60_epochs_lr0.01": "VGG-16, trained on stylised images",
}
MAX_STIMULI = 2000  # each is kept as up to 200 kB
MAX_SECONDS = 120
MAX_TABLE = 50_000_000  # bytes
COLUMNS = ("observer", "image", "shape", "texture", "response")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_CONFLICT = re.compile(r"^(?:.*_)?([a-z]+)\d*-([a-z]+)\d*$")
_SINGLE = re.compile(r"^(?:.*_)?([a-z]+)\d*$")


@dataclass(frozen=True)
class Picture:
    """A ready stimulus: its stem, the category of its shape and of its texture (the same for silhouettes and edges),
    and its pixels, (H, W, 3) uint8."""

    name: str
    shape: str
    texture: str
    pixels: np.ndarray


def category(name: str) -> str:
    """The category that a class stands for: CIFAR-10's ship is a boat, its automobile a car."""
    lower = name.strip().lower()
    return CALLED.get(lower, lower)


def stimuli_path(given: str | None) -> Path | None:
    """Where ready stimuli are: the folder or .zip that was given, or the one among the data; None where it is not."""
    if given is None:
        folder = data_folder()
        return folder / STIMULI if folder and (folder / STIMULI).is_file() else None
    try:
        path = Path(given).expanduser().resolve()
        there = path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip")
    except (OSError, ValueError, RuntimeError):
        there = False
    if not there:
        raise Refused(
            f"There is no folder and no .zip at “{presentable(given)}”; give the path of one with ready stimuli."
        )
    return path


def read_pictures(path: Path, kind: str, categories: Sequence[str]) -> list[Picture]:
    """The stimuli of ``kind`` (cue-conflict, silhouettes or edges) whose categories are all among ``categories``.

    Files lie in a folder of that name, at any depth; where there is none, all files are cue-conflict stimuli. Digits
    at the end of a category are dropped. In the order of their names. Raises ``Refused`` for a zip or folder that
    cannot be trusted or read.
    """
    title = name_of(path)
    with open_zip(path) if path.is_file() else nullcontext() as archive:
        members = dict(safe_members(archive, title)) if archive else {}
        names = sorted(n for n in (members if archive else _walk(path)) if n.lower().endswith(SUFFIXES))
        inside = [n for n in names if kind in (part.lower() for part in PurePosixPath(n).parts[:-1])]
        if kind == "cue-conflict":
            inside = inside or names
        chosen = []
        for name in inside:
            stem = PurePosixPath(name).stem
            found = (_CONFLICT if kind == "cue-conflict" else _SINGLE).match(stem.lower())
            if found is None:
                wanted = "shape1-texture2.png" if kind == "cue-conflict" else "shape1.png"
                raise Refused(f"{title} holds {presentable(name)}, but stimuli are named like {wanted}; rename it.")
            shape, texture = category(found[1]), category(found[found.lastindex or 1])
            if shape in categories and texture in categories:
                chosen.append((stem, shape, texture, name))
        if len(chosen) > MAX_STIMULI:
            raise Refused(f"{title} holds more than {MAX_STIMULI:,} stimuli; take a part of them.")
        pictures, until = [], time.monotonic() + MAX_SECONDS
        for stem, shape, texture, name in chosen:
            if time.monotonic() > until:
                raise Refused(f"{title} takes more than {MAX_SECONDS} s to read; make its images smaller, or fewer.")
            try:
                content = read_member(archive, members[name], title) if archive else read_file(path, name)
                image = open_image(content, 64).convert("RGB")
            except Unreadable as problem:
                raise Refused(f"{title} holds an image that cannot be read ({presentable(name)}: {problem}).") from None
            pictures.append(Picture(stem, shape, texture, _square(image)))
        return pictures


def _square(image: Image.Image) -> np.ndarray:
    """The central square, at most 256 pixels wide."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((min(side, 256),) * 2, Image.Resampling.LANCZOS) if side > 256 else image)


@dataclass(frozen=True)
class Observer:
    """Somebody, or a network, who decided on stimuli: ``responses`` by the stem of the stimulus."""

    name: str
    person: bool
    responses: dict[str, str]


def observers(path: Path) -> list[Observer]:
    """Who decided on the stimuli at ``path``, from the table beside it (``NAME-decisions.csv``); none without one.

    A network that is there twice counts as two.
    """
    table = path.with_name(path.stem + DECISIONS)
    if not table.is_file():
        return []
    stat = table.stat()
    if stat.st_size > MAX_TABLE:
        raise Refused(f"{table.name} is larger than {MAX_TABLE // 1_000_000} MB; a table of decisions is not.")
    return _observers(table, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _observers(table: Path, _: int) -> list[Observer]:
    found: dict[tuple[str, int], dict[str, str]] = {}
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise Refused(f"{table.name} must have the columns {', '.join(COLUMNS)}.")
            seen: dict[tuple[str, str], int] = {}
            for row in rows:
                if None in row.values() or None in row:
                    raise Refused(f"{table.name} has a line with missing or further values.")
                who, image = row["observer"], row["image"]
                turn = seen[who, image] = seen.get((who, image), 0) + 1
                found.setdefault((who, turn), {})[image] = category(row["response"])
    except (OSError, UnicodeDecodeError, csv.Error):
        raise Refused(f"{table.name} cannot be read; it must be a table of text, separated by commas.") from None
    return [_observer(who, turn, responses) for (who, turn), responses in found.items()]


def _observer(who: str, turn: int, responses: dict[str, str]) -> Observer:
    person = who.startswith("subject")
    name = f"Person {who.rpartition('-')[2].lstrip('0')}" if person else NETWORKS.get(who, who)
    return Observer(name if turn == 1 else f"{name} ({turn})", person, responses)
