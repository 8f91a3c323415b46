"""A worker process: imports torch once, then takes one run after the other from the store.

``python -m engine.runs.worker``; ``LIMBECK_PARENT`` names the process without which it ends, ``LIMBECK_THREADS`` the
threads torch may use. SIGTERM has a run in progress saved and marked as interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from importlib import import_module

import numpy as np
import torch

from engine import data as datasets
from engine.accel import give_memory_back, pick_accel
from engine.data.catalogue import availability, default_dataset
from engine.distill.base import Diverged
from engine.errors import Refused
from engine.faults import outside
from engine.networks import make_network
from engine.presets import PRESETS
from engine.runs import distil, editing, evaluating, imports, ranking, softening, studying
from engine.runs.executor import cores
from engine.runs.film import encode
from engine.runs.job import GaveWay, Heart, Job, Left, Lost, Released, Stopped
from engine.runs.process import leave_with_parent
from engine.runs.store import Run, Store, resuming

JOBS: dict[str, Callable[[Job], None]] = {
    "distill": distil.distil,
    "baseline": evaluating.make_baseline,
    "evaluate": evaluating.evaluate,
    "import": imports.import_run,
    "student": studying.study,
    "soften": softening.soften_run,
    "rank": ranking.rank_run,
    "edit": editing.edit_run,
}


def run_job(store: Store, run: Run, *, leaving: threading.Event | None = None, shares: bool = True) -> None:
    """Do a claimed run, whatever happens in it: its status says how it ended, and nothing is raised.

    Only where not even that can be written down does a command line's (``shares`` is False) raise ``Refused`` with it;
    a worker tries again until it can.
    """
    job = Job(store, run, leaving=leaving, shares=shares)
    if torch.are_deterministic_algorithms_enabled():  # a run before asked for them
        torch.use_deterministic_algorithms(False)
    try:
        with Heart(store, run.id):
            JOBS[run.kind](job)
    except (Released, Lost):
        pass
    except GaveWay:
        store.give_way(run.id)
    except Left:
        _end(job, "interrupted", f"The program was ended. {resuming(run.kind)}")
    except Stopped:
        _end(job, "stopped", "Stopped before it made anything.")
    except Refused as error:
        _end(job, "failed", outside(error, "resume the run") or str(error))
    except Exception as error:
        with contextlib.suppress(OSError):
            job.log_error()
        if isinstance(error, Diverged):
            message = "The images diverged before the first step was done. Try a lower learning rate."
        elif isinstance(error, MemoryError | torch.OutOfMemoryError):
            message = "There was not enough memory. Try fewer images per class or smaller batches."
        else:
            message = outside(error, "resume the run")
            message = (
                message or f"Something went wrong inside the run ({type(error).__name__}); its log.txt says where."
            )
        _end(job, "failed", message)


def _end(job: Job, status: str, message: str) -> None:
    """Say how a run ended; on a full disk, as soon as there is room for it, and not at all when the process has to go:
    the run is then found to have been left."""
    while True:
        try:
            return job.store.announce(job.id, status, message)
        except (OSError, sqlite3.Error):
            if not job.shares:
                raise Refused(message) from None
            if job.leaving.wait(1.0):
                return


def settle(niceness: int) -> None:
    """Threads and priority of a process that runs jobs, and quiet from the compiler about machines without CUDA."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    torch.set_num_threads(int(os.environ.get("LIMBECK_THREADS") or cores()))
    if niceness:
        with contextlib.suppress(OSError, AttributeError):
            os.nice(niceness)  # the server, which draws the pages, goes first


def main() -> int:
    """The loop of a worker process."""
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    settle(niceness=5)
    store = Store()
    parent = int(os.environ.get("LIMBECK_PARENT") or 0)
    threading.Thread(target=leave_with_parent, args=(parent, leaving), daemon=True).start()
    warm_up()
    imports.complete(store)
    likely = list(dict.fromkeys(preset.values["dataset"] for preset in PRESETS.values()))
    while not leaving.is_set():
        try:
            with store.present(pick_accel().describe()):
                _serve(store, likely, leaving)
        except (OSError, sqlite3.Error) as error:
            if not outside(error):
                raise
            leaving.wait(2.0)  # a full disk or a busy store: all that was read and compiled shall not be lost over it
    return 0


def _serve(store: Store, likely: list[str], leaving: threading.Event) -> None:
    """Take one run after the other."""
    while not leaving.is_set():
        run = store.claim(os.getpid())
        if run is not None:
            run_job(store, run, leaving=leaving)
            give_memory_back()
        elif not likely or not _read_ahead(store, likely, leaving):
            leaving.wait(0.1)


def warm_up() -> None:
    """What the first run would otherwise wait for: torch's first operations and the datasets likely to be asked for."""
    import_module("torch._inductor")  # seconds; both compiling and deterministic algorithms need it
    encode(np.zeros((8, 8, 3), np.uint8))
    network = make_network("convnet", 1, 32, 10, width=8)
    network(torch.zeros(2, 1, 32, 32)).sum().backward()
    for name in dict.fromkeys(("digits", default_dataset())):
        if availability(name).how in ("built in", "local"):
            with contextlib.suppress(Refused, OSError):
                datasets.load(name)


class _Wanted(Exception):
    """There is something better to do."""


def _read_ahead(store: Store, likely: list[str], leaving: threading.Event) -> bool:
    """Read one of the ``likely`` datasets that are on this machine while nothing else is to be done.

    Returns False when there was none to read. Gives way as soon as a run is queued.
    """

    def give_way(*_: object) -> None:
        if leaving.is_set() or store.queue_length():
            raise _Wanted

    name = likely.pop(0)
    if availability(name).how != "local":
        return False
    try:
        datasets.load(name, progress=give_way)
    except _Wanted:
        likely.append(name)
    except Exception:  # whoever asks for this dataset will be told what is wrong with it
        return False
    return True


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a compiler still at work in the background would hold up the ending, or crash it
