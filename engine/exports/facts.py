"""What there is to tell about a run, gathered once for everything that is made of it (torch-free)."""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from engine import words
from engine.data.catalogue import FOLDER
from engine.data.folder_check import presentable
from engine.errors import Refused
from engine.methods import METHODS
from engine.runs.store import Event, Run, Store
from engine.students.protocols import TRAINING

TRIED = 6  # frames that tell how large a film will be
EVENTS = 200_000  # of a run that are read: far more than one writes


@dataclass(frozen=True)
class Origin:
    """Where an imported run came from: what it was there, and how long and on what it was made."""

    kind: str
    title: str
    spec: dict[str, Any]
    made: float | None
    seconds: float
    machine: str


@dataclass(frozen=True)
class Story:
    """A run with its events, frames and evaluations.

    ``kind`` and ``spec`` are those it was made with, also where it was made elsewhere and imported (``origin``).
    """

    store: Store
    run: Run
    origin: Origin | None
    frames: tuple[int, ...]
    evaluations: tuple[dict[str, Any], ...]

    @property
    def kind(self) -> str:
        """What the run was, where it was made."""
        return self.origin.kind if self.origin else self.run.kind

    @property
    def spec(self) -> dict[str, Any]:
        """The settings it was made with, there."""
        return self.origin.spec if self.origin else self.run.spec

    @property
    def public_spec(self) -> dict[str, Any]:
        """The spec less the path of somebody's own folder, of which only the name is anybody's business."""
        dataset = str(self.spec.get("dataset") or "")
        if not dataset.startswith(FOLDER):
            return self.spec
        return {**self.spec, "dataset": FOLDER + dataset.rsplit("/", 1)[-1].removeprefix(FOLDER)}

    @property
    def what(self) -> str:
        """What the run is, in a line."""
        return words.made(self.kind, self.spec, self.run.dataset)

    @property
    def date(self) -> str:
        """The day on which it was made."""
        when = (self.origin.made if self.origin else self.run.finished) or self.run.created
        return time.strftime("%Y-%m-%d", time.localtime(when))

    @property
    def steps(self) -> int:
        """The last step there is."""
        return max(self.run.step, self.frames[-1] if self.frames else 0)

    @property
    def machine(self) -> str:
        """What it was computed on; empty where nobody knows."""
        return self.origin.machine if self.origin else str(self.layout.get("machine") or "")

    @property
    def protocol(self) -> str:
        """The protocol that its set is made for."""
        wanted = str(self.spec.get("protocol") or "auto")
        if wanted != "auto":
            return wanted
        return METHODS[self.spec["method"]].protocol if self.kind == "distill" else "dc"

    @property
    def headline(self) -> dict[str, Any] | None:
        """The evaluation that stands for the run: on its own test images and with the protocol's own network, under
        the run's protocol where there is such a one; the latest of these."""
        own = [
            e
            for e in self.evaluations
            if e.get("split", "test") == "test"
            and e.get("dataset", self.run.dataset) == self.run.dataset
            and self._by_the_book(e["protocol"], e["network"])
        ]
        wanted = [e for e in own if e["protocol"] == self.protocol]
        return (wanted or own)[-1] if own else None

    def _by_the_book(self, protocol: str, network: str) -> bool:
        """Whether a protocol trains that network on this run's set by itself."""
        if protocol not in TRAINING:
            return False
        learned = self.spec.get("method") == "frepo" and protocol == "quick"  # which then trains FRePo's kind
        return TRAINING[protocol].own_steps or network == ("convnet-wide" if learned else TRAINING[protocol].network)

    @property
    def result(self) -> str:
        """The headline as a sentence, or that there is none."""
        return words.measured(self.headline) if self.headline else "Not evaluated."

    @cached_property
    def layout(self) -> dict[str, Any]:
        """Which image of a frame is where; empty before the first frame."""
        found = self.events("layout")
        return found[-1].data if found else {}

    def events(self, kind: str) -> list[Event]:
        """The run's events of a kind, oldest first."""
        return self.store.events(self.run.id, kinds=(kind,), limit=EVENTS)

    def frame(self, step: int) -> Image.Image:
        """The images as they were at a step: grey or RGB, native size, one column per class."""
        path = self.store.frame_path(self.run.id, step)
        if path is None:
            raise Refused(f"The frame of step {step:,} is gone; export again.")
        with Image.open(path, formats=("WEBP",)) as image:
            return image.convert("L" if self.layout["channels"] == 1 else "RGB")


def story(store: Store, id: str) -> Story:
    """All there is to tell about a run. Raises ``Refused`` where there is no such run."""
    run = store.run(id)
    if run is None:
        raise Refused(f"There is no run “{presentable(id)}”; “python -m engine runs list” shows those there are.")
    came = store.events(id, kinds=("origin",), limit=1)
    origin = Origin(**came[0].data) if came else None
    return Story(store, run, origin, tuple(store.frames(id)), tuple(store.evaluations([id])))


def told(store: Store, id: str) -> Story:
    """The story of a run that has pictures. Raises ``Refused`` where it has none (yet)."""
    found = story(store, id)
    if not found.frames or not found.layout:
        raise Refused(f"Run {id} has no pictures to export; it is {found.run.status}.")
    return found


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of ascending steps, the first and the last among them, evenly in the logarithm of the step:
    images change most in the beginning."""
    if len(steps) <= most:
        return list(steps)
    low, high = math.log1p(steps[0]), math.log1p(steps[-1])
    last, chosen = len(steps) - 1, [0]
    for i in range(1, most - 1):
        wanted = math.expm1(low + (high - low) * i / (most - 1))
        at = max(chosen[-1] + 1, bisect.bisect_left(steps, wanted))
        chosen.append(min(at, last - (most - 1 - i)))  # leaves room for those after it
    return [steps[i] for i in (*chosen, last)]


def thinned(make: Callable[[list[int]], bytes], steps: Sequence[int], most: int, limit: int) -> bytes:
    """What ``make`` makes of a selection of ``steps``: of as many as give at most ``limit`` bytes, which a few of them
    tell beforehand, but of at least four."""
    if len(steps) > 3 * TRIED:
        each = len(make(spread(steps, TRIED))) / TRIED
        most = max(4, min(most, int(0.95 * limit / each)))
    while True:
        content = make(spread(steps, most))
        if len(content) <= limit or most <= 4:
            return content
        most = max(4, min(int(0.9 * most * limit / len(content)), len(steps) - 1, most - 1))
