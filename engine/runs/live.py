"""Accuracy beside distilling: students train in slices between two steps, so that the picture keeps moving."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

from engine import baselines, students
from engine.accel import Accel
from engine.data.base import Dataset
from engine.home import aside, cache_folder
from engine.methods import METHODS
from engine.runs.job import Job
from engine.spec import RunSpec
from engine.students.protocols import PROTOCOLS
from engine.synthetic import SyntheticSet

SHARE = 0.25  # of the wall time, once the first accuracy is there
FIRST_SHARE = 0.5  # until then
LIMIT = 1000  # held-out images a live accuracy is measured on
DRAWS = 3  # random sets behind the random reference
CHEAP = 3e8  # images × pixels × IPC up to which k-means is quick enough to sit between two steps
FORMAT = 1  # raise it when the ``quick`` protocol changes: kept references are then computed anew

Slices = Generator[float, None, None]


class Live:
    """Spends a share of the time on accuracies under the ``quick`` protocol, on held-out training images; of sets that
    are made for steps of their own under the protocol that takes these, as another optimiser would get little out of
    them. There are no references then: numbers of two protocols do not belong in one picture.

    First the accuracy of the initial images, then by turns of the current ones, at growing intervals, and of the
    references (random real images, class averages from k-means), which are kept for later runs. Everything random in
    it has its own generators, and torch's global one is put back after every slice: distilling never notices.
    """

    def __init__(self, job: Job, spec: RunSpec, data: Dataset, accel: Accel, state: dict[str, Any] | None = None):
        self.job, self.spec, self.data, self.accel = job, spec, data, accel
        self.count: int = state["count"] if state else 0  # accuracies so far
        self.began = self.next_at = time.monotonic()
        self.spent = 0.0
        self.measured = -1  # the step of the last accuracy: images that did not change are not measured again
        self.task: Slices | None = None
        own = METHODS[spec.method].protocol
        self.protocol = own if PROTOCOLS[own].own_steps else "quick"
        self.references = self._references() if self.protocol == "quick" else []
        self.on = True

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"count": self.count}

    def begin(self, synthetic: SyntheticSet, step: int, seconds: float) -> None:
        """The first accuracy shall be that of the initial images."""
        self.task = self._accuracy(synthetic, step, seconds)

    def work(self, snapshot: Callable[[], SyntheticSet], step: int, seconds: float, step_took: float) -> None:
        """Called after every step, which took ``step_took`` seconds: does some slices if there is time for them.

        The picture waits for that, so it is a quarter of a second at most, or up to one where steps are slow anyway.
        """
        if not self.on:
            return
        began = time.monotonic()
        share = SHARE if self.count else FIRST_SHARE
        allowed = min(share * (began - self.began) - self.spent, max(0.25, min(step_took / 3, 1.0)))
        if allowed <= 0:
            return
        try:
            with torch.random.fork_rng():
                while time.monotonic() - began < allowed and self._slice(snapshot, step, seconds):
                    pass
        except Exception:  # the run goes on without its live accuracy, and its log says why
            self.job.log_error()
            self.on = False
        self.spent += time.monotonic() - began
        # Time that was not used does not pile up into one long halt of the picture.
        self.spent = max(self.spent, share * (time.monotonic() - self.began) - 1.0)

    # ---- inside ----

    def _slice(self, snapshot: Callable[[], SyntheticSet], step: int, seconds: float) -> bool:
        """One slice of the task at hand, or the start of the next; False when there is nothing to do now."""
        if self.task is None:
            if time.monotonic() >= self.next_at and step != self.measured:
                self.task = self._accuracy(snapshot(), step, seconds)
            elif self.references:
                self.task = self.references.pop(0)
            else:
                return False
        if next(self.task, None) is None:
            self.task = None
        return True

    def _accuracy(self, synthetic: SyntheticSet, step: int, seconds: float) -> Slices:
        began, self.measured = time.monotonic(), step
        result = yield from self._evaluate(synthetic, seeds=2)
        self.count += 1
        # The second curve point soon, later ones ever further apart.
        self.next_at = time.monotonic() + min(60.0, max(2.0, 0.5 * (time.monotonic() - began)) * 1.15**self.count)
        event = {
            "accuracy": result.mean,
            "std": result.std,
            "protocol": result.protocol,
            "students": len(result.accuracies),
            "split": result.split,
            "seconds": round(seconds, 3),
            "step": step,
        }
        self.job.store.append(self.job.id, [("accuracy", step, event)])

    def _evaluate(self, synthetic: SyntheticSet, seeds: int, seed: int = 0) -> Generator[float, None, Any]:
        return (
            yield from students.evaluate_slices(
                synthetic,
                self.data,
                self.protocol,
                seeds=seeds,
                seed=seed,
                accel=self.accel,
                split="held-out",
                limit=LIMIT,
            )
        )

    # ---- references ----

    def _references(self) -> list[Slices]:
        """References that are still to be computed; the kept ones are told at once."""
        if self.job.store.events(self.job.id, kinds=("reference",), limit=1):
            return []
        cost = len(self.data.train_labels) * self.data.train_images[0].numel() * self.spec.ipc
        work = []
        for kind in ("random", "kmeans"):
            kept = self._path(kind)
            if kept.exists():
                with contextlib.suppress(OSError, ValueError):
                    self._tell(json.loads(kept.read_text()))
                    continue
            if kind == "random" or cost <= CHEAP:
                work.append(self._reference(kind))
        return work

    def _reference(self, kind: str) -> Slices:
        accuracies: list[float] = []
        draws = DRAWS if kind == "random" else 1
        for draw in range(draws):
            synthetic = baselines.make_baseline(kind, self.data, self.spec.ipc, seed=draw, accel=self.accel)
            yield 0.0
            result = yield from self._evaluate(synthetic, seeds=1 if kind == "random" else 2, seed=100 + draw)
            accuracies += result.accuracies
        event = {
            "label": "Random real images" if kind == "random" else "k-means centres",
            "kind": "random" if kind == "random" else "selected",
            "accuracy": statistics.fmean(accuracies),
            "std": statistics.pstdev(accuracies),
            "protocol": result.protocol,
            "split": result.split,
            "draws": draws,
        }
        self._tell(event)
        with aside(self._path(kind)) as part:
            part.write_text(json.dumps(event))

    def _tell(self, event: dict[str, Any]) -> None:
        self.job.store.append(self.job.id, [("reference", 0, event)])

    def _path(self, kind: str) -> Path:
        """Where a reference is kept: one file per data, IPC, protocol and kind."""
        data = self.data
        facts = (FORMAT, kind, data.name, data.size, len(data.train_labels), data.mean, data.std, self.spec.ipc)
        return cache_folder("references") / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.json"
