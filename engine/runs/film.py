"""The frames of a run: what the synthetic images looked like, step by step."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from engine.exchange import export_pt
from engine.home import aside
from engine.runs.cells import laid_out
from engine.runs.store import Store
from engine.synthetic import SyntheticSet

KEEP = 240  # frames kept of the past, evenly spaced …
RECENT = 60  # … and of the last steps, all of which viewers may be fetching
WEBP_SIDE = 16_383
PIXELS = 16_000_000
SHARES = 2000  # images up to which each one's share of the gradient is told
TENSORS = 200_000  # bytes of a set up to which its tensors are kept with every frame: 60 MB a run at most


class Film:
    """Writes layout and frames of one run.

    A frame has one column per class and the images of that class top to bottom, at native size and without padding;
    cells without an image are black. Small sets are also kept as tensors with every frame. Of frames further back than
    the last ``RECENT``, every 2^k-th is kept, with k rising so that they stay below ``KEEP``: the past is evenly spaced
    whatever the length of the run.
    """

    def __init__(self, store: Store, id: str, state: dict[str, Any] | None = None):
        self.store, self.id = store, id
        self.shots: list[list[int]] = []  # [number, step], ascending
        if state:
            there, told = set(store.frames(id)), {e.step for e in store.events(id, kinds=("frame",), limit=100_000)}
            self.shots = [[number, step] for number, step in state["shots"] if step in there]
            # Who was killed while filming left a frame without its event, or the other way round, or both of a step
            # that the state does not know of, and that would be told a second time.
            store.drop_frames(id, (there | told) - {step for _, step in self.shots})
        self.stride: int = state["stride"] if state else 1
        self.places: list[int] | None = list(state["places"]) if state else None  # class column of each image
        self.rows = self.columns = self.every = 0

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on filming; plain numbers and lists."""
        return {"shots": self.shots, "stride": self.stride, "places": self.places}

    def layout(self, synthetic: SyntheticSet, machine: str) -> None:
        """Fix where each image goes (``arrange``), and say so in the ``layout`` event (once a run)."""
        self.arrange(synthetic)
        if not self.store.events(self.id, kinds=("layout",), limit=1):
            event = {
                "columns": self.columns,
                "rows": self.rows,
                "size": -(-synthetic.images.shape[-1] // self.every),
                "channels": synthetic.images.shape[1],
                "classes": list(synthetic.classes),
                "cells": list(range(self.columns)),
                "machine": machine,
            }
            self.store.append(self.id, [("layout", 0, event)])

    def arrange(self, synthetic: SyntheticSet) -> None:
        """Fix where each image goes, by the labels it has now, unless that is known from before."""
        if self.places is None:
            self.places = synthetic.hard_labels.tolist()
        self.columns = len(synthetic.classes)
        side = synthetic.images.shape[-1]
        self.every = -(-self.columns * side // WEBP_SIDE)  # very wide grids are shown coarser
        side = -(-side // self.every)
        tallest = max(self.places.count(c) for c in set(self.places))
        self.rows = max(1, min(tallest, WEBP_SIDE // side, PIXELS // (self.columns * side * side)))

    def shoot(
        self, synthetic: SyntheticSet, step: int, seconds: float, seen: int | None = None, pull: Tensor | None = None
    ) -> None:
        """Write the frame of ``step`` and its event, unless it is the last one's; thin out the past.

        ``seen``: how many real images were looked at until then. ``pull``: the squared gradient (N,) on each image; its
        shares are what each adds to how fast the loss falls, to first order, and are told in thousandths.
        """
        if self.shots and self.shots[-1][1] == step and self.store.frame_path(self.id, step):
            return
        self.store.write_frame(self.id, step, encode(self.grid(synthetic)))
        keep_tensors(self.store, self.id, step, synthetic)
        event: dict[str, Any] = {"seconds": round(seconds, 3)}
        if seen is not None:
            event["images_seen"] = seen
        if pull is not None and 0 < len(pull) <= SHARES and float(pull.sum()) > 0:
            event["shares"] = self.cells((1000 * pull / pull.sum()).round().int().tolist())
        self.store.append(self.id, [("frame", step, event)])
        self.shots.append([self.shots[-1][0] + 1 if self.shots else 0, step])
        self._thin()

    def drop(self, step: int) -> None:
        """Forget the frame of ``step`` if it is the last one, for another in its place."""
        if self.shots and self.shots[-1][1] == step:
            self.store.drop_frames(self.id, [step])
            self.shots.pop()

    def grid(self, synthetic: SyntheticSet) -> np.ndarray:
        """The frame as uint8 (rows·size, columns·size, channels)."""
        assert self.places is not None
        images = synthetic.to_display().numpy()[:, :, :: self.every, :: self.every]
        channels, side = images.shape[1], images.shape[2]
        grid = np.zeros((self.rows, side, self.columns, side, channels), np.uint8)
        for place, index in enumerate(self.cells(list(range(len(images))))):
            if index is not None:
                grid[place // self.columns, :, place % self.columns] = images[index].transpose(1, 2, 0)
        return grid.reshape(self.rows * side, self.columns * side, channels)

    def cells(self, values: list[Any]) -> list[Any]:
        """What belongs to each image, as a frame shows them: row by row, None in cells without an image."""
        assert self.places is not None
        return laid_out(values, self.places, self.rows, self.columns)

    def _thin(self) -> None:
        past = self.shots[:-RECENT]
        while sum(number % self.stride == 0 for number, _ in past) > KEEP:
            self.stride *= 2
        gone = [step for number, step in past if number % self.stride]
        if gone:
            self.store.drop_frames(self.id, gone)
            self.shots = [s for s in past if s[0] % self.stride == 0] + self.shots[-RECENT:]


def encode(grid: np.ndarray) -> bytes:
    """A uint8 grid (H, W, 1 or 3) as lossless WebP, the fast way."""
    image = Image.fromarray(grid[:, :, 0] if grid.shape[2] == 1 else grid)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=0, quality=0)
    return buffer.getvalue()


def keep_tensors(store: Store, id: str, step: int, synthetic: SyntheticSet) -> None:
    """Keep images (in model space), labels and step sizes behind a frame, for forks, where they are small."""
    found = {"images": synthetic.images, "labels": synthetic.labels, "step_sizes": synthetic.step_sizes}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in found.items() if tensor is not None}
    if sum(t.numel() * t.element_size() for t in tensors.values()) > TENSORS:
        return
    path = store.tensors_path(id, step)
    path.parent.mkdir(exist_ok=True)
    with aside(path) as part:
        part.write_bytes(save(tensors))


def publish(store: Store, id: str, synthetic: SyntheticSet, machine: str = "") -> None:
    """Write a set that is finished from the start as a run's one frame and its result."""
    film = Film(store, id)
    film.layout(synthetic, machine)
    film.shoot(synthetic, 0, 0.0)
    write_result(store, id, synthetic)


def write_result(store: Store, id: str, synthetic: SyntheticSet) -> None:
    """A run's result: safetensors and json, and ``papers.pt``, which pages could not write, for the papers' code."""
    folder = store.folder(id) / "result"
    folder.mkdir(exist_ok=True)
    export_pt(synthetic, folder / "papers.pt")
    synthetic.save(folder)  # last: with its json the result is there
