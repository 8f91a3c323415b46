"""The driver of runs: ``python -m engine.cluster.runs``, in the place of a worker."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from engine.cluster.driver import Driver, Errand, Gone, drive
from engine.cluster.node import Changes
from engine.cluster.parcel import Parcel, write
from engine.runs.store import FINISHED, Run, Store

ENDS = (*FINISHED, "interrupted")


class RunErrand:
    """A run of the store that this process has claimed."""

    def __init__(self, store: Store, run: Run, cpus: float, gpus: float):
        self.store, self.run, self.cpus, self.gpus = store, run, cpus, gpus
        self.folder = store.folder(run.id)
        self.owner = store.owner(run.id)
        data = {"status": "failed", "message": "The node ended without saying how. Resume tries again."}
        self.end: tuple[str, int, dict[str, Any]] = ("status", 0, data)

    def parcel(self) -> Parcel:
        """The run as the store has it, back at its last checkpoint, and the runs it reads."""
        reached = self._reached()
        if reached >= 0 or self.store.frames(self.run.id):
            self.store.rewind(self.run.id, reached)
        parcel = Parcel("run", self.run.id)
        parcel.add_run(self.store, self.store.run(self.run.id) or self.run, whole=True)
        parcel.add_mentioned(self.store, self.run.spec)
        return parcel

    def apply(self, changes: Changes) -> None:
        """The node's files, events and numbers become the store's."""
        if self.store.owner(self.run.id) != self.owner:
            return
        frames = [int(PurePosixPath(n).stem) for n in changes.gone if n.startswith(f"{self.run.id}/frames/")]
        write(self.store.home / "runs", changes.files, changes.gone)
        if frames:
            self.store.drop_frames(self.run.id, frames)
        for run, evaluation in changes.evaluations:
            if self.store.run(run):
                self.store.add_evaluation(run, evaluation)
        events = changes.events
        if events and events[-1][0] == "status" and events[-1][2]["status"] in ENDS:
            *events, self.end = events  # said when nothing more can come
        said = [data["status"] for kind, _, data in events if kind == "status"]
        self.store.append(self.run.id, events, **changes.state, **({"status": said[-1]} if said else {}))
        if changes.ended:
            _, step, data = self.end
            self.store.announce(self.run.id, step=step, **data)

    def commands(self) -> list[str]:
        """What was asked of the run."""
        if self.store.owner(self.run.id) != self.owner:
            raise Gone
        return self.store.pending(self.run.id)

    def beat(self) -> None:
        """The heartbeat that a worker would have."""
        self.store.heartbeat(self.run.id, os.getpid())

    def waits(self) -> None:
        """Nothing but a message."""
        self.store.update(self.run.id, message="Waiting for a free node of the cluster.")

    def lost(self, times: int) -> None:
        """Say so; what had come back stays."""
        step = max(0, self._reached())
        message = f"A node was lost; going on from step {step:,} on another."
        self.store.announce(self.run.id, "running", message, step=step, lost=times)

    def fails(self, sentence: str) -> None:
        """The run has failed."""
        self.store.announce(self.run.id, "failed", sentence)

    def _reached(self) -> int:
        """The step of the newest checkpoint that has come back, -1 without one."""
        return max((int(path.stem) for path in (self.folder / "checkpoint").glob("[0-9]*.pt")), default=-1)


def taking(store: Store) -> Callable[[Driver], Callable[[], Errand | None]]:
    """What takes runs from the queue for a driver."""

    def make(driver: Driver) -> Callable[[], Errand | None]:
        def take() -> Errand | None:
            run = store.claim(os.getpid())
            if run is None:
                return None
            return RunErrand(store, run, driver.cpus(), driver.gpus(run.spec.get("device", "auto")))

        return take

    return make


def run_away(store: Store, runs: Iterator[Run], leaving: threading.Event) -> None:
    """Have runs that belong to this process done on the cluster: for the command line, which waits for them.

    The next of ``runs`` is asked for when there is a place for it. Raises ``Refused`` when the cluster does not answer.
    ``leaving``: see ``run_job``.
    """
    driver = Driver(lambda: None)
    over = False

    def take() -> Errand | None:
        nonlocal over
        run = next(runs, None)
        over = run is None
        if run is None:
            return None
        return RunErrand(store, run, driver.cpus(), driver.gpus(run.spec.get("device", "auto")))

    driver.connect()
    driver.cpus()
    driver.next_errand = take
    while (driver.away or not over) and not leaving.is_set():
        driver.round()
    driver.next_errand = lambda: None
    driver.leave()


def main() -> int:
    """The driver's loop."""
    store = Store()
    return drive(store, taking(store))


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
