"""Where questions to the probes are asked and answers are kept (torch-free).

A question is a probe's id and its spec. Its folder ``LIMBECK_HOME/probes/<digest>/`` is named after a digest of both,
so that a question that was answered before is answered at once. In it: ``question.json``, ``state.json`` while it is
worked on, ``cancel`` when nobody wants it any more, and in the end ``answer.json`` with the files it names, or
``refusal.json`` with a sentence. ``probes/queue/`` holds an empty file for every question that is to be answered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from engine.errors import Refused
from engine.home import aside, limbeck_home
from engine.runs.process import alive

VERSION = 1  # raise it when answers mean something else than those kept before
DIGEST = re.compile(r"^[0-9a-f]{24}$")
FILE = re.compile(r"^[a-z0-9][a-z0-9_-]{0,80}\.(png|csv|json)$")
KEPT = 2000  # answers; the oldest go first

Status = Literal["unknown", "waiting", "working", "done", "refused", "cancelled"]


@dataclass(frozen=True)
class State:
    """How far a question has come. ``progress`` in [0, 1]; ``message`` a sentence; ``answer`` once ``done``."""

    status: Status
    progress: float = 0.0
    message: str = ""
    answer: Answer | None = None


@dataclass(frozen=True)
class Answer:
    """What a probe found out.

    ``tables``: tidy tables by name, each a list of rows (dictionaries with the same keys, plain numbers and strings).
    ``facts``: anything else as JSON. ``images``: PNG files by name, in the answer's folder. ``notes``: sentences that
    a reader must not miss. ``seconds``: time it took.
    """

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class Desk:
    """The questions and answers of one home folder. Safe to use from many threads and processes at once."""

    def __init__(self, home: Path | None = None):
        self.home = Path(home) if home is not None else limbeck_home()
        self.root = self.home / "probes"
        self.queue = self.root / "queue"
        self.queue.mkdir(parents=True, exist_ok=True)

    # ---- who asks ----

    def ask(self, probe: str, spec: BaseModel, again: bool = False) -> str:
        """Put a question; returns its digest. One that is known is not put again, unless it found no answer (it was
        cancelled, or refused) and shall be tried ``again``."""
        question = question_of(probe, spec)
        digest = digest_of(question)
        folder = self.root / digest
        status = self.look(digest).status
        if status == "unknown" or (again and status in ("cancelled", "refused")):
            for name in ("cancel", "refusal.json", "state.json"):
                (folder / name).unlink(missing_ok=True)
            write_json(folder / "question.json", {**question, "asked": time.time()})
            (self.queue / digest).touch()
        return digest

    def look(self, digest: str) -> State:
        """The state of a question."""
        if not DIGEST.fullmatch(digest):
            return State("unknown")
        folder = self.root / digest
        found = read_json(folder / "answer.json")
        if found is not None:
            return State("done", 1.0, "Done.", Answer(**{**found, "notes": tuple(found["notes"])}))
        if (refusal := read_json(folder / "refusal.json")) is not None:
            return State("refused", 0.0, refusal["sentence"])
        if (folder / "cancel").exists():
            return State("cancelled", 0.0, "Cancelled.")
        state = read_json(folder / "state.json")
        if state is not None and alive(state["pid"], state["worker"], None, 0.0):
            return State("working", state["progress"], state["message"])
        return State("waiting", 0.0, "Waiting.") if (folder / "question.json").exists() else State("unknown")

    def cancel(self, digest: str) -> None:
        """Nobody wants the answer any more: one being worked on is given up at its next step."""
        if DIGEST.fullmatch(digest) and self.look(digest).status in ("waiting", "working"):
            (self.root / digest / "cancel").touch()

    def file(self, digest: str, name: str) -> Path | None:
        """A file of an answer, or None."""
        if not DIGEST.fullmatch(digest) or not FILE.fullmatch(name):
            return None
        path = self.root / digest / name
        return path if path.is_file() else None

    # ---- who answers ----

    def waiting(self) -> list[str]:
        """Digests of the questions to be answered, the latest first: it is what somebody looks at now.

        One whose answerer died is among them again; one that was cancelled is taken off.
        """
        found = []
        for marker in self.queue.iterdir():
            status = self.look(marker.name).status
            with contextlib.suppress(OSError):
                if status == "waiting":
                    found.append((marker.stat().st_mtime, marker.name))
                elif status != "working":
                    marker.unlink()
        return [digest for _, digest in sorted(found, reverse=True)]

    def question(self, digest: str) -> dict[str, Any]:
        """The probe's id and the values of its spec."""
        return read_json(self.root / digest / "question.json") or {}

    def prune(self) -> None:
        """Forget the oldest answers beyond ``KEPT``."""
        folders = sorted((f for f in self.root.iterdir() if DIGEST.fullmatch(f.name)), key=lambda f: f.stat().st_mtime)
        for folder in folders[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


class Cancelled(Exception):
    """Nobody wants the answer any more."""


def question_of(probe: str, spec: BaseModel) -> dict[str, Any]:
    """What is asked, as it is kept and digested."""
    return {"version": VERSION, "probe": probe, "spec": spec.model_dump(mode="json")}


def digest_of(question: dict[str, Any]) -> str:
    """24 hexadecimal digits that stand for a question."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:24]


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as part:
        part.write_text(json.dumps(value))


def read_json(path: Path) -> Any:
    """The JSON in a file, or None when there is no such file, or none to be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def find(probes: dict[str, Any], id: str) -> Any:
    """The probe of this id; ``Refused`` with what there is."""
    if id not in probes:
        raise Refused(f"There is no probe “{id}”; choose one of {', '.join(probes)}.")
    return probes[id]
