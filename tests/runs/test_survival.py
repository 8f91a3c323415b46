"""A disk that fills, a folder that may not be written, a clock that jumps, a run that was given up by mistake: people
read a sentence, and nothing is lost."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from engine.errors import Refused
from engine.faults import outside
from engine.home import aside
from engine.runs import process
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from tests.runs.fakes import images, start, until

ROOT = Path(__file__).parents[2]
ALONE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


@pytest.fixture
def store(walks):
    return walks


def submit(store, **values):
    return store.submit("distill", build_spec("distill", students=0, **values))


def on_a_disk(home: Path, mount: str, script: str) -> str:
    """What ``script`` prints where ``home`` is mounted by ``mount``, in a mount namespace that ends with it."""
    try:
        able = subprocess.run([*ALONE, "mount", "-t", "tmpfs", "tmpfs", str(home)], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("this machine lets tests mount nothing")
    shell = f'{mount}\nexec "$0" -c "$1"'
    done = subprocess.run(
        [*ALONE, "sh", "-ec", shell, sys.executable, script],
        cwd=ROOT,
        env={**os.environ, "LIMBECK_HOME": str(home), "HOME_OF_RUNS": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# ---- a full disk ----------------------------------------------------------------------------------------------------

PAGE = """
import contextlib, io, os, re, sys, threading, time
from pathlib import Path
from starlette.testclient import TestClient
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from engine import cli
from engine.runs.executor import LocalExecutor

home = Path(os.environ["HOME_OF_RUNS"])
LocalExecutor._spawn = lambda self: None

def said(*arguments):
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard):
        status = cli.main(list(arguments))
    return f"{status} {heard.getvalue().strip()}"

def page(client, press=""):
    with client.websocket_connect("/_stcore/stream", subprotocols=["streamlit"]) as browser:
        shown, asked = "", BackMsg()
        asked.rerun_script.page_name = "distil"
        browser.send_bytes(asked.SerializeToString())
        while True:
            message = ForwardMsg()
            message.ParseFromString(browser.receive_bytes())
            shown += str(message)
            if message.WhichOneof("type") == "script_finished":
                button = re.search(rf'id: "([^"]*-{press})"', shown) if press else None
                if button is None:
                    return shown.encode().decode("unicode_escape").encode("latin-1").decode()
                state = asked.rerun_script.widget_states.widgets.add()
                state.id, state.trigger_value, shown, press = button[1], True, "", ""
                browser.send_bytes(asked.SerializeToString())
"""

FULL = """
import app, pytest
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from engine.synthetic import load_synthetic
from tests.runs import fakes
from tests.runs.fakes import images, start, until

fakes.install(pytest.MonkeyPatch())
store = Store()
spec = build_spec("distill", dataset="digits", method="dm", steps=150, seed=4, students=0)
whole = store.submit("distill", spec)
run_job(store, store.claim(os.getpid()))
id = store.submit("distill", spec)
worker = threading.Thread(target=lambda: run_job(store, store.claim(os.getpid())))
worker.start()
while store.run(id).step < 30:
    time.sleep(0.01)
with open(home / "filler", "wb", 0) as filler, contextlib.suppress(OSError):
    while True:
        filler.write(bytes(4096))
worker.join(3)
print("cli:", said("distill", "--dataset", "digits", "--steps", "3"))
print("list:", said("runs", "list"))
with TestClient(app.app, raise_server_exceptions=False) as client:
    print("page:", page(client))
    print("click:", page(client, press="distil"))
