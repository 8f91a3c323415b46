"""One run in the hands of one process: what it says about itself and how it hears pause, resume and stop."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from engine import data as datasets
from engine.data.base import Dataset
from engine.runs.store import Run, Store


class Released(Exception):
    """The run was paused and gave its worker to the next in the queue."""


class Stopped(Exception):
    """The run was stopped before there was anything to keep."""


class GaveWay(Exception):
    """The run is a viewer's, and another one waits for the worker."""


class Left(Exception):
    """The process was told to end while the run was going."""


class Lost(Exception):
    """The run belongs to another process now: this one was taken for dead."""


class Job:
    """A claimed run. ``leaving`` is set when the process shall end; ``shares``: whether a paused run makes room for
    queued ones (a worker's does, a command line's does not)."""

    def __init__(self, store: Store, run: Run, *, leaving: threading.Event | None = None, shares: bool = True):
        self.store, self.run, self.id = store, run, run.id
        self.leaving = leaving or threading.Event()
        self.shares = shares
        self.folder = store.folder(run.id)
        self.stop_asked = False
        self._owner = store.owner(run.id)
        self._asked = 0.0
        self._told: dict[str, float] = {}

    def say(self, message: str, step: int = 0, **data: Any) -> None:
        """A new stage of a run that goes on: shown to people, and an event."""
        self.store.announce(self.id, "running", message, step=step, **data)

    def tell(self, message: str, **columns: Any) -> None:
        """Progress within a stage: at most twice a second, and no event."""
        now = time.monotonic()
        if now - self._told.get("message", 0.0) >= 0.5:
            self._told["message"] = now
            self.store.update(self.id, message=message, **columns)

    def log(self, text: str) -> None:
        """Append to the run's ``log.txt``."""
        with (self.folder / "log.txt").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def log_error(self) -> None:
        """Append the exception being handled to the run's ``log.txt``."""
        self.log(traceback.format_exc())

    def stopping(self, save: Callable[[], None] | None = None, step: int = 0) -> bool:
        """Hear commands; True once the run shall stop. Waits here while the run is paused.

        ``save`` is called before anything that may be the last this process does with the run. Raises ``Released``,
        ``GaveWay``, ``Left`` or ``Lost``.
        """
        if self.leaving.is_set():
            self._leave(save)
        now = time.monotonic()
        if self.stop_asked or now - self._asked < 0.05:
            return self.stop_asked
        self._asked = now
        self._check_owner()
        for command in self.store.pending(self.id):
            if command == "stop":
                self.stop_asked = True
            elif command == "pause" and not self.stop_asked:
                self._pause(save, step)
        if self.run.viewer and not self.stop_asked and self.store.queue_length(viewers=False):
            raise GaveWay
        return self.stop_asked

    def _pause(self, save: Callable[[], None] | None, step: int) -> None:
        message = (self.store.run(self.id) or self.run).message
        if save:
            save()
        self.store.announce(self.id, "paused", "Paused.", step=step)
        while True:
            if self.leaving.is_set():
                self._leave(None)
            self._check_owner()
            for command in self.store.pending(self.id):
                if command == "pause":
                    continue
                self.stop_asked = command == "stop"
                self.say("Stopping." if self.stop_asked else message, step)
                return
            if self.shares and self.store.queue_length(viewers=False) and self.store.release(self.id):
                raise Released
            time.sleep(0.1)

    def _check_owner(self) -> None:
        """A machine that slept wakes up in the middle of a run that others have given up, or even taken over."""
        if self.store.owner(self.id) != self._owner:
            raise Lost

    def _leave(self, save: Callable[[], None] | None) -> None:
        if save:
            save()
        raise Left


def read_data(job: Job, name: str, size: int) -> Dataset:
    """A dataset, with the progress of reading it in the run's message."""
    job.say("Reading the dataset.")

    def progress(fraction: float, what: str) -> None:
        if job.stopping():
            raise Stopped
        what = what.rstrip(".")
        job.tell(f"{what} {fraction:.0%}" if 0 < fraction < 1 else f"{what}.")

    data = datasets.load(name, size, progress)
    for note in data.notes:
        job.log(note)
    return data


class Heart:
    """A thread that says every 2 s that this process is still at the run."""

    def __init__(self, store: Store, id: str):
        self.store, self.id = store, id
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="limbeck-heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(2.0):
            try:
                self.store.heartbeat(self.id, os.getpid())
            except Exception:  # a store that is locked for long: the next beat will do
                continue
