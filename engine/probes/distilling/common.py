"""What both questions about a distillation begin with."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.runs.store import Store
from engine.spec import RunSpec


def asked_run(work: Work, id: str) -> tuple[RunSpec, Dataset, list[int]]:
    """The spec of a distillation, its dataset and the steps of its frames. Raises ``Refused`` where there are none."""
    run = work.store.run(id)
    if run is None or run.kind != "distill":
        raise Refused(f"There is no distillation “{id[:60]}” here; “python -m engine runs list” shows those there are.")
    steps = work.store.frames(id)
    if not steps:
        raise Refused("This run has no frame yet; wait until its first images are there.")
    spec = RunSpec.model_validate(run.spec)
    return spec, load(spec.dataset, spec.size), steps


def frame_images(store: Store, id: str, step: int, ipc: int) -> Tensor:
    """The images of a frame, class after class: (K·ipc, C, H, W) uint8.

    Raises ``Refused`` where the frame does not hold all of them at their own size, as it does of very large sets.
    """
    layout = store.events(id, kinds=("layout",), limit=1)
    path = store.frame_path(id, step)
    if not layout or path is None:
        raise Refused("The frame of this step is not kept any more; choose another.")
    about = layout[0].data
    rows, columns, channels = about["rows"], about["columns"], about["channels"]
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        grid = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    side = grid.shape[1] // columns
    if rows != ipc or side != about["size"]:
        raise Refused("The frames of this run do not show all of its images; choose one with fewer images per class.")
    cells = torch.from_numpy(grid.copy()).reshape(rows, side, columns, side, channels)
    return cells.permute(2, 0, 4, 1, 3).reshape(columns * rows, channels, side, side)
