"""Real worker processes: killed, replaced, orphaned; and that none of it costs a run its images."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from engine.runs import checkpoint
from engine.runs.executor import LocalExecutor
from engine.runs.process import birth
from engine.runs.store import Store
from engine.spec import build_spec
from engine.synthetic import load_synthetic

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Store(tmp_path)


@pytest.fixture
def worker(store):
    """Starts worker processes, and ends those that are left."""
    started = []

    def start():
        environment = {**os.environ, "LIMBECK_THREADS": "1"}
        command = [sys.executable, "-m", "engine.runs.worker"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def executor(store):
    executor = LocalExecutor(store, slots=1)
    yield executor
    executor.shutdown()


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def tiny(**values):
    """Distillation on digits that takes milliseconds a step."""
    values = {"width": 8, "depth": 2, "batch_real": 16, "bank_size": 4, "students": 0, "lr_img": 0.5, **values}
    return build_spec("distill", dataset="digits", method="dm", deterministic=True, **values)


def images(store, id):
    return load_synthetic(store.result_folder(id)).images


def latest(store, id):
    """Step of the newest checkpoint on disk, 0 without one."""
    return max((int(p.stem) for p in (store.folder(id) / "checkpoint").glob("[0-9]*.pt")), default=0)


def test_a_run_killed_at_any_moment_ends_with_the_images_of_one_that_was_not(store, worker):
    spec = tiny(steps=1800, seed=5)
    whole = store.submit("distill", spec)
    broken = store.submit("distill", spec)
    first = worker()
    until(lambda: store.run(whole).status == "done", 240)
    until(lambda: len(list((store.folder(broken) / "checkpoint").glob("[0-9]*.pt"))) == 2, 240)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert store.run(broken).status == "running"
    assert store.sweep() == [broken] and store.run(broken).status == "interrupted"
    newest = sorted((store.folder(broken) / "checkpoint").glob("[0-9]*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])  # the disk was not spared either: the one before must do
    before = checkpoint.load(store.folder(broken) / "checkpoint")["step"]
    assert before < int(newest.stem)
    store.command(broken, "resume")
    worker()
    until(lambda: store.run(broken).status == "done", 240)
    resumed = [e for e in store.events(broken, kinds=("status",)) if e.data.get("resumed")]
    assert [e.step for e in resumed] == [before]
    assert torch.equal(images(store, broken), images(store, whole))
    assert store.frames(broken)[0] == 0 and store.frames(broken)[-1] == 1800
    steps = [e.step for e in store.events(broken, kinds=("frame",))]
    assert steps == sorted(set(steps)) == store.frames(broken)


def test_the_executor_keeps_a_warm_worker_replaces_a_dead_one_and_leaves_none_behind(store, executor):
    executor.start()
    until(executor.ready)
    assert executor.machine()
    (one,) = [w["pid"] for w in store.workers()]
    id = executor.submit("distill", tiny(minutes=5))
    began = time.monotonic()
    until(lambda: store.frames(id))
    assert time.monotonic() - began < 5  # two, on a machine that does nothing else
    until(lambda: store.run(id).step > 0)
    os.kill(one, signal.SIGKILL)
    until(lambda: store.run(id).status == "interrupted")
    until(lambda: [w for w in store.workers() if w["pid"] != one])
    store.command(id, "resume")
    until(lambda: store.run(id).status == "running" and store.run(id).step > 0)
    executor.cancel(id)
    until(lambda: store.run(id).status == "stopped")
    assert store.result_folder(id) and executor.list()[0].id == id
    last = executor.submit("distill", tiny(minutes=5))
    until(lambda: store.run(last).step > 3)
    (pid,) = [w["pid"] for w in store.workers()]
    executor.shutdown()
    assert birth(pid) == "" and store.workers() == []
    run = store.run(last)
    assert run.status == "interrupted" and run.step > 3 and latest(store, last) == run.step


def test_a_worker_ends_when_its_server_is_gone(store):
    server = textwrap.dedent(
        """
        import os, time
        from engine.runs.executor import LocalExecutor
        from engine.runs.store import Store
        executor = LocalExecutor(Store(), slots=1)
        executor.start()
        while not executor.ready(): time.sleep(0.05)
        print(Store().workers()[0]["pid"], flush=True)
        os._exit(9)
        """
    )
    done = subprocess.run([sys.executable, "-c", server], cwd=ROOT, capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    until(lambda: birth(pid) == "", 15)
    assert store.workers() == []


def test_two_servers_on_one_home_share_the_queue_and_leave_each_other_s_runs_alone(store, executor):
    executor.start()
    until(executor.ready)
    id = executor.submit("distill", tiny(minutes=5))
    until(lambda: store.run(id).step > 0)
    owner = store.owner(id)
    code = "import app; app._start(); input()"
    second = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: len(store.workers()) == 2)
        assert store.servers() == sorted([os.getpid(), second.pid])
        others = [executor.submit("distill", tiny(steps=20, seed=seed)) for seed in range(3)]
        until(lambda: all(store.run(other).status == "done" for other in others), 120)
        for other in others:  # by the second's worker, each once
            told = [e.data["message"] for e in store.events(other, kinds=("status",))]
            assert told.count("Starting.") == 1 and told.count("Distilling.") == 1
        assert store.run(id).status == "running" and store.owner(id) == owner
    finally:
        second.kill()
        _, said = second.communicate()
    assert "Another Limbeck works on this folder of runs, too" in said and f"(process {os.getpid()})" in said
    until(lambda: len(store.workers()) == 1, 15)
    assert store.sweep() == [] and store.owner(id) == owner
    executor.cancel(id)
    until(lambda: store.run(id).status == "stopped")


def test_ctrl_c_on_the_command_line_leaves_a_run_that_can_be_resumed(store):
    flags = "--steps 3000 --width 8 --depth 2 --batch-real 16 --bank-size 4 --deterministic --json".split()
    command = [sys.executable, "-m", "engine", "distill", "--dataset", "digits", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: store.runs() and store.runs()[0].step > 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    (run,) = store.runs()
    assert process.returncode == 2 and out == "" and f"runs resume {run.id}" in err and err.count("\n") == 1
    assert run.status == "interrupted" and latest(store, run.id) == run.step