(home / "filler").unlink()
worker.join(30)
print("run:", store.run(id).status, store.run(id).message)
store.command(id, "resume")
run_job(store, store.claim(os.getpid()))
same = (load_synthetic(store.result_folder(id)).images == load_synthetic(store.result_folder(whole)).images).all()
print("resumed:", store.run(id).status, "same images:", bool(same))
print("store:", *store._db().execute("PRAGMA integrity_check").fetchone(), len(store.runs()), "runs")
print("left:", [str(p) for p in home.rglob(".*")])
"""


def test_a_disk_that_fills_stops_a_run_with_a_sentence_and_costs_it_nothing(tmp_path):
    said = on_a_disk(tmp_path, f"mount -t tmpfs -o size=6m tmpfs '{tmp_path}'", PAGE + FULL)
    assert "cli: 2 The disk is full. Free some space, then try again.\n" in said
    assert "list: 0 \n" in said and " done " in said  # what is there can be read
    assert "0 MB are free on the disk that holds the runs" in said
    assert "The disk is full. Free some space, then reload the page." in said
    assert "run: failed The disk is full. Free some space, then resume the run.\n" in said
    assert "resumed: done same images: True\n" in said
    assert "store: ok 2 runs\n" in said and "left: []\n" in said
    assert "Traceback" not in said


def test_what_could_not_be_written_leaves_nothing_behind(tmp_path):
    target = tmp_path / "x.json"
    target.write_text("before")
    with pytest.raises(OSError), aside(target) as part:
        part.write_text("half of what is to ")
        raise OSError(28, "No space left on device")
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]
    with aside(target) as part:
        part.write_text("after")
    assert target.read_text() == "after" and list(tmp_path.iterdir()) == [target]


def test_a_store_that_was_full_works_again(tmp_path):
    store = Store(tmp_path)
    id = store.submit("distill", build_spec("distill"))
    db = store._db()
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(sqlite3.OperationalError, match="full") as error:
        store.append(id, [("metric", 1, {"x": "y" * 100_000})])
    assert outside(error.value) == "The disk is full. Free some space, then try again."
    with pytest.raises(sqlite3.OperationalError):
        store.submit("baseline", build_spec("baseline"), title="x" * 100_000)
    assert len(store.runs()) == len(list((tmp_path / "runs").iterdir())) == 1
    db.execute("PRAGMA max_page_count = 1000000")
    store.append(id, [("metric", 2, {"x": 1})])
    assert [e.step for e in store.events(id, kinds=("metric",))] == [2]


def test_a_checkpoint_that_does_not_fit_is_told_from_a_mistake(store, monkeypatch):
    """torch's writer has another error than the system's on top of it."""

    def save(*_):
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")

    monkeypatch.setattr("engine.runs.checkpoint.save", save)
    id = submit(store, steps=5)
    run_job(store, store.claim(os.getpid()))
    assert store.run(id).message == "The disk is full. Free some space, then resume the run."


# ---- a folder that may not be written -------------------------------------------------------------------------------

CLOSED = """
print("cli:", said("distill", "--dataset", "digits", "--steps", "3"))
print("list:", said("runs", "list"))
import app
told = io.StringIO()
with contextlib.redirect_stderr(told), TestClient(app.app, raise_server_exceptions=False) as client:
    print("page:", page(client))
    print("click:", page(client, press="distil"))
    print("route:", client.get("/api/runs/some-run-of-mine/frames").text)
