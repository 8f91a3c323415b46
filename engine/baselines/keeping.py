"""What baselines learned from a short training, kept on disk so that the second use costs nothing."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.accel import Accel
from engine.data.base import Dataset
from engine.home import aside, cache_folder

KEPT_FILES = 6


def place(folder: str, data: Dataset, accel: Accel, *settings: object) -> Path:
    """The file of this data (every training pixel, label, mean and deviation), device and ``settings``."""
    device = f"{accel.device.type}{16 if accel.bf16 else 32}"
    return cache_folder(folder) / f"{'-'.join([data.digest, *map(str, settings), device])}.safetensors"


def kept(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None when there is none that can be read."""
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    path.touch()
    return tensors


def keep(tensors: dict[str, Tensor], path: Path) -> None:
    """Write aside and rename; of more than a few files, drop those unused for longest."""
    with aside(path) as part:
        save_file(tensors, part)
    files = sorted(path.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    for file in files[:-KEPT_FILES]:
        file.unlink(missing_ok=True)
