"""What is known about every run: one SQLite file for what is small, one folder a run for what is big (torch-free).

``LIMBECK_HOME/store.sqlite`` holds runs, events with a growing id (a reader asks what came after the last one it saw),
control commands and evaluations. ``LIMBECK_HOME/runs/<id>/`` holds ``spec.json``, ``frames/<step>.webp``,
``checkpoint/``, ``result/`` and ``log.txt``; small runs keep the tensors behind their frames, too (``moments/``), and
their last checkpoint (``last/``); forks what they started from (``start/``). Workers write, pages and the command line
read. A sweep is a row of ``sweeps``, and its cells are ordinary runs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import Refused
from engine.home import aside, limbeck_home
from engine.methods import METHODS
from engine.runs.process import alive, here, signature
from engine.spec import BASELINES

STATUSES = ("queued", "running", "paused", "done", "stopped", "failed", "interrupted")
FINISHED = ("done", "stopped", "failed")
KINDS = ("distill", "baseline", "evaluate", "import", "student", "soften", "rank", "edit")
RUN_ID = re.compile(r"^[a-z0-9-]{8,80}$")
GALLERY = "gallery-"  # begins the ids of runs that came with the program, and of no others
BESIDE = ("mean.webp", "nearest.webp", "cells.json")  # the files that stand beside the film of a run

_COLUMNS = (
    "status",
    "message",
    "started",
    "finished",
    "step",
    "steps_total",
    "seconds",
    "progress",
    "title",
    "dataset",
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs(
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, dataset TEXT NOT NULL, title TEXT NOT NULL, spec TEXT NOT NULL,
  status TEXT NOT NULL, message TEXT NOT NULL DEFAULT '', created REAL NOT NULL, queued REAL NOT NULL, started REAL,
  finished REAL, step INTEGER NOT NULL DEFAULT 0, steps_total INTEGER, seconds REAL NOT NULL DEFAULT 0,
  progress REAL NOT NULL DEFAULT 0, pid INTEGER, worker TEXT NOT NULL DEFAULT '', heartbeat REAL,
  viewer TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS runs_status ON runs(status, queued);
CREATE TABLE IF NOT EXISTS events(
  id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, step INTEGER NOT NULL, kind TEXT NOT NULL,
  data TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS events_run ON events(run, id);
CREATE TABLE IF NOT EXISTS control(
  id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, command TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS control_run ON control(run, id);
CREATE TABLE IF NOT EXISTS evaluations(
  id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, data TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS evaluations_run ON evaluations(run, id);
CREATE TABLE IF NOT EXISTS installed(id TEXT PRIMARY KEY, mark TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sweeps(id TEXT PRIMARY KEY, name TEXT NOT NULL, plan TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS cells(
  sweep TEXT NOT NULL, place INTEGER NOT NULL, run TEXT NOT NULL, PRIMARY KEY(sweep, place));
CREATE INDEX IF NOT EXISTS cells_run ON cells(run);
"""

_NEXT = (
    "SELECT id FROM runs WHERE status = 'queued' AND (viewer = '' OR NOT EXISTS"
    " (SELECT 1 FROM runs WHERE status IN ('running', 'paused') AND pid IS NOT NULL))"
    " ORDER BY viewer != '', queued, rowid LIMIT 1"
)


# A run joins the queue now, and behind all others also where the clock was put back.
_LAST = "max(?, (SELECT COALESCE(max(queued), 0) FROM runs) + 1e-3)"
SECOND_LOOK = 2.5  # seconds, in which a worker of another machine would write a heartbeat


@dataclass(frozen=True)
class Run:
    """One run as the store knows it. Times are seconds since 1970, ``seconds`` distilling time, ``progress`` 0..1.

    ``viewer``: who asked for it in a seminar, empty for the presenter. Viewers' runs wait until nothing else is to do.
    """

    id: str
    kind: str
    dataset: str
    title: str
    spec: dict[str, Any]
    status: str
    message: str
    created: float
    started: float | None
    finished: float | None
    step: int
    steps_total: int | None
    seconds: float
    progress: float
    pid: int | None
    heartbeat: float | None
    viewer: str = ""

    @property
    def gallery(self) -> bool:
        """Whether it came with the program, so that it is nobody's own."""
        return self.id.startswith(GALLERY)


@dataclass(frozen=True)
class Event:
    """Something that happened in a run. ``id`` grows over all runs; ``step`` is the distilling step it belongs to."""

    id: int
    run: str
    step: int
    kind: str
    data: dict[str, Any]
    at: float


