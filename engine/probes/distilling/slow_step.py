"""Probe ``slow-step``: one step of a distillation, taken apart.

The images of a frame are put into a distiller of the run's own settings, with networks and real images of their own,
which takes one step: what it looks at, the gradient on the pixels, and how far the pixels move are what is shown. It is
a step as the run took them, not one that it took.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.distill import make_distiller
from engine.distill.images import watched
from engine.errors import Refused
from engine.probes.answerer import Work
from engine.probes.attribution.pictures import coloured, enlarged, key, sheet, shown
from engine.probes.desk import Answer
from engine.probes.distilling.common import asked_run, frame_images
from engine.probes.distilling.specs import SlowStepSpec

ROWS = 3  # images of a class that are shown
PATIENCE = 120.0  # seconds for what has to be there before a step: experts, pre-trained networks


def answer(spec: SlowStepSpec, work: Work) -> Answer:
    """See ``SlowStepSpec``."""
    run, data, steps = asked_run(work, spec.run)
    step = spec.step if spec.step is not None else steps[-1]
    step = max((s for s in steps if s <= step), default=steps[0])
    pixels = frame_images(work.store, spec.run, step, run.ipc)
    work.tell(0.1, "Setting up the method")
    distiller: Any = make_distiller(run.method)
    distiller.progress = 0.0
    distiller.setup(run.model_copy(update={"seed": spec.seed}), data, work.accel)
    before = data.normalise(pixels)
    before = distiller.zca.whiten(before) if distiller.zca else before
    with torch.no_grad():
        distiller.images.copy_(before)
    gradient, seen, loss, seconds = _take(distiller, work)
    moved = distiller.synthetic().pixels() - pixels.float() / 255

    pulls, moves = gradient.mean(1).numpy(), moved.mean(1).numpy()
    most, farthest = (float(np.quantile(np.abs(x), 0.995)) or 1e-12 for x in (pulls, moves))
    big = enlarged(data.size, 64)
    parts = {
        "real": _real(seen, data),
        "before": _grid([shown(image) for image in pixels.float() / 255], run.ipc),
        "gradient": _grid([coloured(-pull, most) for pull in pulls], run.ipc),
        "moved": _grid([coloured(move, farthest) for move in moves], run.ipc),
        "key": key(1.0, True),
    }
    strength = gradient.flatten(1).norm(dim=1).view(len(data.classes), -1).mean(1)
    table = [{"class": c, "gradient": float(g)} for c, g in zip(data.classes, strength, strict=True)]
    facts = {
        "step": step, "method": run.method, "classes": list(data.classes), "loss": loss, "seconds": seconds,
        "real": len(seen), "moved": farthest,
    }  # fmt: skip
    images = {name: work.picture(name, picture, 1 if name == "key" else big) for name, picture in parts.items()}
    return Answer(tables={"classes": table}, facts=facts, images=images)


def _take(distiller: Any, work: Work) -> tuple[Tensor, Tensor, float, float]:
    """Take a step: the gradient on the images (N, C, H, W), the indices of the real images it saw, loss and seconds."""
    caught: list[Tensor] = []
    step = distiller.optimiser.step

    def caught_step(*args: Any, **keywords: Any) -> Any:
        caught.append(distiller.images.grad.detach().float().cpu().clone())
        return step(*args, **keywords)

    distiller.optimiser.step = caught_step
    end = time.perf_counter() + PATIENCE
    while True:
        began = time.perf_counter()
        with watched() as seen:
            report = distiller.step()
        if report.loss is not None and caught:
            indices = torch.cat(seen).unique() if seen else torch.empty(0, dtype=torch.int64)
            return caught[-1], indices, float(report.loss), time.perf_counter() - began
        if began > end:
            raise Refused("What this method prepares before its first step takes too long here; ask about another run.")
        work.tell(0.3, report.note or "Preparing the first step")


def _real(seen: Tensor, data: Dataset) -> np.ndarray:
    """Some of the real images of each class that the step saw, in the classes' columns."""
    columns = []
    for c in range(len(data.classes)):
        members = seen[data.train_labels[seen] == c][:ROWS]
        columns.append([shown(image.float() / 255) for image in data.train_images[members]])
    blank = np.full((data.size, data.size, 3), 255, np.uint8)
    return sheet([[column[r] if r < len(column) else blank for column in columns] for r in range(ROWS)])


def _grid(images: list[np.ndarray], ipc: int) -> np.ndarray:
    """Images, class after class, in the classes' columns; of each class the first few."""
    return sheet([images[r::ipc] for r in range(min(ipc, ROWS))])
