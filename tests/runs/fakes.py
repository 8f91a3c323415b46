"""A tiny dataset, distiller, student and baseline: what a run needs, without what takes time."""

from __future__ import annotations

import dataclasses
import os
import threading
import time

import pytest
import torch

from engine import baselines, data, distill, students
from engine.data.base import Dataset
from engine.distill import Diverged, StepReport
from engine.distill.images import looked_at
from engine.runs.worker import run_job
from engine.synthetic import SyntheticSet, load_synthetic

CLASSES = tuple("0123456789")
_generator = torch.Generator().manual_seed(0)
DATA = Dataset(
    "digits",
    "Digits",
    CLASSES,
    torch.randint(0, 256, (500, 1, 28, 28), generator=_generator, dtype=torch.uint8),
    torch.arange(500) % 10,
    torch.randint(0, 256, (100, 1, 28, 28), generator=_generator, dtype=torch.uint8),
    torch.arange(100) % 10,
    (0.5,),
    (0.25,),
)


def make_set(images: torch.Tensor) -> SyntheticSet:
    labels = torch.arange(10).repeat_interleave(len(images) // 10)
    return SyntheticSet(images.clone(), labels, "digits", CLASSES, DATA.mean, DATA.std)


class RandomWalk:
    """A distiller whose images walk at random from their seed; it breaks at the steps it is told to."""

    pace = 0.01  # seconds a step takes
    diverges_at: int | None = None
    raises_at: int | None = None
    explodes = False
    zca = None

    def setup(self, spec, data, accel) -> None:
        self.done = 0
        self.images = torch.zeros(10 * spec.ipc, 1, 28, 28)
        self.generator = torch.Generator().manual_seed(spec.seed)

    def step(self) -> StepReport:
        time.sleep(self.pace)
        self.done += 1
        if self.done == self.diverges_at:
            self.images += torch.nan
            raise Diverged("The loss is no longer a finite number.")
        if self.done == self.raises_at:
            raise IndexError("a mistake in the method")
        if self.explodes:
            self.images *= 1.3
        # Both its own and torch's global generator: neither may notice what goes on between two steps.
        self.images += 0.1 * torch.randn(self.images.shape, generator=self.generator)
        self.images += 0.1 * (torch.rand(()) - 0.5)
        looked_at(torch.arange(7))
        return StepReport(self.done, 1 / self.done)

    def start_from(self, images, labels, step_sizes) -> None:
        self.images.copy_(images)

    def synthetic(self) -> SyntheticSet:
        return make_set(self.images)

    def conclude(self) -> str:
        return ""

    def state_dict(self):
        return {"done": self.done, "images": self.images, "generator": self.generator.get_state()}

    def load_state_dict(self, state) -> None:
        self.done, self.images = state["done"], state["images"].clone()
        self.generator.set_state(state["generator"])


@dataclasses.dataclass
class Result:
    mean: float
    std: float
    accuracies: list[float]
    protocol: str
    network: str
    seconds: float
    split: str
    seeds: list[int]

    def to_dict(self):
        return dataclasses.asdict(self)


def evaluate_slices(
    synthetic, data, protocol, *, network=None, seeds=3, seed=0, accel=None, split="test", limit=None, adjust=None
):
    for slice in range(4):
        torch.rand(3)  # a careless student that draws from the global generator
        time.sleep(0.01)
        yield slice / 4
    numbers = list(range(seed, seed + seeds))
    return Result(0.5, 0.1, [0.5] * seeds, protocol, network or "convnet", 0.04, split, numbers)


def make_baseline(kind, data, ipc, *, seed=0, accel=None, progress=None, never_learned="share") -> SyntheticSet:
    return make_set(torch.randn(10 * ipc, 1, 28, 28, generator=torch.Generator().manual_seed(seed)))


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fakes where the worker looks."""
    monkeypatch.setattr(RandomWalk, "diverges_at", None)
    monkeypatch.setattr(data, "load", lambda name, size=32, progress=None: DATA)
    monkeypatch.setattr(distill, "make_distiller", lambda method: RandomWalk())
    monkeypatch.setattr(students, "evaluate_slices", evaluate_slices)
    monkeypatch.setattr(baselines, "make_baseline", make_baseline)


# ---- runs of them ---------------------------------------------------------------------------------------------------


def claim_and_run(store, **options):
    """The next queued run, to its end."""
    run_job(store, store.claim(os.getpid()), **options)


def start(store, **options):
    """The next queued run in a thread."""
    thread = threading.Thread(target=claim_and_run, args=(store,), kwargs=options, daemon=True)
    thread.start()
    return thread


def until(condition, seconds=10.0):
    """Wait for it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def images(store, id):
    """The images that a run made."""
    return load_synthetic(store.result_folder(id)).images