class Store:
    """The store of one home folder. Safe to use from many threads and processes at once."""

    def __init__(self, home: Path | None = None):
        self.home = Path(home) if home is not None else limbeck_home()
        (self.home / "runs").mkdir(parents=True, exist_ok=True)
        self._local = threading.local()
        with self._transaction() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            if "viewer" not in [row["name"] for row in db.execute("PRAGMA table_info(runs)")]:  # made before there was
                db.execute("ALTER TABLE runs ADD COLUMN viewer TEXT NOT NULL DEFAULT ''")

    # ---- making and finding runs ----

    def submit(
        self,
        kind: str,
        spec: BaseModel,
        title: str = "",
        pid: int | None = None,
        viewer: str = "",
        prepare: Callable[[Path], None] | None = None,
        cell: tuple[str, int] | None = None,
    ) -> str:
        """Put a run into the queue and return its id.

        With ``pid`` the run is not queued but belongs to that process from the start (the command line does its own).
        ``viewer``: see ``Run``. ``prepare`` fills the run's folder before anybody can claim it. ``cell``: the sweep,
        and the place in it, that the run is for.
        """
        assert kind in KINDS, kind
        values = spec.model_dump(mode="json")
        dataset = values.get("dataset") or self._dataset_of(values.get("source", ""))
        run_id = _new_id(kind, dataset, values)
        folder = self.home / "runs" / run_id
        folder.mkdir(parents=True)
        now = time.time()
        status, message = ("queued", "Waiting for a free worker.") if pid is None else ("running", "Starting.")
        try:
            _write_aside(folder / "spec.json", json.dumps({"kind": kind, **values}, indent=1))
            if prepare is not None:
                prepare(folder)
            with self._transaction() as db:
                db.execute(
                    "INSERT INTO runs(id, kind, dataset, title, spec, status, message, created, queued, steps_total,"
                    f" viewer) VALUES(?,?,?,?,?,?,?,?,{_LAST},?,?)",
                    (
                        run_id,
                        kind,
                        dataset,
                        title or default_title(kind, dataset, values, self._title_of(values.get("source", ""))),
                        json.dumps(values),
                        status,
                        message,
                        now,
                        now,
                        values.get("steps"),
                        viewer,
                    ),
                )
                if pid is not None:
                    self._own(db, run_id, pid, now)
                if cell is not None:
                    db.execute("INSERT OR REPLACE INTO cells(sweep, place, run) VALUES(?,?,?)", (*cell, run_id))
                _append(db, run_id, [("status", 0, {"status": status, "message": message})])
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return run_id

    def run(self, id: str) -> Run | None:
        """The run with this id, or None (also when the id is not one at all)."""
        if not _valid(id):
            return None
        row = self._db().execute("SELECT * FROM runs WHERE id = ?", (id,)).fetchone()
        return _run(row) if row else None

    def runs(
        self,
        *,
        kinds: Iterable[str] | None = None,
        dataset: str | None = None,
        statuses: Iterable[str] | None = None,
        limit: int = 200,
    ) -> list[Run]:
        """Runs that match, newest first."""
        where, values = ["1"], []
        for column, wanted in (("kind", kinds), ("status", statuses), ("dataset", dataset and [dataset])):
            if wanted is not None:
                wanted = list(wanted)
                where.append(f"{column} IN ({','.join('?' * len(wanted))})")
                values += wanted
        query = f"SELECT * FROM runs WHERE {' AND '.join(where)} ORDER BY rowid DESC LIMIT ?"  # clocks may jump back
        return [_run(row) for row in self._db().execute(query, (*values, limit))]

    def forks(self, id: str) -> list[Run]:
        """The runs that were forked from a run, which need not be here any more, oldest first."""
        query = "SELECT * FROM runs WHERE kind = 'distill' AND json_extract(spec, '$.fork.run') = ? ORDER BY rowid"
        return [_run(row) for row in self._db().execute(query, (id,))] if _valid(id) else []

    def alike(self, kind: str, spec: BaseModel) -> list[Run]:
        """The runs of exactly this spec, newest first."""
        query = "SELECT * FROM runs WHERE kind = ? AND spec = ? ORDER BY rowid DESC"
        return [_run(row) for row in self._db().execute(query, (kind, json.dumps(spec.model_dump(mode="json"))))]

    def delete(self, id: str) -> None:
        """Forget a run and everything it wrote. ``Refused`` while a worker is at it."""
        with self._transaction() as db:
            row = self._row(db, id)
            if row["status"] in ("running", "paused") and _owned(row):
                raise Refused(f"Run {id} is {row['status']}; stop it before deleting it.")
            _forget(db, id)
        gone = self.home / "runs" / f".deleted-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.home / "runs" / id, gone)
            shutil.rmtree(gone, ignore_errors=True)

    def install(
        self,
        id: str,
        mark: str,
        folder: Path,
        events: list[tuple[str, int, dict[str, Any]]],
        evaluations: list[dict[str, Any]],
        **columns: Any,
    ) -> bool:
        """Make a finished run of what came with the program, all in one go; whether that was done.

        ``mark`` tells versions of it apart: one that was installed before is not installed again, also when its run
        was deleted since. The run of an earlier version gives way, unless it was evaluated here or another run was
        made from it. ``folder``, in the home, becomes the run's. ``columns`` are those of its row that have no default.
        """
        former = self.home / "runs" / f".deleted-{secrets.token_hex(4)}"
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM installed WHERE id = ? AND mark = ?", (id, mark)).fetchone():
                return False
            there = db.execute("SELECT 1 FROM runs WHERE id = ?", (id,)).fetchone()
            if there and self._built_upon(db, id):
                return False
            _forget(db, id)
            row = {"id": id, "status": "done", "progress": 1.0, **columns}
            row["spec"] = json.dumps(row["spec"])
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            db.execute(f"INSERT INTO runs({names}) VALUES({marks})", tuple(row.values()))
            _append(db, id, events)
            for evaluation in evaluations:
                self._add_evaluation(db, id, evaluation)
            db.execute("INSERT OR REPLACE INTO installed(id, mark) VALUES(?,?)", (id, mark))
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.folder(id), former)
            os.replace(folder, self.folder(id))
        shutil.rmtree(former, ignore_errors=True)
        return True

    def installed(self) -> dict[str, str]:
        """The marks of what was installed, by run id, whether or not the runs are still here."""
        return {row["id"]: row["mark"] for row in self._db().execute("SELECT * FROM installed")}

    def rename(self, id: str, title: str) -> None:
        """Call a run, and the student it trained, something else. ``Refused`` for what is no name."""
        title = title.strip()
        if not 1 <= len(title) <= 200 or not title.isprintable():
            raise Refused("A name must be one line of 1 to 200 characters.")
        with self._transaction() as db:
            self._row(db, id)
            _set(db, id, {"title": title})
            facts = self.student(id)
            if facts is not None:
                path = self.home / "runs" / id / "student" / "student.json"
                _write_aside(path, json.dumps({**facts, "name": title}))

    # ---- the worker's side ----

    def claim(self, pid: int) -> Run | None:
        """Take the run that has waited longest for process ``pid``, or None. No run is ever given to two processes.

        A viewer's is taken when no other waits and no worker is busy.
        """
        if self._db().execute(_NEXT).fetchone() is None:  # a plain read first: an idle worker asks ten times a second
            return None
        with self._transaction() as db:
            row = db.execute(_NEXT).fetchone()
            if row is None:
                return None
            self._own(db, row["id"], pid, time.time())
            _append(db, row["id"], [("status", 0, {"status": "running", "message": "Starting."})])
            return _run(db.execute("SELECT * FROM runs WHERE id = ?", (row["id"],)).fetchone())

    def update(self, id: str, **columns: Any) -> None:
        """Set columns of a run (message, step, seconds, progress, …) without an event."""
        with self._transaction() as db:
            _set(db, id, columns)

    def announce(self, id: str, status: str, message: str, *, step: int = 0, **data: Any) -> None:
        """Set status and message together and append the ``status`` event, with further ``data`` for its readers.

        A finished or interrupted run belongs to no process any more, and commands it did not hear are dropped.
        """
        assert status in STATUSES, status
        with self._transaction() as db:
            self._announce(db, id, status, message, step, data)

    def owner(self, id: str) -> tuple[int | None, str] | None:
        """The process that a run belongs to, as its number and signature; None when there is no such run."""
        row = self._db().execute("SELECT pid, worker FROM runs WHERE id = ?", (id,)).fetchone()
        return row and (row["pid"], row["worker"])

    def heartbeat(self, id: str, pid: int) -> None:
        """The worker ``pid`` says that it is still at the run."""
        with self._transaction() as db:
            db.execute("UPDATE runs SET heartbeat = ? WHERE id = ? AND pid = ?", (time.time(), id, pid))

    def append(self, id: str, events: list[tuple[str, int, dict[str, Any]]], **columns: Any) -> None:
        """Append events (kind, step, data), and set columns as ``update`` does, in one go.

        Numbers that are not finite become null, so that the JSON stays valid.
        """
        with self._transaction() as db:
            _append(db, id, events)
            _set(db, id, columns)

    def pending(self, id: str) -> list[str]:
        """Commands given since the last call, oldest first; reading takes them away."""
        if self._db().execute("SELECT 1 FROM control WHERE run = ? LIMIT 1", (id,)).fetchone() is None:
            return []
        with self._transaction() as db:
            commands = [
                r["command"] for r in db.execute("SELECT command FROM control WHERE run = ? ORDER BY id", (id,))
            ]
            db.execute("DELETE FROM control WHERE run = ?", (id,))
        return commands

    def give_way(self, id: str) -> None:
        """Put a viewer's run back into the queue, since another one waits: it starts over later."""
        with self._transaction() as db:
            row = self._row(db, id)
            message = "Waiting again: the presenter's run goes first."
            self._announce(db, id, "queued", message, row["step"], {})
            db.execute("UPDATE runs SET pid = NULL, worker = '', started = NULL WHERE id = ?", (id,))

    def release(self, id: str) -> bool:
        """Give up a paused run, so that the worker can do another. False when a command has come in between."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM control WHERE run = ? LIMIT 1", (id,)).fetchone():
                return False
            db.execute("UPDATE runs SET pid = NULL, worker = '' WHERE id = ? AND status = 'paused'", (id,))
            return True

    def rewind(self, id: str, step: int) -> None:
        """Forget frames, their events and curve points later than ``step``: a resumed run makes them again."""
        self.drop_frames(id, [later for later in self.frames(id) if later > step])
        with self._transaction() as db:
            db.execute(
                "DELETE FROM events WHERE run = ? AND step > ? AND kind IN ('frame', 'metric', 'accuracy')", (id, step)
            )
            db.execute("UPDATE runs SET step = ? WHERE id = ?", (step, id))

    def drop_frames(self, id: str, steps: Iterable[int]) -> None:
        """Remove the frames of these steps, their tensors and their events."""
        steps = list(steps)
        for step in steps:
            (self.folder(id) / "frames" / f"{step:06d}.webp").unlink(missing_ok=True)
            self.tensors_path(id, step).unlink(missing_ok=True)
        with self._transaction() as db:
            db.executemany("DELETE FROM events WHERE run = ? AND kind = 'frame' AND step = ?", [(id, s) for s in steps])

    def workers(self) -> list[dict[str, Any]]:
        """The living worker processes that are ready for runs: pid, machine (in words), when they became ready."""
        found = []
        for path in (self.home / "workers").glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                worker = json.loads(path.read_text())
                if alive(worker["pid"], worker["worker"], None, 0.0):
                    found.append(worker)
                elif here(worker["worker"]):
                    path.unlink(missing_ok=True)
        return found

    def servers(self) -> list[int]:
        """The living processes that have workers for this store."""
        parents = {tuple(worker["server"]) for worker in self.workers() if "server" in worker}
        return sorted(pid for pid, known in parents if alive(pid, known, None, 0.0))

    @contextlib.contextmanager
    def present(self, machine: str) -> Iterator[None]:
        """While the block runs, this process counts among ``workers``."""
        path = self.home / "workers" / f"{os.getpid()}.json"
        path.parent.mkdir(exist_ok=True)
        server = int(os.environ.get("LIMBECK_PARENT") or 0)
        facts = {"pid": os.getpid(), "worker": signature(os.getpid()), "machine": machine, "at": time.time()}
        facts["server"] = [server, signature(server)]
        _write_aside(path, json.dumps(facts))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def sweep(self) -> list[str]:
        """Mark the runs whose worker is gone as interrupted; returns their ids."""
        now, found = time.time(), []
        query = "SELECT * FROM runs WHERE status IN ('running', 'paused') AND pid IS NOT NULL"
        gone = [
            row
            for row in self._db().execute(query).fetchall()
            if not alive(row["pid"], row["worker"], row["heartbeat"], now)
        ]
        if not all(here(row["worker"]) for row in gone):
            time.sleep(SECOND_LOOK)  # it may be the clock that jumped
        for row in gone:
            with self._transaction() as db:
                again = db.execute("SELECT * FROM runs WHERE id = ?", (row["id"],)).fetchone()
                if again is None or any(again[c] != row[c] for c in ("pid", "worker", "status", "heartbeat")):
                    continue
                message = f"The worker went away. {resuming(row['kind'])}"
                self._announce(db, row["id"], "interrupted", message, row["step"], {})
            found.append(row["id"])
        return found

    def clean_uploads(self, days: float = 30) -> list[str]:
        """Delete files that people uploaded more than ``days`` ago and that no run speaks of; returns their names."""
        gone = []
        for path in (self.home / "uploads").glob("*"):
            age = (time.time() - path.stat().st_mtime) / 86_400
            if not 0 <= age <= 365:  # a clock was wrong, then or now: its days are counted from here
                os.utime(path)
                continue
            if age < days:
                continue
            if self._db().execute("SELECT 1 FROM runs WHERE instr(spec, ?) LIMIT 1", (path.name,)).fetchone():
                continue
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            gone.append(path.name)
        return gone

    # ---- events, frames, files ----

    def events(self, id: str, since: int = 0, kinds: tuple[str, ...] | None = None, limit: int = 5000) -> list[Event]:
        """Events of a run with an id above ``since``, oldest first."""
        if not _valid(id):
            return []
        some = f" AND kind IN ({','.join('?' * len(kinds))})" if kinds else ""
        query = f"SELECT * FROM events WHERE run = ? AND id > ?{some} ORDER BY id LIMIT ?"
        rows = self._db().execute(query, (id, since, *(kinds or ()), limit))
        return [Event(r["id"], r["run"], r["step"], r["kind"], json.loads(r["data"]), r["at"]) for r in rows]

    def folder(self, id: str) -> Path:
        """The folder of a run. ``Refused`` when the id is not one, so no path leaves the store."""
        if not _valid(id):
            raise Refused("That is not a run id: ids hold small letters, digits and hyphens only.")
        return self.home / "runs" / id

    def frames(self, id: str) -> list[int]:
        """Steps of which there is a frame, ascending."""
        if not _valid(id):
            return []
        try:
            names = os.listdir(self.home / "runs" / id / "frames")
        except FileNotFoundError:
            return []
        return sorted(int(n[:-5]) for n in names if n.endswith(".webp") and n[:-5].isdecimal())

    def frame_path(self, id: str, step: int) -> Path | None:
        """The frame of a step, or None."""
        if not _valid(id) or not isinstance(step, int) or not 0 <= step < 10**9:
            return None
        path = self.home / "runs" / id / "frames" / f"{step:06d}.webp"
        return path if path.is_file() else None

    def beside(self, id: str, name: str) -> Path | None:
        """What stands beside a run's film under one of the names ``BESIDE`` (see ``engine.runs.beside``), or None."""
        if not _valid(id) or name not in BESIDE:
            return None
        path = self.home / "runs" / id / "beside" / name
        return path if path.is_file() else None

    def write_beside(self, id: str, name: str, content: bytes) -> None:
        """Write one of the files ``BESIDE`` (aside, then renamed)."""
        folder = self.folder(id) / "beside"
        folder.mkdir(parents=True, exist_ok=True)
        _write_aside(folder / name, content)

    def tensors_path(self, id: str, step: int) -> Path:
        """Where the tensors behind the frame of a step are, if they are small enough to be kept."""
        return self.folder(id) / "moments" / f"{step:06d}.safetensors"

    def write_frame(self, id: str, step: int, image: bytes) -> None:
        """Write a frame (aside, then renamed)."""
        folder = self.folder(id) / "frames"
        folder.mkdir(parents=True, exist_ok=True)
        _write_aside(folder / f"{step:06d}.webp", image)

    def result_folder(self, id: str) -> Path | None:
        """The folder of a run's synthetic set, or None while there is none."""
        if not _valid(id):
            return None
        folder = self.home / "runs" / id / "result"
        return folder if (folder / "synthetic.json").is_file() else None

    def student(self, id: str) -> dict[str, Any] | None:
        """What is known about the student that a run trained (its ``student.json``), or None while there is none."""
        if not _valid(id):
            return None
        try:
            facts = json.loads((self.home / "runs" / id / "student" / "student.json").read_text())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return facts if isinstance(facts, dict) else None

    # ---- control ----

    def command(self, id: str, command: str) -> None:
        """Ask for ``pause``, ``resume`` or ``stop``.

        A run that has a worker obeys between two steps. Resuming one that has none (interrupted, failed, or paused and
        given up) queues it again; stopping such a run has its last checkpoint written as its result. Raises
        ``Refused`` with a sentence when the run's status does not allow the command.
        """
        if command not in ("pause", "resume", "stop"):
            raise Refused(f"There is no command “{command}”; a run can be paused, resumed or stopped.")
        with self._transaction() as db:
            row = self._row(db, id)
            status, owned = row["status"], row["pid"] is not None
            allowed = {
                "pause": ("running",),
                "resume": ("paused", "interrupted", "failed"),
                "stop": ("queued", "running", "paused", "interrupted"),
            }[command]
            if status not in allowed:
                verb = {"pause": "paused", "resume": "resumed", "stop": "stopped"}[command]
                raise Refused(f"Run {id} is {status}; only runs that are {_or(allowed)} can be {verb}.")
            if command == "pause" and row["kind"] != "distill":
                raise Refused("Only distillation can be paused; this run can be stopped.")
            fresh = not (self.home / "runs" / id / "checkpoint").is_dir()
            if owned:
                db.execute("INSERT INTO control(run, command, at) VALUES(?,?,?)", (id, command, time.time()))
            elif command == "stop" and fresh:
                self._announce(db, id, "stopped", "Stopped before it made anything.", row["step"], {})
            else:
                if command == "stop":
                    db.execute("INSERT INTO control(run, command, at) VALUES(?,?,?)", (id, command, time.time()))
                if status != "queued":
                    db.execute(f"UPDATE runs SET queued = {_LAST} WHERE id = ?", (time.time(), id))
                    self._announce(db, id, "queued", "Waiting for a free worker.", row["step"], {})

    def adopt(self, id: str, pid: int) -> Run:
        """Make an interrupted, failed or given-up run belong to process ``pid`` at once, past the queue."""
        with self._transaction() as db:
            row = self._row(db, id)
            if row["status"] not in ("interrupted", "failed", "paused", "queued") or row["pid"] is not None:
                raise Refused(f"Run {id} is {row['status']}; only runs that wait for a worker can be resumed.")
            self._own(db, id, pid, time.time())
            return _run(self._row(db, id))

    def queue_position(self, id: str) -> int:
        """How many queued runs come before this one (0 = next)."""
        query = (
            "SELECT COUNT(*) FROM runs a, runs b WHERE b.id = ? AND a.status = 'queued'"
            " AND (a.viewer != '', a.queued, a.rowid) < (b.viewer != '', b.queued, b.rowid)"
        )
        return self._db().execute(query, (id,)).fetchone()[0]

    def queue_length(self, viewers: bool = True) -> int:
        """How many runs wait for a worker; with those of viewers in a seminar, or without."""
        some = "" if viewers else " AND viewer = ''"
        return self._db().execute(f"SELECT COUNT(*) FROM runs WHERE status = 'queued'{some}").fetchone()[0]

    def viewed(self, since: float) -> list[Run]:
        """The runs that viewers have asked for since then, newest first."""
        query = "SELECT * FROM runs WHERE viewer != '' AND created > ? ORDER BY created DESC, rowid DESC"
        return [_run(row) for row in self._db().execute(query, (since,))]

    # ---- sweeps ----

    def keep_sweep(self, id: str, name: str, plan: dict[str, Any]) -> None:
        """Remember what a sweep varies; one that is known keeps its plan, and takes the new name."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO sweeps(id, name, plan, created) VALUES(?,?,?,?)"
                " ON CONFLICT(id) DO UPDATE SET name = excluded.name",
                (id, name, _json(plan), time.time()),
            )

    def sweeps(self, id: str | None = None) -> list[dict[str, Any]]:
        """The sweeps, newest first, or only the one with that id: id, name, plan, created."""
        where, values = ("WHERE id = ?", (id,)) if id is not None else ("", ())
        rows = self._db().execute(f"SELECT * FROM sweeps {where} ORDER BY rowid DESC LIMIT 200", values)
        return [{**dict(row), "plan": json.loads(row["plan"])} for row in rows]

    def cells(self, sweep: str) -> dict[int, Run]:
        """The runs of a sweep that are here, by their place in it."""
        query = "SELECT cells.place, runs.* FROM cells JOIN runs ON runs.id = cells.run WHERE sweep = ? ORDER BY place"
        return {row["place"]: _run(row) for row in self._db().execute(query, (sweep,))}

    def take_cell(self, sweep: str, place: int, run: str) -> None:
        """Let a run that is here already stand for a cell of a sweep."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO cells(sweep, place, run) VALUES(?,?,?)", (sweep, place, run))

    def swept(self, run: str) -> list[str]:
        """The sweeps that a run is a cell of."""
        return [row["sweep"] for row in self._db().execute("SELECT sweep FROM cells WHERE run = ?", (run,))]

    def forget_sweep(self, id: str) -> None:
        """Forget a sweep; its runs stay."""
        with self._transaction() as db:
            db.execute("DELETE FROM cells WHERE sweep = ?", (id,))
            db.execute("DELETE FROM sweeps WHERE id = ?", (id,))

    # ---- evaluations ----

    def add_evaluation(self, id: str, evaluation: dict[str, Any]) -> None:
        """Keep an evaluation (mean, std, accuracies, protocol, network, seeds, split, seconds) with the run."""
        with self._transaction() as db:
            self._row(db, id)
            self._add_evaluation(db, id, evaluation)

    def evaluations(self, ids: list[str]) -> list[dict[str, Any]]:
        """The evaluations of these runs, oldest first, each with its ``run`` and the time ``at`` it was made."""
        marks = ",".join("?" * len(ids))
        rows = self._db().execute(f"SELECT * FROM evaluations WHERE run IN ({marks}) ORDER BY id", ids)
        return [{**json.loads(r["data"]), "run": r["run"], "at": r["at"]} for r in rows]

    # ---- inside ----

    def _db(self) -> sqlite3.Connection:
        """This thread's own connection."""
        db = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self.home / "store.sqlite", timeout=5, isolation_level=None)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            self._local.db = db
        return db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it, or nothing when the block raises."""
        db = self._db()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # after some errors, a full disk's for one, SQLite has rolled back by itself
                db.execute("ROLLBACK")
            raise

    def _row(self, db: sqlite3.Connection, id: str) -> sqlite3.Row:
        row = db.execute("SELECT * FROM runs WHERE id = ?", (id,)).fetchone() if _valid(id) else None
        if row is None:
            raise Refused(f"There is no run “{str(id)[:80]}”; “python -m engine runs list” shows those there are.")
        return row

    def _own(self, db: sqlite3.Connection, id: str, pid: int, now: float) -> None:
        db.execute(
            "UPDATE runs SET status = 'running', message = 'Starting.', pid = ?, worker = ?, heartbeat = ?,"
            " started = COALESCE(started, ?), finished = NULL WHERE id = ?",
            (pid, signature(pid), now, now, id),
        )

    def _add_evaluation(self, db: sqlite3.Connection, id: str, evaluation: dict[str, Any]) -> None:
        db.execute("INSERT INTO evaluations(run, data, at) VALUES(?,?,?)", (id, _json(evaluation), time.time()))
        _append(db, id, [("evaluation", 0, evaluation)])

    def _built_upon(self, db: sqlite3.Connection, id: str) -> bool:
        """Whether a run was evaluated here, or another one was made from it."""
        if db.execute("SELECT 1 FROM runs WHERE instr(spec, ?) LIMIT 1", (json.dumps(id),)).fetchone():
            return True
        rows = db.execute("SELECT data FROM evaluations WHERE run = ?", (id,))
        return any(not json.loads(row["data"]).get("imported") for row in rows)

    def _announce(
        self, db: sqlite3.Connection, id: str, status: str, message: str, step: int, data: dict[str, Any]
    ) -> None:
        db.execute("UPDATE runs SET status = ?, message = ? WHERE id = ?", (status, message, id))
        if status in FINISHED or status == "interrupted":
            db.execute("UPDATE runs SET finished = ?, pid = NULL, worker = '' WHERE id = ?", (time.time(), id))
            db.execute("DELETE FROM control WHERE run = ?", (id,))
        _append(db, id, [("status", step, {"status": status, "message": message, **data})])

    def _dataset_of(self, source: str) -> str:
        """The dataset of the run that an evaluation reads, or nothing when it reads a path."""
        run = self.run(source)
        return run.dataset if run else ""

    def _title_of(self, source: str) -> str:
        """The title of the run that a student learns from, or nothing when it reads a path."""
        run = self.run(source)
        return run.title if run else ""


# ---- helpers --------------------------------------------------------------------------------------------------------


def resuming(kind: str) -> str:
    """What resuming an interrupted run does, as a sentence."""
    return "Resume continues from the last checkpoint." if kind == "distill" else "Resume starts it over."


def default_title(kind: str, dataset: str, values: dict[str, Any], source: str = "") -> str:
    """A short name for a run made from its spec; ``source``: the title of the run it reads."""
    if dataset.startswith("folder:"):
        dataset = Path(dataset.removeprefix("folder:")).stem
    if kind == "distill":
        fork = f", forked at step {values['fork']['step']:,}" if values.get("fork") else ""
        return f"{dataset}, {METHODS[values['method']].name.lower()}, {values['ipc']} per class{fork}"[:200]
    if kind == "baseline":
        return f"{dataset}, {values['kind']} images, {values['ipc']} per class"
    if kind == "evaluate":
        return f"{Path(values['source']).name}, {values['protocol']} protocol"
    if kind == "soften":
        return f"{source or Path(values['source']).name}, soft labels"[:200]
    if kind == "edit":
        return f"{source or Path(values['source']).name}, edited"[:200]
    if kind == "rank":
        return f"{source or Path(values['source']).name}, label and augmentation robustness"[:200]
    if kind == "student":
        return values["name"] or _student_title(dataset, values, source)
    return f"{dataset}, imported"


def _student_title(dataset: str, values: dict[str, Any], source: str) -> str:
    """Network, training set, and whatever else tells the student from its like."""
    if values["source"] == "full":
        source = f"{dataset}, {values['limit']:,} images" if values["limit"] else f"{dataset}, all images"
    elif values["source"] in BASELINES:
        source = f"{dataset}, {values['source']} images, {values['ipc']} per class"
    parts = [f"{values['network']} on {source or Path(values['source']).name}"]
    if values["network"] == "edge-popup":
        parts.append(f"{values['keep']:.0%} kept")
    if values["style"] != "original":
        parts.append(f"stylised ({values['style']})")
    if values["epsilon"]:
        parts.append(f"PGD {values['epsilon']:g}/255")
    if values["protocol"] != "auto":
        parts.append(values["protocol"])
    if values["seed"]:
        parts.append(f"seed {values['seed']}")
    return ", ".join(parts)[:200]


def _new_id(kind: str, dataset: str, values: dict[str, Any]) -> str:
    what = values.get("method") or (values.get("kind") if kind == "baseline" else kind)
    name = Path(dataset.removeprefix("folder:")).stem if dataset.startswith("folder:") else dataset
    number = values.get("ipc", "")
    if kind == "student":
        known = values["source"] == "full" or values["source"] in BASELINES
        what = f"student-{values['network']}-{values['source'] if known else 'set'}"
        number = values["ipc"] if values["source"] in BASELINES else ""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{name}-{what}-{number}".lower()).strip("-")[:40].strip("-")
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return f"{time.strftime('%Y%m%d-%H%M')}-{slug}-{''.join(secrets.choice(letters) for _ in range(5))}"


def _valid(id: object) -> bool:
    return isinstance(id, str) and RUN_ID.fullmatch(id) is not None


def _owned(row: sqlite3.Row) -> bool:
    return row["pid"] is not None and alive(row["pid"], row["worker"], row["heartbeat"], time.time())


def _or(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _run(row: sqlite3.Row) -> Run:
    values = {name: row[name] for name in Run.__dataclass_fields__}
    return Run(**{**values, "spec": json.loads(row["spec"])})


def _forget(db: sqlite3.Connection, id: str) -> None:
    for table, column in (
        ("runs", "id"),
        ("events", "run"),
        ("control", "run"),
        ("evaluations", "run"),
        ("cells", "run"),
    ):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (id,))


def _set(db: sqlite3.Connection, id: str, columns: dict[str, Any]) -> None:
    assert set(columns) <= set(_COLUMNS), columns
    if columns:
        names = ", ".join(f"{name} = ?" for name in columns)
        db.execute(f"UPDATE runs SET {names} WHERE id = ?", (*columns.values(), id))


def _append(db: sqlite3.Connection, id: str, events: list[tuple[str, int, dict[str, Any]]]) -> None:
    now = time.time()
    db.executemany(
        "INSERT INTO events(run, step, kind, data, at) VALUES(?,?,?,?,?)",
        [(id, step, kind, _json(data), now) for kind, step, data in events],
    )


def _json(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _write_aside(path: Path, content: str | bytes) -> None:
    with aside(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
