"""How a fork begins, from what its folder holds of another run (``engine.forks`` put it there)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.data.base import Dataset
from engine.distill.images import whitening
from engine.errors import Refused
from engine.forks import FRAME, LAYOUT, TENSORS
from engine.runs import checkpoint
from engine.spec import Fork, RunSpec

GONE = "What this fork starts from is damaged or gone; fork again."


def first_film(spec: RunSpec, data: Dataset) -> dict[str, Any] | None:
    """The state of a fork's film before its first frame: each image stands where it stood in the film of its parent,
    whatever label was learned for it. None for a run that is no fork."""
    if spec.fork is None:
        return None
    places = torch.arange(len(data.classes)).repeat_interleave(spec.ipc).tolist()
    return {"shots": [], "stride": 1, "places": places}


def begin(folder: Path, spec: RunSpec, data: Dataset, distiller: Any) -> dict[str, Any] | None:
    """Have a distiller that was set up begin where the fork does; nothing happens where the run is none.

    Returns the parent's whole state, a checkpoint, where the fork goes on from that. Raises ``Refused`` where the
    ``folder`` does not hold what it should.
    """
    fork = spec.fork
    if fork is None:
        return None
    if fork.source == "state":
        state = checkpoint.load(folder)
        if state is None:
            raise Refused(GONE)
        return state
    if not hasattr(distiller, "start_from"):
        raise Refused(f"The method {spec.method} makes its own initial images; it cannot start from those of a run.")
    try:
        found = _tensors(folder / TENSORS) if fork.source == "tensors" else _frame(folder, spec, data)
    except (OSError, KeyError, ValueError, TypeError, SafetensorError, UnidentifiedImageError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(GONE) from None
    images = found["images"].float()
    if images.shape != distiller.images.shape:
        has, needs = (" × ".join(map(str, tensor.shape)) for tensor in (images, distiller.images))
        raise Refused(f"The images of step {fork.step:,} are {has}, but this run's would be {needs}; fork another run.")
    labels = found.get("labels")
    with torch.no_grad():
        distiller.start_from(
            _in_space(images, fork, spec, data, distiller.zca).to(distiller.images.device),
            labels.to(distiller.images.device) if labels is not None and labels.is_floating_point() else None,
            found.get("step_sizes") if "method" not in fork.changed else None,
        )
    return None


def _tensors(path: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load_file(path).items() if bool(torch.isfinite(tensor).all())}


def _frame(folder: Path, spec: RunSpec, data: Dataset) -> dict[str, Tensor]:
    """The images of a frame, class after class, as normalised images; see ``Film`` for where they are in it."""
    layout = json.loads((folder / LAYOUT).read_text())
    with Image.open(folder / FRAME, formats=("WEBP",)) as picture:
        pixels = np.asarray(picture.convert("L" if data.channels == 1 else "RGB"))
    rows, columns, side = layout["rows"], layout["columns"], layout["size"]
    if (rows, columns, side) != (spec.ipc, len(data.classes), data.size):
        raise Refused(
            f"The film shows {rows} × {columns} images of {side} pixels, but the run has {spec.ipc} × "
            f"{len(data.classes)} of {data.size}: not all that a fork needs."
        )
    cells = torch.from_numpy(pixels.copy()).view(rows, side, columns, side, data.channels)
    images = cells.permute(2, 0, 4, 1, 3).reshape(columns * rows, data.channels, side, side)
    return {"images": data.normalise(images)}


def _in_space(images: Tensor, fork: Fork, spec: RunSpec, data: Dataset, zca: Any) -> Tensor:
    """Images of the parent's space, or normalised ones of a frame, in the space of this run."""
    whitened = fork.source == "tensors" and spec.zca != ("zca" in fork.changed)
    if whitened == spec.zca:
        return images
    return zca.whiten(images) if spec.zca else whitening(data, spec.method).unwhiten(images)
