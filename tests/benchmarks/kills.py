"""What is left after the power plug was pulled, again and again: prints a report.

    python tests/benchmarks/kills.py [--kills 100] [--servers 20] [--seed 0] [--methods dm,dc,…] [--json FILE]

Short deterministic runs of several methods on the built-in digits are first done without interruption. Then the same
runs are done on a second home folder while their worker, or the server, is killed with SIGKILL at random moments (with
the server, half of the time its worker at the same instant); each time the run is resumed as a click would. Checked
after every kill: SQLite's own integrity check, that each JSON, safetensors, checkpoint and frame written since can be
read whole, and that the run says that it was interrupted. Checked at the end of every run: its result has the bits of
the uninterrupted one, and its film has no hole and no frame too many. Half an hour on two cores; anything else that
runs beside it makes it slower, not wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.runs.process import birth  # noqa: E402
from engine.runs.store import FINISHED, Store  # noqa: E402
from engine.spec import build_spec  # noqa: E402
from tests.benchmarks.page import serve  # noqa: E402

SMALL = {"dataset": "digits", "width": 8, "depth": 2, "batch_real": 32, "deterministic": True, "students": 0}
RUNS: dict[str, dict[str, Any]] = {  # each takes some seconds
    "dm": {"steps": 900, "bank_size": 4, "lr_img": 0.5},
    "dc": {"steps": 150, "bank_size": 4},
    "frepo": {"steps": 300, "ipc": 2, "lr_img": 0.01},
    "dd": {
        "steps": 120,
        "ipc": 2,
        "network": "mlp",
        "distill_steps": 2,
        "distill_epochs": 1,
        "lr_step": 0.1,
        "lr_img": 0.05,
    },
    "mtt": {"steps": 120, "syn_steps": 4, "experts": 2, "step_size": 0.1, "lr_img": 300.0},
}
MOST = 6  # kills that one run has to bear
PATIENCE = 180.0  # seconds after which something that should happen has not


@dataclass
class Log:
    """What was done, and everything that was not as it should be."""

    killed: collections.Counter[str] = field(default_factory=collections.Counter)  # by what the run was about
    servers: int = 0
    resumed: int = 0
    runs: int = 0
    equal: int = 0
    checks: int = 0
    files: int = 0
    parts: int = 0  # hidden files of killed writers, which nobody takes for the real ones
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        self.problems.append(text)
        print("PROBLEM", text, flush=True)


class Limbeck:
    """A server on a home folder, and the hand that kills it."""

    def __init__(self, home: Path):
        self.home, self.store = home, Store(home)
        self.process, _ = serve(home, warm=0)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def start(self) -> None:
        self.process, _ = serve(self.home, warm=0)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)


def spec_of(method: str, seed: int, share: float = 1.0) -> Any:
    values = {**SMALL, **RUNS[method]}
    values["steps"] = max(1, round(share * values["steps"]))
    if method == "mtt":
        values["batch_real"] += seed  # experts are shared by the runs they suit: these have their own
    return build_spec("distill", method=method, seed=seed, **values)


# ---- what must hold -------------------------------------------------------------------------------------------------


def look_through(store: Store, since: float, log: Log) -> None:
    """The database, and every file that was written after ``since``."""
    log.checks += 1
    with contextlib.closing(sqlite3.connect(store.home / "store.sqlite", timeout=30)) as db:
        said = db.execute("PRAGMA integrity_check").fetchall()
    if said != [("ok",)]:
        log.problem(f"integrity_check says {said[:3]}")
    readers = {".json": _json, ".safetensors": load_file, ".pt": _archive, ".webp": _picture}
    for path in store.home.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # thinned out, or finished, meanwhile
            if not path.is_file() or path.stat().st_mtime < since:
                continue
            if path.name.startswith("."):
                log.parts += 1
            elif path.suffix in readers:
                log.files += 1
                try:
                    readers[path.suffix](path)
                except FileNotFoundError:
                    raise
                except Exception as error:
                    log.problem(f"{path.relative_to(store.home)} cannot be read: {type(error).__name__} {error}")


def _json(path: Path) -> None:
    json.loads(path.read_text())


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("damaged")


def _picture(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def compare(store: Store, id: str, wanted: dict[str, np.ndarray], log: Log) -> None:
    """A finished run with the one that nothing interrupted."""
    log.runs += 1
    run, found = store.run(id), load_file(store.result_folder(id) / "synthetic.safetensors")
    same = found.keys() == wanted.keys() and all(
        found[k].dtype == wanted[k].dtype and found[k].tobytes() == wanted[k].tobytes() for k in wanted
    )
    log.equal += same
    if not same:
        log.problem(f"{id}: the result is not that of the uninterrupted run")
    told = [e.step for e in store.events(id, kinds=("frame",), limit=100_000)]
    if not told == sorted(set(told)) == store.frames(id) or told[0] != 0 or told[-1] != run.step:
        log.problem(f"{id}: the film has holes or frames too many")
    seconds = [e.data["seconds"] for e in store.events(id, kinds=("metric",), limit=100_000)]
    if seconds != sorted(seconds):
        log.problem(f"{id}: the curve goes back in time")


# ---- killing --------------------------------------------------------------------------------------------------------


def references(specs: list[Any]) -> list[tuple[dict[str, np.ndarray], float]]:
    """Result and seconds of every run when nothing interrupts it."""
    with tempfile.TemporaryDirectory() as folder:
        limbeck = Limbeck(Path(folder))
        try:
            found = []
            for spec in specs:
                id = limbeck.store.submit("distill", spec)
                until(lambda id=id: limbeck.store.run(id).status in FINISHED, "a run without interruption ends")
                run = limbeck.store.run(id)
                assert run.status == "done", run.message
                result = load_file(limbeck.store.result_folder(id) / "synthetic.safetensors")
                found.append(({k: v.copy() for k, v in result.items()}, run.finished - run.started))
            return found
        finally:
            limbeck.end()


def strike(limbeck: Limbeck, id: str, left: list[str], chance: random.Random, log: Log) -> None:
    """Kill, wait until everybody knows, look through what is left, and resume."""
    what = left.pop()
    store, began = limbeck.store, time.time() - 1
    run = store.run(id)
    pid = run.pid
    if pid is None:  # it has just ended
        left.append(what)
        return
    if what == "server":
        limbeck.kill()
        log.servers += 1
        if chance.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        else:
            until(lambda: birth(pid) == "", "the worker of a killed server ends")
        look_through(store, began, log)
        limbeck.start()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    stage = run.message.split(" at step")[0].rstrip(".0123456789% ")
    log.killed[f"{what}: {stage or run.status}"] += 1
    until(lambda: store.run(id).status not in ("running", "paused"), "a killed run is interrupted")
    look_through(store, began, log)
    run = store.run(id)
    if run.status == "interrupted":
        if not run.message.endswith("Resume continues from the last checkpoint."):
            log.problem(f"{id}: an interrupted run says “{run.message}”")
        store.command(id, "resume")
        log.resumed += 1
    elif run.status not in FINISHED:
        log.problem(f"{id}: after a kill the run is {run.status}: {run.message}")


def ordeal(limbeck: Limbeck, spec: Any, seconds: float, left: list[str], chance: random.Random, log: Log) -> str:
    """One run from beginning to end, killed up to ``MOST`` times on its way; its id."""
    store = limbeck.store
    id = store.submit("distill", spec)
    for _ in range(MOST):
        until(lambda: store.run(id).status not in ("queued",), "a queued run begins")
        if not left:
            break
        now = store.run(id)
        rest = max(1.0, seconds * (1 - now.progress))
        end = time.monotonic() + chance.uniform(0, rest)
        while time.monotonic() < end and store.run(id).status == "running":
            time.sleep(0.002)
        if store.run(id).status != "running" or store.run(id).pid is None:
            break
        strike(limbeck, id, left, chance, log)
    until(lambda: store.run(id).status in (*FINISHED, "interrupted"), "a run ends")
    return id


def measure(args: argparse.Namespace) -> dict[str, Any]:
    os.environ.pop("LIMBECK_DATA", None)
    began, log, chance = time.monotonic(), Log(), random.Random(args.seed)
    left = ["worker"] * args.kills + ["server"] * args.servers
    chance.shuffle(left)
    specs = [spec_of(method, seed, args.share) for seed in range(args.seeds) for method in args.methods.split(",")]
    wanted = references(specs)
    print(f"{len(specs)} runs without interruption: {time.monotonic() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        limbeck = Limbeck(Path(folder))
        try:
            while left:
                for spec, (result, seconds) in zip(specs, wanted, strict=True):
                    id = ordeal(limbeck, spec, seconds, left, chance, log)
                    run = limbeck.store.run(id)
                    if run.status == "done":
                        compare(limbeck.store, id, result, log)
                    else:
                        log.problem(f"{id}: ended as {run.status}: {run.message}")
                    print(f"{len(left):4} kills left, {log.equal} of {log.runs} runs equal", flush=True)
                    if not left:
                        break
            look_through(limbeck.store, 0, log)
        finally:
            limbeck.end()
    workers = sum(n for what, n in log.killed.items() if what.startswith("worker"))
    return {**vars(log), "killed": dict(log.killed), "workers": workers, "seconds": time.monotonic() - began}


def report(found: dict[str, Any]) -> str:
    lines = [
        f"{found['workers']} workers and {found['servers']} servers killed, {found['resumed']} times resumed, in "
        f"{found['seconds'] / 60:.0f} minutes",
        f"{found['equal']} of {found['runs']} runs ended with the bits of the uninterrupted run",
        f"{found['checks']} checks of the database, {found['files']} files read, {found['parts']} parts that killed "
        "writers left",
        *(f"{count:5} × {what}" for what, count in sorted(found["killed"].items(), key=lambda item: -item[1])),
        f"{len(found['problems'])} problems",
        *found["problems"],
    ]
    return "\n".join(lines)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of workers")
    parser.add_argument("--servers", type=int, default=20, help="kills of servers")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each method without interruption to compare with")
    parser.add_argument("--share", type=float, default=1.0, help="of the runs' usual steps, for a busy machine")
    parser.add_argument("--methods", default=",".join(RUNS))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args(given)


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no server is left behind
    found = measure(args)
    print(report(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