print("terminal:", told.getvalue())
"""


@pytest.mark.parametrize("used", (False, True))
def test_a_folder_of_runs_that_may_not_be_written_is_named(tmp_path, used):
    if used:
        Store(tmp_path)
    mount = f"mount --bind '{tmp_path}' '{tmp_path}'\nmount -o remount,ro,bind '{tmp_path}'"
    said = on_a_disk(tmp_path, mount, PAGE + CLOSED)
    names = ("cli", "list", "page", "click", "route", "terminal")
    heard = dict(zip(names, re.split(rf"^(?:{'|'.join(names)}): ", said, flags=re.MULTILINE)[1:], strict=True))
    closed = {"cli", "page", "click"} if used else set(heard)  # runs that are there can be looked at
    for who in closed:
        assert str(tmp_path) in heard[who] and "set LIMBECK_HOME" in heard[who], (who, heard[who][:500])
    if used:
        assert heard["list"] == "0 \n" and heard["route"] == "There is no such run.\n"
    for who in ("cli", "page", "click", "route"):
        assert "Traceback" not in heard[who]


def test_a_file_in_place_of_the_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    with pytest.raises(Refused, match="cannot be the folder of runs .*; set LIMBECK_HOME to another"):
        Store()


# ---- a clock that jumps ---------------------------------------------------------------------------------------------


@pytest.fixture
def jumping(monkeypatch):
    """A clock that jumps by up to eleven days, either way, whenever somebody looks at it."""
    chance, real = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: real() + chance.uniform(-1e6, 1e6))


def test_a_budget_of_time_does_not_notice_the_clock(store, jumping):
    id = submit(store, minutes=0.05)
    began = time.monotonic()
    run_job(store, store.claim(os.getpid()))
    run = store.run(id)
    assert run.status == "done" and 3 <= run.seconds < 5 and time.monotonic() - began < 20
    seconds = [e.data["seconds"] for e in store.events(id, kinds=("metric", "frame"))]
    assert seconds == sorted(seconds)


def test_the_queue_and_the_list_keep_their_order(store, jumping):
    ids = [submit(store, steps=3) for _ in range(8)]
    assert [store.queue_position(id) for id in ids] == list(range(8))
    assert [run.id for run in store.runs()] == ids[::-1]
    assert [store.claim(os.getpid()).id for _ in ids] == ids


def test_a_worker_of_another_machine_is_not_taken_for_dead_by_a_jump(store, monkeypatch):
    monkeypatch.setattr("engine.runs.store.SECOND_LOOK", 0.5)
    here = process.machine()
    monkeypatch.setattr(process, "machine", lambda: "elsewhere")
    id = submit(store, steps=3)
    store.claim(1)
    monkeypatch.setattr(process, "machine", lambda: here)
    real, ended = time.time, threading.Event()
    monkeypatch.setattr(time, "time", lambda: real() + 3600)

    def beat():
        while not ended.wait(0.05):
            store.heartbeat(id, 1)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    assert store.sweep() == []
    ended.set()
    heart.join()
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    assert store.sweep() == [id]  # it has fallen silent


# ---- a run is never worked on by two --------------------------------------------------------------------------------


def test_a_run_that_was_given_up_by_mistake_is_left_to_whoever_took_it_over(store, monkeypatch):
    id = submit(store, steps=5000)
    thread = start(store)
    until(lambda: store.run(id).step > 5, 60)
    with monkeypatch.context() as patch:  # as after a laptop slept
        patch.setattr("engine.runs.store.alive", lambda *_: False)
        assert store.sweep() == [id]
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    store.adopt(id, other.pid)
    thread.join(5)
    assert not thread.is_alive()
    step, events = store.run(id).step, len(store.events(id))
    time.sleep(0.3)
    run = store.run(id)
    assert (run.status, run.pid, run.step, len(store.events(id))) == ("running", other.pid, step, events)
    other.communicate(b"\n")
    assert store.sweep() == [id]
    store.command(id, "resume")
    thread = start(store)
    until(lambda: store.run(id).step > step, 60)
    store.command(id, "stop")
    thread.join(10)
    assert store.run(id).status == "stopped" and torch.isfinite(images(store, id)).all()


def test_a_paused_run_notices_it_too(store, monkeypatch):
    id = submit(store, steps=5000)
    thread = start(store)
    until(lambda: store.run(id).step > 2, 60)
    store.command(id, "pause")
    until(lambda: store.run(id).status == "paused", 60)
    with monkeypatch.context() as patch:
        patch.setattr("engine.runs.store.alive", lambda *_: False)
        store.sweep()
    thread.join(5)
    assert not thread.is_alive() and store.run(id).status == "interrupted"


def test_workers_of_another_machine_are_left_alone(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(process, "machine", lambda: "elsewhere")
        with store.present("a CPU"):
            patch.undo()
            assert store.workers() == [] and len(list((store.home / "workers").iterdir())) == 1


def test_a_run_killed_after_its_last_measurement_is_not_measured_twice(store, monkeypatch):
    class Killed(BaseException):
        """As a kill, nothing behind it is done."""

    def killed(*args, **more):
        if args[2] == "done":
            raise Killed
        return announce(*args, **more)

    id, announce = store.submit("distill", build_spec("distill", students=2, steps=5)), Store.announce
    with monkeypatch.context() as patch:
        patch.setattr(Store, "announce", killed)
        with pytest.raises(Killed):
            run_job(store, store.claim(os.getpid()))
        patch.setattr("engine.runs.store.alive", lambda *_: False)
        assert store.sweep() == [id]
    before = images(store, id)
    store.command(id, "resume")
    run_job(store, store.claim(os.getpid()))
    assert store.run(id).status == "done" and torch.equal(images(store, id), before)
    assert len(store.evaluations([id])) == len([e for e in store.events(id) if e.kind == "evaluation"]) == 1
