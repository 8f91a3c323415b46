"""What every page reads from and gives work to: one store and one executor for the whole server (torch-free).

Viewers of a seminar get those of ``roles``, which refuse what only the presenter may do.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections import Counter, OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

from engine import cluster
from engine.home import limbeck_home
from engine.probes.desk import Desk
from engine.runs.executor import LocalExecutor
from engine.runs.store import BESIDE, Event, Store
from engine.words import dataset_title
from pages.components import roles

__all__ = ["answerer", "dataset_title", "desk", "executor", "film", "history", "listening", "pace", "store"]

TOLD = ("metric", "accuracy", "reference", "status", "evaluation", "layout", "frame")  # kinds of events
KEPT = 8  # runs whose events are kept in memory
WATCHERS = 12  # of a run that are told of everything at once
listening: Counter[str] = Counter()  # open event streams, by run
_starting = threading.Lock()
_kept: OrderedDict[tuple[Path, str], tuple[int, dict[str, list[Event]]]] = OrderedDict()
_reading = threading.Lock()


@cache
def _executor(home: str) -> LocalExecutor:
    return LocalExecutor(Store(Path(home)), module=cluster.runs_module())


@cache
def _viewed(home: str) -> LocalExecutor:
    return roles.ViewedExecutor(roles.ViewedStore(Path(home)))


def executor() -> LocalExecutor:
    """What queues and cancels runs; the app starts and ends its workers."""
    return (_executor if roles.presenter() else _viewed)(str(limbeck_home()))


def store() -> Store:
    """The store of this server's home folder."""
    return executor().store


@cache
def _answerer(home: str) -> LocalExecutor:
    return LocalExecutor(_executor(home).store, slots=1, module=cluster.questions_module())


def answerer() -> LocalExecutor:
    """The resident process that answers probes; ``desk`` starts it with the first question, the app ends it."""
    return _answerer(str(limbeck_home()))


def desk() -> Desk:
    """Where pages ask the probes; has somebody there to answer."""
    if not roles.presenter():
        return roles.ViewedDesk()
    with _starting:
        if not answerer().started:
            answerer().start()
    return Desk()


def pace(run: str) -> int:
    """How many times as long as for one of them its watchers wait for news of a run: 1, or 2, 4, … for a room full.

    What all of them together take from the machine that also computes the run stays the same.
    """
    return 2 ** max(0, round(math.log2(max(listening[run], 1) / WATCHERS)))


def history(where: Store, run: str) -> tuple[int, dict[str, list[Event]]]:
    """The id of the last of a run's events, and the events by kind, oldest first. Each look reads only what is new.

    They are kept once for all who look at the run, and of the runs looked at last only: a room full of people would
    fill the server's memory otherwise. The lists may grow while they are read.
    """
    key = (where.home, run)
    with _reading:
        cursor, kept = _kept.pop(key) if key in _kept else (0, {kind: [] for kind in TOLD})
        new = where.events(run, since=cursor, kinds=TOLD, limit=100_000)
        if cursor and any(e.kind == "status" for e in new):  # it may have gone back to a checkpoint
            kept = {kind: [] for kind in TOLD}
            new = where.events(run, kinds=TOLD, limit=100_000)
        for event in new:
            kept[event.kind].append(event)
        cursor = new[-1].id if new else cursor
        _kept[key] = (cursor, kept)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return cursor, kept


def film(where: Store, run: str) -> dict[str, Any] | None:
    """All that a player needs of a run, as JSON; None when there is no such run.

    ``frames`` holds [step, event id, distilling seconds, loss or null, real images looked at or null] of every frame,
    ascending; ``cursor`` is the id of the last event seen, after which the event stream goes on. ``beside`` holds the
    names of what stands beside the film (see ``engine.runs.beside``), each with a version.
    """
    known = where.run(run)
    if known is None:
        return None
    cursor, events = history(where, run)
    there = set(where.frames(run))
    metrics = events["metric"]
    steps = [e.step for e in metrics]
    latest: dict[int, list[Any]] = {}
    for event in events["frame"]:
        if event.step in there:
            at = bisect.bisect_right(steps, event.step)
            loss = metrics[at - 1].data.get("loss") if at else None
            known_of = event.data
            latest[event.step] = [event.step, event.id, known_of.get("seconds"), loss, known_of.get("images_seen")]
    return {
        "run": run,
        "title": known.title,
        "status": known.status,
        "message": known.message,
        "layout": events["layout"][-1].data if events["layout"] else None,
        "frames": [latest[step] for step in sorted(latest)],
        "beside": {name: str(path.stat().st_mtime_ns) for name in BESIDE if (path := where.beside(run, name))},
        "metric": {"step": metrics[-1].step, **metrics[-1].data} if metrics else None,
        "cursor": cursor,
    }
