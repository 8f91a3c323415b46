"""Runs as a worker leaves them, made in no time, for the tests of what is exported of them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from engine.runs.film import encode, write_result
from engine.runs.store import Store
from engine.spec import build_spec
from engine.synthetic import SyntheticSet

DIGITS = tuple("0123456789")
ACCURACIES = [0.81, 0.83, 0.82]


def evaluation(protocol: str = "dc", accuracies: list[float] = ACCURACIES, network: str = "convnet") -> dict[str, Any]:
    """What a worker keeps of an evaluation."""
    return {
        "mean": float(np.mean(accuracies)),
        "std": float(np.std(accuracies)),
        "accuracies": list(accuracies),
        "protocol": protocol,
        "network": network,
        "seconds": 12.5,
        "split": "test",
        "seeds": list(range(len(accuracies))),
        "images": 360,
        "dataset": "digits",
    }


def pixels(step: int, rows: int, side: int, channels: int, columns: int = 10) -> np.ndarray:
    """The frame of a step: cell (row, column) has the brightness ``20 * column + 5 * row + step % 5``."""
    cells = 20 * np.arange(columns)[None, :] + 5 * np.arange(rows)[:, None] + step % 5 + 1
    grid = cells.repeat(side, 0).repeat(side, 1).astype(np.uint8)
    return grid[:, :, None].repeat(channels, 2)


def a_set(ipc: int = 2, side: int = 16, dataset: str = "digits", **more: Any) -> SyntheticSet:
    """A set of grey digits, each image all of one brightness."""
    images = torch.linspace(-1, 1, 10 * ipc).view(-1, 1, 1, 1).expand(-1, 1, side, side).clone()
    labels = more.pop("labels", torch.arange(10).repeat_interleave(ipc))
    return SyntheticSet(images, labels, dataset, DIGITS, (0.5,), (0.25,), **{"protocol": "dc", **more})


def a_run(
    store: Store,
    steps: tuple[int, ...] = (0, 1, 5, 20),
    *,
    ipc: int = 2,
    side: int = 16,
    channels: int = 1,
    title: str = "",
    classes: tuple[str, ...] = DIGITS,
    evaluations: tuple[dict[str, Any], ...] = (evaluation(),),
    result: SyntheticSet | None = None,
    **values: Any,
) -> str:
    """A finished distillation with a frame, a loss and an accuracy at every step."""
    spec = build_spec("distill", **{"dataset": "digits", "method": "dc", "ipc": ipc, "steps": 20, **values})
    id = store.submit("distill", spec, title, pid=os.getpid())
    layout = {
        "columns": len(classes), "rows": ipc, "size": side, "channels": channels, "classes": list(classes),
        "cells": list(range(len(classes))), "machine": "a CPU",
    }  # fmt: skip
    store.append(id, [("layout", 0, layout)])
    for step in steps:
        store.write_frame(id, step, encode(pixels(step, ipc, side, channels, len(classes))))
        measured = {"accuracy": 0.5 + step / 100, "std": 0.01, "protocol": "quick", "students": 2, "split": "held-out"}
        metric = {"loss": 3.0 / (step + 1), "seconds": step / 2, "rate": 2.0, "eta": None, "images_seen": 256}
        store.append(
            id,
            [
                ("frame", step, {"seconds": step / 2}),
                ("metric", step, metric),
                ("accuracy", step, {**measured, "seconds": step / 2, "step": step}),
            ],
        )
    reference = {"label": "Random real images", "kind": "random", "accuracy": 0.6, "std": 0.02, "protocol": "quick"}
    store.append(id, [("reference", 0, {**reference, "split": "held-out", "draws": 3})])
    for one in evaluations:
        store.add_evaluation(id, one)
    if channels == 1 and classes == DIGITS:
        (store.folder(id) / "result").mkdir()
        write_result(store, id, result or a_set(ipc, side))
    store.update(id, step=steps[-1], seconds=steps[-1] / 2, progress=1.0)
    store.announce(id, "done", "Done.", step=steps[-1])
    return id
