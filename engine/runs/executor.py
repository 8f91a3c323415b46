"""Keeps warm worker processes alive for a server (torch-free)."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from engine.faults import outside
from engine.runs.store import Run, Store

log = logging.getLogger("limbeck.executor")
ROOT = Path(__file__).resolve().parents[2]  # where ``python -m engine.runs.worker`` finds the engine
LOG_LIMIT = 5_000_000  # bytes after which workers.log starts afresh


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalExecutor:
    """Runs what the store has queued in worker processes on this machine.

    ``slots`` workers take one run each at a time: one on machines with up to four cores, where two would only slow
    each other down, else two. Workers import torch once and wait, so that the first image of a run does not. ``module``
    is what they execute: the worker of runs, or the answerer of probes.
    """

    def __init__(self, store: Store, slots: int | None = None, module: str = "engine.runs.worker"):
        self.store = store
        self.module = module
        self.slots = slots or (1 if cores() <= 4 else 2)
        self._workers: list[subprocess.Popen[bytes] | None] = [None] * self.slots
        self._not_before = [0.0] * self.slots
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, kind: str, spec: BaseModel, title: str = "") -> str:
        """Queue a run; see ``Store.submit``."""
        return self.store.submit(kind, spec, title)

    def cancel(self, id: str) -> None:
        """Ask a run to stop; ``Refused`` when it has already ended."""
        self.store.command(id, "stop")

    def list(self) -> list[Run]:
        """All runs, newest first."""
        return self.store.runs()

    def start(self) -> None:
        """Start the workers and watch over them: a dead one is replaced, what it was doing becomes interrupted."""
        self._closing.clear()
        self._watch()
        self._thread = threading.Thread(target=self._keep_watching, name="limbeck-executor", daemon=True)
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether the workers are watched over."""
        return self._thread is not None and self._thread.is_alive()

    def ready(self) -> bool:
        """Whether a worker has imported torch and waits for runs or does one."""
        return bool(self.store.workers())

    def machine(self) -> str:
        """What the workers compute on, in words; empty while none is ready."""
        return next((worker["machine"] for worker in self.store.workers()), "")

    def shutdown(self, patience: float = 6.0) -> None:
        """Stop the workers and all they started. A run in progress saves a checkpoint and becomes interrupted."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            workers = [w for w in self._workers if w is not None]
            for worker in workers:
                _signal(worker, signal.SIGTERM)
            deadline = time.monotonic() + patience
            for worker in workers:
                try:
                    worker.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    pass
                _signal(worker, signal.SIGKILL, group=True)
                worker.wait()
            self._workers = [None] * self.slots
        with contextlib.suppress(OSError, sqlite3.Error):  # whoever comes next finds what is left of them
            self.store.sweep()

    # ---- inside ----

    def _keep_watching(self) -> None:
        told = ""
        while not self._closing.wait(1.0):
            try:
                self._watch()
                told = ""
            except Exception as error:  # a full disk or a locked store must not end the watch
                if told != (told := outside(error) or repr(error)):
                    log.error("The workers cannot be watched over. %s", told)

    def _watch(self) -> None:
        with self._lock:
            for slot, worker in enumerate(self._workers):
                if worker is not None and worker.poll() is None:
                    continue
                if worker is not None:
                    log.warning("worker %d ended with status %s", worker.pid, worker.returncode)
                    _signal(worker, signal.SIGKILL, group=True)  # compilers it had started
                    self._workers[slot] = None
                if time.monotonic() >= self._not_before[slot]:
                    self._workers[slot] = self._spawn()
                    self._not_before[slot] = time.monotonic() + 5  # one that dies at once is not restarted at once
        self.store.sweep()

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "LIMBECK_HOME": str(self.store.home),
            "LIMBECK_PARENT": str(os.getpid()),
            "LIMBECK_THREADS": str(max(1, cores() // self.slots)),
        }
        with self._log() as output:
            return subprocess.Popen(
                [sys.executable, "-m", self.module],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _log(self) -> IO[bytes]:
        path = self.store.home / "workers.log"
        fresh = not path.exists() or path.stat().st_size > LOG_LIMIT
        return path.open("wb" if fresh else "ab")


def _signal(worker: subprocess.Popen[bytes], number: int, group: bool = False) -> None:
    """Signal a worker, or its whole process group (which outlives it when it has children)."""
    try:
        if group:
            os.killpg(worker.pid, number)
        else:
            worker.send_signal(number)
    except (ProcessLookupError, PermissionError):
        pass
