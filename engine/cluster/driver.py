"""The head's side: places errands on the cluster, asks after them, and places them anew when a node is lost.

A driver is a process that an executor keeps alive in the place of a worker. Whatever it is told by the nodes is in the
store at once; if it dies itself, its runs are interrupted like those of any worker, with all that had come back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engine import cluster
from engine.cluster.node import Changes, Node
from engine.cluster.parcel import Parcel
from engine.errors import Refused
from engine.faults import outside
from engine.runs.process import leave_with_parent
from engine.runs.store import Store

log = logging.getLogger("limbeck.cluster")
ROOT = Path(__file__).resolve().parents[2]
LEFT_BEHIND = [".git", ".venv", "/tests", "/assets", "/pages", "*.md", "__pycache__", ".*_cache"]  # not sent to nodes
# Variables of the head that hold for the nodes as well.
PASSED_ON = ("LIMBECK_METHODS", "LIMBECK_COMPILE", "LIMBECK_BF16")
CPUS = "LIMBECK_RAY_CPUS"
ASK_EVERY = 0.25  # seconds between two questions after an errand
TRIES = 3  # nodes that one errand may lose
IDLE = 60.0  # seconds after which an actor without an errand gives its place to others


class Errand(Protocol):
    """One thing to be done on a node, and what to do with what comes back."""

    cpus: float  # what Ray reserves for it
    gpus: float

    def parcel(self) -> Parcel:
        """What the node is given: from the start, or from the last checkpoint that reached the store."""

    def apply(self, changes: Changes) -> None:
        """Write down what has happened. The last call has ``changes.ended``."""

    def commands(self) -> list[str]:
        """What the node shall be told. ``Gone`` when the errand is no longer ours."""

    def beat(self) -> None:
        """Say that it is still being worked on."""

    def waits(self) -> None:
        """It has no node yet."""

    def lost(self, times: int) -> None:
        """Its node was lost for the so-many-th time, and it is placed anew."""

    def fails(self, sentence: str) -> None:
        """It cannot be done."""


class Gone(Exception):
    """Somebody else has this errand now, or nobody wants it any more."""


@dataclass
class _Away:
    """An errand on a node."""

    errand: Errand
    actor: Any
    answer: Any  # what will be its changes
    placed: bool = False
    due: float = 0.0
    beaten: float = 0.0
    since: float = field(default_factory=time.monotonic)
    losses: int = 0


class Driver:
    """Keeps as many errands on the cluster as it has places. ``next_errand`` takes one from wherever they wait."""

    def __init__(self, next_errand: Callable[[], Errand | None]):
        self.next_errand = next_errand
        self.away: list[_Away] = []
        self.idle: list[tuple[float, float, Any, float]] = []  # cpus, gpus, actor, since
        self._seen_nodes = 0.0
        self.places = self.nodes = 1

    # ---- the cluster ----

    def connect(self) -> str:
        """Join the cluster; what it is, in words. ``Refused`` when it does not answer."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError:
            raise Refused(
                f"{cluster.VARIABLE} is set, and Ray is not installed: pip install -e '.[cluster]'."
            ) from None
        variables = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
        try:
            _knock(cluster.address())
            ray.init(
                address=cluster.address(),
                namespace="limbeck",
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"working_dir": str(ROOT), "excludes": LEFT_BEHIND, "env_vars": variables},
            )
            nodes = self._nodes()
        except Exception as error:  # Ray has many, some of them nothing but RuntimeError
            raise Refused(
                f"The Ray cluster at {cluster.address()} does not answer ({type(error).__name__}); start it, or unset "
                f"{cluster.VARIABLE} to compute on this machine."
            ) from error
        cpus, gpus = (sum(n.get(what, 0) for n in nodes) for what in ("CPU", "GPU"))
        return f"Ray cluster, nodes: {len(nodes)}, CPUs: {cpus:g}" + (f", GPUs: {gpus:g}" if gpus else "")

    def _nodes(self) -> list[dict[str, float]]:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def cpus(self) -> float:
        """CPUs that a run reserves: what was asked for, else two, or one where no node has more."""
        largest = max((node.get("CPU", 0.0) for node in self._nodes()), default=0.0)
        given = os.environ.get(CPUS, "")
        if not given:
            return min(2.0, max(1.0, largest))
        if not given.isdecimal() or not 1 <= int(given) <= max(1.0, largest):
            raise Refused(
                f"{CPUS} is {given[:20]!r}; give a whole number from 1 to {largest:g}, the CPUs of the largest node."
            )
        return float(given)

    def gpus(self, device: str) -> float:
        """GPUs that a run for this device reserves: one, where there are any and it may use one."""
        there = any(node.get("GPU", 0) for node in self._nodes())
        return 1.0 if device == "cuda" or (device == "auto" and there) else 0.0

    # ---- one round ----

    def round(self) -> None:
        """Take what waits, hear what the nodes have to say, pass on commands."""
        import ray

        now = time.monotonic()
        if now - self._seen_nodes > 3:
            self._seen_nodes = now
            need = max(1.0, self.cpus())
            fits = [int(node.get("CPU", 0) // need) for node in self._nodes()]
            self.places, self.nodes = max(1, sum(fits)), max(1, sum(map(bool, fits)))
        while self._room() and (errand := self.next_errand()) is not None:
            self._place(errand)
        for away in list(self.away):
            self._tell(away, now)
        asked = [away.answer for away in self.away if away.answer is not None]
        ready = set(ray.wait(asked, num_returns=len(asked), timeout=0.1)[0]) if asked else set()
        if not asked:
            time.sleep(0.1)
        for away in list(self.away):
            if away.answer in ready:
                self._hear(away)
        for place in [p for p in self.idle if now - p[3] > IDLE]:
            self.idle.remove(place)
            ray.kill(place[2])

    def _room(self) -> bool:
        """Whether to take one more. What Ray has no room for, a GPU say, stays in the queue, where others can take it
        and anybody can cancel it, but for as many as there are nodes: theirs begin at once when one is free."""
        return len(self.away) < self.places and sum(not away.placed for away in self.away) < self.nodes

    def leave(self, patience: float = 5.0) -> None:
        """Have every errand save what it has, and end it."""
        for away in self.away:
            away.actor.command.remote("leave")
        deadline = time.monotonic() + patience
        while self.away and time.monotonic() < deadline:
            self.round()

    def _place(self, errand: Errand, losses: int = 0) -> None:
        try:
            parcel = errand.parcel()
        except Refused as refused:
            errand.fails(str(refused))
            return
        actor = self._actor(errand.cpus, errand.gpus)
        away = _Away(errand, actor, actor.begin.remote(parcel), losses=losses)
        self.away.append(away)

    def _actor(self, cpus: float, gpus: float) -> Any:
        """An actor with these resources: one that is warm, or a new one wherever Ray finds room."""
        import ray

        for place in self.idle:
            if place[:2] == (cpus, gpus):
                self.idle.remove(place)
                return place[2]
        kind: Any = ray.remote(Node)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_concurrency": 4}
        return kind.options(scheduling_strategy="SPREAD", **options).remote(max(1, int(cpus)))

    def _tell(self, away: _Away, now: float) -> None:
        try:
            if now - away.beaten > 2:
                away.beaten = now
                away.errand.beat()
            if not away.placed:
                if now - away.since > 1:
                    away.errand.waits()
                    away.since = now + 5
                return
            for command in away.errand.commands():
                away.actor.command.remote(command)
        except Gone:
            self._end(away, kill=True)
            return
        if away.answer is None and now >= away.due:
            away.answer = away.actor.changes.remote()

    def _hear(self, away: _Away) -> None:
        from ray import get
        from ray.exceptions import RayError, RayTaskError

        try:
            changes = get(away.answer)
        except RayTaskError as error:  # the node's own program failed: it would fail elsewhere as well
            log.error("%s", error)
            self._end(away, kill=True)
            away.errand.fails(f"Something went wrong on a node of the cluster ({type(error.cause).__name__}).")
        except RayError as error:
            self._end(away, kill=True)
            self._again(away, error)
        else:
            away.placed, away.answer, away.due = True, None, time.monotonic() + ASK_EVERY
            away.errand.apply(changes)
            if changes.ended:
                self._end(away)

    def _again(self, away: _Away, error: Exception) -> None:
        losses = away.losses + 1
        log.warning("a node was lost: %s", type(error).__name__)
        if losses >= TRIES:
            away.errand.fails(f"The cluster lost {losses} nodes that were at this. Resume tries again.")
            return
        away.errand.lost(losses)
        self._place(away.errand, losses)

    def _end(self, away: _Away, kill: bool = False) -> None:
        import ray

        self.away.remove(away)
        if kill:
            ray.kill(away.actor)
        elif any(not other.placed for other in self.away):  # somebody waits for what it holds
            away.actor.leave.remote()
        else:
            away.actor.end.remote()
            self.idle.append((away.errand.cpus, away.errand.gpus, away.actor, time.monotonic()))


def _knock(address: str) -> None:
    """Raise ``OSError`` when nothing listens there: Ray itself would try for minutes."""
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def drive(store: Store, make: Callable[[Driver], Callable[[], Errand | None]], announce: bool = True) -> int:
    """The loop of a driver process, until it is told to end. ``make``: given the driver, what takes errands."""
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    parent = int(os.environ.get("LIMBECK_PARENT") or 0)
    threading.Thread(target=leave_with_parent, args=(parent, leaving), daemon=True).start()
    driver = Driver(lambda: None)
    try:
        machine = driver.connect()
        driver.cpus()
    except Refused as refused:
        print(refused, file=sys.stderr, flush=True)
        for run in store.runs(statuses=("queued",)):
            store.update(run.id, message=str(refused))
        leaving.wait(3.0)  # the executor starts it anew
        return 1
    driver.next_errand = make(driver)
    with store.present(machine) if announce else contextlib.nullcontext():
        while not leaving.is_set():
            try:
                driver.round()
            except (OSError, sqlite3.Error) as error:
                if not outside(error):
                    raise
                leaving.wait(1.0)  # a full disk or a busy store: what the nodes do shall not be lost over it
        driver.next_errand = lambda: None
        driver.leave()
    return 0
