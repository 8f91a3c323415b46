"""A folder or zip of images by class, as a ``Dataset``."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from engine.data.assemble import split_by_class, statistics
from engine.data.base import Dataset
from engine.data.catalogue import FOLDER, Progress
from engine.data.folder_check import Folder, Found, Unreadable, left_out, open_image, opened
from engine.errors import Refused

SIZES = (28, 64)
MAX_VALUES = 4_000_000_000  # bytes of all decoded images together


def load(name: str, size: int = 32, progress: Progress | None = None) -> Dataset:
    """The images under ``folder:PATH``, each cut to its central square and resized to ``size`` (28 to 64) pixels.

    Where there is no test part, a fifth of every class is put aside for testing, the same one every time. The images
    are grey when all of them are. Images that cannot be read are left out and named in ``Dataset.notes``. Raises
    ``Refused``.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise Refused(f"Images of a folder are resized to {SIZES[0]} to {SIZES[1]} pixels, not {size}.")
    path = Path(name.removeprefix(FOLDER).strip()).expanduser().resolve()
    with opened(path) as folder:
        everything = [*folder.train, *folder.test]
        if len(everything) * 3 * size * size > MAX_VALUES:
            raise Refused(
                f"{path.name} holds {len(everything):,} images, too many at {size} pixels; take a part of them."
            )
        images, unreadable = _decode(folder, everything, size, progress)
        notes = list(folder.warnings)
        kept = np.ones(len(everything), bool)
        if unreadable:
            notes.append(left_out([(everything[at], why) for at, why in sorted(unreadable.items())], len(everything)))
            kept[list(unreadable)] = False
        labels = np.array([found.label for found in everything])
        is_test = np.arange(len(everything)) >= len(folder.train)
        folder.check_counts(labels[kept & ~is_test].tolist(), labels[kept & is_test].tolist(), bool(folder.test))
        classes, has_test = folder.classes, bool(folder.test)
    if (images == images[..., :1]).all():
        images = images[..., :1]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    train = torch.from_numpy(np.flatnonzero(kept & ~is_test))
    test = torch.from_numpy(np.flatnonzero(kept & is_test))
    targets = torch.from_numpy(labels)
    if not has_test:
        first, second = split_by_class(targets[train], 0.2, seed=0)
        train, test = train[first], train[second]
        notes.append("There is no test folder: a fifth of every class is kept for testing.")
    mean, std = statistics(pixels[train])
    return Dataset(
        name,
        path.stem or str(path),
        classes,
        pixels[train].contiguous(),
        targets[train],
        pixels[test].contiguous(),
        targets[test],
        mean,
        std,
        notes=tuple(notes),
    )


def _decode(
    folder: Folder, found: list[Found], size: int, progress: Progress | None
) -> tuple[np.ndarray, dict[int, str]]:
    """Images (N, size, size, 3) uint8, and why those that cannot be read cannot, by index."""
    images = np.zeros((len(found), size, size, 3), np.uint8)
    unreadable: dict[int, str] = {}
    stopping = threading.Event()

    def part(start: int) -> int:
        for at in range(start, min(start + 64, len(found))):
            if stopping.is_set():
                break
            try:
                images[at] = _square(open_image(folder.read(found[at]), size), size)
            except Unreadable as problem:
                unreadable[at] = str(problem)
        return min(start + 64, len(found))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            with contextlib.closing(pool.map(part, range(0, len(found), 64))) as parts:  # type: ignore[type-var]
                for done in parts:
                    if progress:
                        progress(done / len(found), "Reading the images.")
        finally:
            stopping.set()
    return images, unreadable


def _square(image: Image.Image, size: int) -> np.ndarray:
    """The central square of an image, resized with antialiasing: (size, size, 3) uint8."""
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS).convert("RGB"))
