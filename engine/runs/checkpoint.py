"""Checkpoints of a run: written aside and renamed, the last two kept, tensors and plain values only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from engine.home import aside

FORMAT = 1


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``step`` into ``folder`` and forget all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    with aside(folder / f"{step:09d}.pt") as part, part.open("wb") as file:
        torch.save({"format": FORMAT, "step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    for path in _all(folder)[2:]:
        path.unlink(missing_ok=True)
    for path in folder.glob(".*"):  # what a killed writer left
        path.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. A damaged one is skipped in favour of the one before."""
    for path in _all(folder):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # whatever a damaged archive makes torch raise, the one before may be whole
            continue
        if isinstance(state, dict) and state.get("format") == FORMAT:
            return state
    return None


def retire(folder: Path, into: Path, largest: int) -> None:
    """Give up ``folder``; its newest checkpoint goes ``into`` another where it has at most ``largest`` bytes."""
    found = _all(folder)[:1]
    if found and found[0].stat().st_size <= largest:
        into.mkdir(exist_ok=True)
        os.replace(found[0], into / found[0].name)
    shutil.rmtree(folder, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    """Checkpoint files, newest first."""
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)
