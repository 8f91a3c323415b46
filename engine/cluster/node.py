"""A node's side: does one errand after the other, each in a home folder that it alone has and that ends with it."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.cluster.parcel import Files, Parcel, Seen, changed
from engine.errors import Refused
from engine.home import cache_folder, limbeck_home
from engine.runs.process import birth

COLUMNS = ("message", "step", "steps_total", "seconds", "progress")


@dataclass
class Changes:
    """What is new on a node since it was last asked. ``state``: columns of the run, or how far an answer is."""

    files: Files = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    events: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    evaluations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    ended: bool = False


class Node:
    """An actor of the cluster. Its methods return at once: the errand has a thread of its own.

    ``threads``: that torch may use. What was compiled, downloaded or pre-trained for one errand stays on the node for
    the next, in the node's own ``LIMBECK_HOME``.
    """

    def __init__(self, threads: int):
        os.environ["LIMBECK_THREADS"] = str(threads)
        self.base = limbeck_home()
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder("inductor")))
        self.errand: _Errand | None = None
        for left in (self.base / "errands").glob("*-*-*"):  # by an actor that was killed
            pid, born, _ = left.name.split("-", 2)
            if pid.isdecimal() and birth(int(pid)) != born:
                shutil.rmtree(left, ignore_errors=True)

    def begin(self, parcel: Parcel) -> Changes:
        """Start an errand."""
        self.end()
        home = self.base / "errands" / f"{os.getpid()}-{birth(os.getpid())}-{secrets.token_hex(4)}"
        home.mkdir(parents=True)
        for shared in ("cache", "data"):
            (self.base / shared).mkdir(exist_ok=True)
            (home / shared).symlink_to(self.base / shared)
        os.environ["LIMBECK_HOME"] = str(home)  # an actor is a process of its own, and does one errand at a time
        self.errand = (_RunErrand if parcel.kind == "run" else _QuestionErrand)(home, parcel)
        return Changes()

    def changes(self) -> Changes:
        """What has happened since the last call."""
        return self.errand.changes() if self.errand else Changes(ended=True)

    def command(self, command: str) -> None:
        """``pause``, ``resume``, ``stop``, ``leave`` for a run; ``cancel`` for a question."""
        if self.errand:
            self.errand.command(command)

    def end(self) -> None:
        """Forget the errand, which has ended, and its folder."""
        if self.errand:
            shutil.rmtree(self.errand.home, ignore_errors=True)
        self.errand = None

    def leave(self) -> None:
        """Forget the errand and give the actor's place to others."""
        from ray.actor import exit_actor

        self.end()
        exit_actor()


class _Errand(ABC):
    """What runs and questions have in common."""

    watched: Path

    def __init__(self, home: Path, parcel: Parcel):
        self.home, self.id = home, parcel.id
        self.store = parcel.unpack(home)
        self.seen: Seen = {}
        self.thread = threading.Thread(target=self._work, name="limbeck-errand", daemon=True)

    def _start(self) -> None:
        changed(self.watched, self.seen)  # what was sent is known already
        self.thread.start()

    @abstractmethod
    def _work(self) -> None: ...

    @abstractmethod
    def changes(self) -> Changes: ...

    @abstractmethod
    def command(self, command: str) -> None: ...

    def _files(self, found: Changes) -> Changes:
        found.files, found.gone = changed(self.watched, self.seen)
        return found


class _RunErrand(_Errand):
    def __init__(self, home: Path, parcel: Parcel):
        super().__init__(home, parcel)
        self.watched = home / "runs"
        self.sent = list(parcel.runs)
        self.last = max((e.id for e in self.store.events(self.id)), default=0)
        self.kept = len(self.store.evaluations(self.sent))
        self.leaving = threading.Event()
        self._start()

    def _work(self) -> None:
        from engine.accel import give_memory_back
        from engine.runs.worker import run_job, settle

        settle(niceness=0)
        run_job(self.store, self.store.adopt(self.id, os.getpid()), leaving=self.leaving, shares=False)
        give_memory_back()

    def changes(self) -> Changes:
        ended = not self.thread.is_alive()  # asked first: whatever it wrote before it ended is then found below
        events = self.store.events(self.id, self.last)
        self.last = max((e.id for e in events), default=self.last)
        evaluations = self.store.evaluations(self.sent)
        run = self.store.run(self.id)
        found = Changes(
            events=[(e.kind, e.step, e.data) for e in events if e.kind != "evaluation"],
            evaluations=[
                (e["run"], {k: v for k, v in e.items() if k not in ("run", "at")}) for e in evaluations[self.kept :]
            ],
            state={name: getattr(run, name) for name in COLUMNS} if run else {},
            ended=ended,
        )
        self.kept = len(evaluations)
        return self._files(found)  # last: every frame that an event speaks of is among the files

    def command(self, command: str) -> None:
        if command == "leave":
            self.leaving.set()
            return
        try:
            self.store.command(self.id, command)
        except Refused:  # it has ended in the meantime
            pass


class _QuestionErrand(_Errand):
    def __init__(self, home: Path, parcel: Parcel):
        super().__init__(home, parcel)
        self.watched = home / "probes" / parcel.id
        self.state: dict[str, Any] = {"progress": 0.0, "message": "Starting."}
        self._start()

    def _work(self) -> None:
        from engine.accel import give_memory_back
        from engine.probes.answerer import work_out
        from engine.probes.desk import Desk
        from engine.runs.worker import settle

        def told(fraction: float, sentence: str) -> None:
            self.state = {"progress": fraction, "message": sentence}

        settle(niceness=0)
        work_out(Desk(self.home), self.store, self.id, told)
        give_memory_back()

    def changes(self) -> Changes:
        ended = not self.thread.is_alive()
        found = self._files(Changes(state=self.state, ended=ended))
        for name in ("state.json", "question.json"):  # the head's own
            found.files.pop(name, None)
        found.gone = []
        return found

    def command(self, command: str) -> None:
        if command in ("cancel", "leave"):
            (self.watched / "cancel").touch()
