"""Where real images come from: ``load`` any dataset of the catalogue, or a folder of images by class.

Torch comes in with the first dataset that is loaded: pages import the catalogue and the checker of folders from here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.catalogue import DATASETS, FOLDER, Progress, availability, folder_path, locate, unknown
from engine.errors import Refused

if TYPE_CHECKING:
    from engine.data.base import Dataset

__all__ = ["load"]

_KEPT = 4
_loaded: OrderedDict[Any, Dataset] = OrderedDict()
_lock = threading.Lock()


def load(name: str, size: int = 32, progress: Progress | None = None) -> Dataset:
    """The dataset ``name``: a catalogue id, or ``folder:PATH`` of a folder or .zip of images by class.

    ``size``: side in pixels, 28 to 64, to which the images of a folder are resized; the catalogue's have their own.
    ``progress`` hears of a fraction in [0, 1] and a sentence while files are fetched or decoded. The last few datasets
    are kept in memory, for as long as their files stay the same. Raises ``Refused``.
    """
    if name.startswith(FOLDER):
        path = folder_path(name)
        if path is None:
            raise Refused(availability(name).sentence)
        key: Any = (name, size, _fingerprint(path))
    elif name in DATASETS:
        found = locate(name)
        key = (name, found and tuple(_fingerprint(found[0] / file) for file in found[1]))
    else:
        raise Refused(unknown(name))
    with _lock:
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
    dataset = _load(name, size, progress)
    with _lock:
        _loaded[key] = dataset
        while len(_loaded) > _KEPT:
            _loaded.popitem(last=False)
    return dataset


def _load(name: str, size: int, progress: Progress | None) -> Dataset:
    # Each source brings its own large imports, so that digits do not wait for torchvision.
    if name.startswith(FOLDER):
        from engine.data import folder

        return folder.load(name, size, progress)
    if name == "digits":
        from engine.data import digits

        return digits.load()
    if name == "shapes":
        from engine.data import shapes

        return shapes.load()
    from engine.data import downloads

    return downloads.load(name, progress)


def _fingerprint(path: Path) -> tuple[str, int, int] | None:
    """What changes when a file does; of a folder, when an image or a class is added, removed or replaced."""
    try:
        stat = path.stat()
        if path.is_dir():
            levels = ("*/", "*/*/", "*/*/*/")
            inside = [p.stat().st_mtime_ns for level in levels for p in path.glob(level)]
            return str(path.resolve()), len(inside), max([stat.st_mtime_ns, *inside])
        return str(path.resolve()), stat.st_size, stat.st_mtime_ns
    except OSError:
        return None
