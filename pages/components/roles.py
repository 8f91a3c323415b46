"""Who may do what: the presenter everything, viewers of a seminar look around and train quick students (torch-free).

Outside seminar mode everybody is the presenter. Pages get store, executor and desk from ``shared``, which hands viewers
those below: they read, and refuse the rest with a sentence. What pages grey out is a courtesy; this is what holds.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import streamlit as st
from pydantic import BaseModel
from streamlit.runtime.scriptrunner import get_script_run_ctx

from engine import seminar
from engine.data.catalogue import availability
from engine.errors import Refused
from engine.probes.desk import Desk, digest_of, question_of
from engine.runs.executor import LocalExecutor
from engine.runs.store import Store
from engine.spec import StudentSpec

# What a quick student of a viewer may be: seconds of a CPU, whatever the rest of its settings are.
QUICK: dict[str, tuple[Any, ...]] = {
    "protocol": ("quick",),
    "network": ("convnet", "lenet", "mlp"),
    "style": ("original",),
    "epsilon": (0.0,),
    "epochs": (None,),
    "device": ("auto", "cpu"),
    "name": ("",),  # it would stand on the projector
}
WORDS = {"style": "Training images' style", "epsilon": "Adversarial radius"}
MADE_NOW = ("full", "random")  # training sets besides the runs': all images, some at random; others train to select
WIDEST, DEEPEST = 128, 3
TOGETHER = 6  # students of all viewers waiting or in training: what a worker does in about a minute
EACH_SECONDS = 120.0  # of a worker, for one viewer in a day: some ten students
DAY = 12 * 3600.0
_counting = threading.Lock()


def presenter() -> bool:
    """Whether the page is drawn for somebody who may do everything. The server itself may, too."""
    key = seminar.presenter_key()
    if not key or get_script_run_ctx(suppress_warning=True) is None:
        return True
    return seminar.right_token(key, _cookie(seminar.cookie_name(key)))


def only(what: str) -> str:
    """The sentence for a viewer who tries."""
    return f"Only the presenter can {what} here."


def demand(what: str) -> None:
    """Raise ``Refused`` for a viewer. ``what`` goes on from “Only the presenter can”."""
    if not presenter():
        raise Refused(only(what))


def locked(what: str, **otherwise: Any) -> dict[str, Any]:
    """The ``disabled`` and ``help`` of a button that does what only the presenter may."""
    return otherwise if presenter() else {**otherwise, "disabled": True, "help": only(what)}


def viewer() -> str:
    """Who a viewer is: their browser, else their session. Made for fairness, and easily forged."""
    return (
        _cookie("limbeck_viewer")[:64]
        or getattr(get_script_run_ctx(suppress_warning=True), "session_id", "")
        or "somebody"
    )


def _cookie(name: str) -> str:
    value = st.context.cookies.get(name)
    return value if isinstance(value, str) else ""


# ---- what viewers are handed ----------------------------------------------------------------------------------------


def _reads(*names: str) -> Any:
    """A class that refuses every method it inherits but those that are named."""

    def refuse(self: Any, *_: Any, **__: Any) -> Any:
        raise Refused(only("do that"))

    def decorate(cls: type) -> type:
        for parent in cls.__mro__[1:-1]:
            for name, value in vars(parent).items():
                if callable(value) and not name.startswith("_") and name not in names and name not in vars(cls):
                    setattr(cls, name, refuse)
        return cls

    return decorate


@_reads(
    "run", "runs", "viewed", "events", "evaluations", "workers", "folder", "frames", "frame_path", "result_folder",
    "student", "queue_position", "queue_length", "forks", "alike", "sweeps", "cells", "swept", "tensors_path",
)  # fmt: skip
class ViewedStore(Store):
    """The store, to be read. A viewer's own student can be stopped."""

    def command(self, id: str, command: str) -> None:
        run = self.run(id)
        if command != "stop" or run is None or run.viewer != viewer():
            raise Refused(only("pause, resume or stop runs"))
        super().command(id, command)

    def delete(self, id: str) -> None:
        raise Refused(only("delete runs"))

    def rename(self, id: str, title: str) -> None:
        raise Refused(only("rename runs"))


@_reads("list", "ready", "machine")
class ViewedExecutor(LocalExecutor):
    """The executor, for quick students alone. It has no workers of its own."""

    store: ViewedStore

    def submit(self, kind: str, spec: BaseModel, title: str = "") -> str:
        if not isinstance(spec, StudentSpec):
            raise Refused(f"{only('start runs')} Viewers can train quick students, on the page Students.")
        check_quick(spec, self.store)
        with _counting:
            check_budget(self.store, viewer())
            return Store.submit(self.store, kind, spec, viewer=viewer())

    def cancel(self, id: str) -> None:
        self.store.command(id, "stop")


@_reads("look", "file")
class ViewedDesk(Desk):
    """The desk, for what was asked before."""

    def ask(self, probe: str, spec: BaseModel, again: bool = False) -> str:
        digest = digest_of(question_of(probe, spec))
        if again or self.look(digest).status == "unknown":
            raise Refused(f"{only('put new questions')} What has been answered is shown.")
        return digest

    def cancel(self, digest: str) -> None:
        raise Refused(only("cancel questions"))


# ---- quick students -------------------------------------------------------------------------------------------------


def check_quick(spec: StudentSpec, where: Store) -> None:
    """``Refused`` for a student that a viewer may not train; the sentence says what to choose."""
    for name, allowed in QUICK.items():
        if getattr(spec, name) not in allowed:
            words = " or ".join(str(value) or "empty" for value in allowed if value is not None) or "the protocol's own"
            label = WORDS.get(name, name.capitalize())
            raise Refused(f"Viewers train quick students: {label} must be {words}. {only('train others')}")
    if spec.width > WIDEST or spec.depth > DEEPEST:
        raise Refused(f"Viewers train small networks: width up to {WIDEST}, depth up to {DEEPEST}.")
    if spec.source in MADE_NOW:
        if spec.dataset is None or availability(spec.dataset).how != "built in":
            raise Refused(
                "Viewers train on built-in datasets, or on the set of a run that is here; choose one of them."
            )
    elif where.result_folder(spec.source) is None or spec.dataset is not None:
        raise Refused("Viewers train on all images, random ones, or the set of a run that is here; choose one of them.")


def check_budget(where: Store, who: str) -> None:
    """``Refused`` while a viewer, or all of them together, have asked for enough."""
    runs = where.viewed(time.time() - DAY)
    going = [run for run in runs if run.status in ("queued", "running")]
    if any(run.viewer == who for run in going):
        raise Refused("One student at a time: yours is not trained yet.")
    if len(going) >= TOGETHER:
        raise Refused(f"{len(going)} students of viewers wait already; try again in a minute.")
    if used(where, who) >= EACH_SECONDS:
        raise Refused(f"You have used the {EACH_SECONDS / 60:g} minutes of training that each viewer has.")


def used(where: Store, who: str) -> float:
    """Seconds that a worker has spent on a viewer's students today."""
    own = [run for run in where.viewed(time.time() - DAY) if run.viewer == who]
    return sum((run.finished or time.time()) - run.started for run in own if run.started)


def allowance() -> str:
    """What a viewer may do on the page of students, in a sentence."""
    return (
        "Viewers can train quick students: protocol Quick, a ConvNet, LeNet or MLP, one at a time, on built-in images "
        "or the set of a run. They wait while the presenter's runs are going."
    )
