"""Runs and questions on a real Ray cluster of two nodes, one of which is killed while it works."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from engine import cluster as ours  # noqa: E402
from engine.probes.desk import Desk  # noqa: E402
from engine.probes.specs import PROBES  # noqa: E402
from engine.runs.executor import LocalExecutor  # noqa: E402
from engine.runs.store import Store  # noqa: E402
from engine.spec import build_spec  # noqa: E402
from tests.cluster.nodes import cluster  # noqa: E402

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TINY = {"dataset": "digits", "method": "dm", "width": 8, "depth": 2, "batch_real": 16, "bank_size": 4, "students": 0}


def until(condition, seconds=90.0, why=""):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen: {why}"
        time.sleep(0.1)
    return found


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two nodes and a store whose executor uses them."""
    with cluster(tmp_path, 2) as (made, nodes):
        monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "head"))
        monkeypatch.setenv("LIMBECK_RAY", made.address)
        store = Store()
        executor = LocalExecutor(store, slots=1, module=ours.runs_module())
        executor.start()
        try:
            yield made, nodes, store
        finally:
            executor.shutdown()


def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "engine", "--ray", address, "distill", "--dataset", "digits", "--steps", "5"]
    environment = {**os.environ, "LIMBECK_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"The Ray cluster at {address} does not answer" in done.stderr
    (run,) = Store(tmp_path).runs()
    assert run.status == "failed" and "does not answer" in run.message


def test_runs_questions_a_lost_node_and_a_cancelled_run(two, tmp_path):
    made, nodes, store = two
    assert until(lambda: store.workers(), why="the driver joins")[0]["machine"].startswith("Ray cluster, nodes: 3")
    spec = build_spec("distill", **TINY, minutes=20)
    ids = [store.submit("distill", spec) for _ in range(3)]

    def running():
        return [id for id in ids if store.run(id).step > 0]

    until(lambda: len(running()) == 2, why="two runs are placed, one a node")
    assert store.run(ids[2]).status == "queued"
    until(lambda: all(list(store.folder(id).glob("checkpoint/*.pt")) for id in ids[:2]), why="checkpoints arrive")

    # What is cancelled makes room for the next one.
    store.command(ids[0], "stop")
    until(lambda: store.run(ids[0]).status == "stopped" and store.result_folder(ids[0]), why="one is stopped")
    until(lambda: store.run(ids[2]).step > 0, why="the third takes its place")
    assert len(store.frames(ids[0])) > 1

    # A node is lost in the middle of its run.
    reached = max(int(p.stem) for p in store.folder(ids[1]).glob("checkpoint/*.pt"))
    where = next(i for i, node in enumerate(nodes) if errand_of(tmp_path / f"node{i}", ids[1]))
    made.remove_node(nodes[where], allow_graceful=False)
    said = lambda: [e for e in store.events(ids[1], kinds=("status",)) if e.data.get("lost")]  # noqa: E731
    until(said, why="the loss is noticed")
    assert said()[0].step >= reached
    store.command(ids[2], "stop")
    until(lambda: [e for e in store.events(ids[1], kinds=("status",)) if e.data.get("resumed")], why="it goes on")
    before = store.run(ids[1]).step
    until(lambda: store.run(ids[1]).step > before, why="it makes steps")
    assert store.run(ids[1]).status == "running"

    # A probe is asked beside it, about a set that only the head has.
    questions = LocalExecutor(store, slots=1, module=ours.questions_module())
    questions.start()
    try:
        desk = Desk(store.home)
        digest = desk.ask("slow-step", build_spec(PROBES["slow-step"].spec, run=ids[0]))
        state = until(lambda: (s := desk.look(digest)).status in ("done", "refused") and s, why="it is answered")
        assert state.status == "done", state.message
        assert all(desk.file(digest, name) for name in state.answer.images.values())
    finally:
        questions.shutdown()

    store.command(ids[1], "stop")
    until(lambda: store.run(ids[1]).status == "stopped", why="it stops")
    kept = tmp_path / f"node{1 - where}" / "errands"
    until(lambda: not list(kept.glob("*")), why="a node keeps no ended errand")

    # The command line does a run of its own on the same cluster.
    command = [
        sys.executable,
        "-m",
        "engine",
        "--ray",
        made.address,
        "distill",
        "--dataset",
        "digits",
        "--method",
        "dm",
    ]
    more = ["--method", "dm", "--steps", "20", "--width", "8", "--depth", "2", "--json"]
    environment = {**os.environ, "LIMBECK_RAY": ""}
    done = subprocess.run([*command, *more], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["steps"] == 20


def errand_of(home, id):
    return list(home.glob(f"errands/*/runs/{id}/frames"))
