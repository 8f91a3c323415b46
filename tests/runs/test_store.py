"""The store: queue, events, control, interruption; and that nothing in it leaves its folder."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.errors import Refused
from engine.runs import process
from engine.runs.store import RUN_ID, STATUSES, Store
from engine.spec import build_spec

ROOT = Path(__file__).parents[2]
HOSTILE = ("../x", "../../etc/passwd", "", "a" * 81, "A" * 20, "20261121-0423-mnist/..", "x\x00yyyyyyyyy", None, 7)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def submit(store, **values):
    return store.submit("distill", build_spec("distill", **values))


def dead_process():
    """Number and signature of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = process.signature(child.pid)
    child.communicate(b"\n")
    return child.pid, known


def orphan(store, monkeypatch, **values):
    """A run whose worker has ended without a word."""
    pid, known = dead_process()
    id = submit(store, **values)
    with monkeypatch.context() as patch:
        patch.setattr("engine.runs.store.signature", lambda _: known)
        assert store.claim(pid).id == id
    return id


def test_a_submitted_run_is_queued_and_its_spec_can_be_read_without_the_store(store):
    id = submit(store, dataset="mnist", method="dc", steps=7)
    assert RUN_ID.fullmatch(id) and "mnist-dc-1" in id
    run = store.run(id)
    assert (run.status, run.kind, run.dataset, run.steps_total, run.progress) == ("queued", "distill", "mnist", 7, 0)
    assert build_spec("distill", **run.spec).steps == 7
    assert json.loads((store.folder(id) / "spec.json").read_text())["method"] == "dc"
    assert [r.id for r in store.runs(dataset="mnist", kinds=["distill"], statuses=["queued"])] == [id]
    assert store.runs(dataset="digits") == []


def test_a_folder_dataset_does_not_leak_its_path_into_the_id(store):
    id = submit(store, dataset="folder:/photos/someone/../My Photos.zip")
    assert "my-photos" in id and "someone" not in id


def test_runs_are_claimed_in_the_order_they_were_queued(store):
    first, second = submit(store), submit(store)
    assert (store.queue_position(first), store.queue_position(second), store.queue_length()) == (0, 1, 2)
    assert store.claim(os.getpid()).id == first
    assert store.queue_position(second) == 0
    assert store.claim(os.getpid()).id == second
    assert store.claim(os.getpid()) is None
    assert [r.id for r in store.runs()] == [second, first]


CLAIMER = """
import os, sys
from pathlib import Path
from engine.runs.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True); sys.stdin.readline()
while run := store.claim(os.getpid()): print(run.id, flush=True)
"""


def test_no_run_is_claimed_by_two_processes(store):
    ids = {submit(store) for _ in range(60)}
    command = [sys.executable, "-c", CLAIMER, str(store.home)]
    claimers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for claimer in claimers:
        assert claimer.stdout.readline() == "ready\n"
    for claimer in claimers:
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    taken = [line for claimer in claimers for line in claimer.communicate(timeout=30)[0].split()]
    assert len(taken) == len(ids) and set(taken) == ids


def test_events_are_read_once_by_a_growing_cursor(store):
    one, other = submit(store), submit(store)
    store.append(one, [("metric", 1, {"loss": 0.5}), ("frame", 1, {"seconds": 0.1})])
    store.append(other, [("metric", 1, {"loss": 0.7})])
    seen = store.events(one)
    assert [e.kind for e in seen] == ["status", "metric", "frame"]
    assert [e.id for e in seen] == sorted({e.id for e in seen})
    cursor = seen[-1].id
    assert store.events(one, cursor) == []
    store.append(one, [("metric", 2, {"loss": 0.4})], step=2, seconds=1.5)
    assert [(e.step, e.data) for e in store.events(one, cursor)] == [(2, {"loss": 0.4})]
    assert (store.run(one).step, store.run(one).seconds) == (2, 1.5)
    assert [e.kind for e in store.events(one, kinds=("frame",))] == ["frame"]
    assert len(store.events(one, limit=2)) == 2


def test_numbers_that_are_not_finite_become_null(store):
    id = submit(store)
    store.append(id, [("metric", 1, {"loss": float("nan"), "deep": [float("inf"), {"x": float("-inf")}]})])
    assert store.events(id, kinds=("metric",))[0].data == {"loss": None, "deep": [None, {"x": None}]}


def test_ids_of_events_are_never_used_again(store):
    first = submit(store)
    last = store.events(first)[-1].id
    store.delete(first)
    assert store.run(first) is None and not (store.home / "runs" / first).exists()
    assert store.events(submit(store))[0].id > last


@pytest.mark.parametrize("id", HOSTILE)
def test_what_is_not_a_run_id_reads_nothing_and_writes_nothing(store, id):
    assert store.run(id) is None
    assert store.events(id) == [] and store.frames(id) == []
    assert store.frame_path(id, 0) is None and store.result_folder(id) is None
    for action in (
        store.folder,
        store.delete,
        lambda i: store.command(i, "stop"),
        lambda i: store.write_frame(i, 0, b""),
    ):
        with pytest.raises(Refused):
            action(id)


@pytest.mark.parametrize("step", (-1, 10**9, "1", "../../spec", None, 1.0))
def test_what_is_not_a_step_has_no_frame(store, step):
    id = submit(store)
    store.write_frame(id, 1, b"x")
    assert store.frame_path(id, step) is None
    assert store.frame_path(id, 1).read_bytes() == b"x"


ALLOWED = {
    "pause": {"running"},
    "resume": {"paused", "interrupted", "failed"},
    "stop": {"queued", "running", "paused", "interrupted"},
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("command", ALLOWED)
def test_commands_fit_the_status_or_are_refused_with_it(store, command, status):
    id = submit(store)
    if status != "queued":
        store.claim(os.getpid())
        store.announce(id, status, "So it is.")
    if status in ALLOWED[command]:
        store.command(id, command)
    else:
        with pytest.raises(Refused, match=f"is {status}; only runs that are"):
            store.command(id, command)


def test_unknown_commands_and_runs_are_refused(store):
    with pytest.raises(Refused, match="no command “explode”"):
        store.command(submit(store), "explode")
    with pytest.raises(Refused, match="There is no run"):
        store.command("20261121-0423-mnist-dc-1-xxxxx", "stop")


def test_commands_reach_the_worker_once_and_in_order(store):
    id = submit(store)
    store.claim(os.getpid())
    store.command(id, "pause")
    store.command(id, "stop")
    assert store.pending(id) == ["pause", "stop"]
    assert store.pending(id) == []


def test_stopping_a_queued_run_takes_it_out_of_the_queue(store):
    id = submit(store)
    store.command(id, "stop")
    assert store.run(id).status == "stopped" and store.queue_length() == 0


def test_a_paused_run_is_given_up_unless_someone_has_just_asked_for_it(store):
    id = submit(store)
    store.claim(os.getpid())
    store.announce(id, "paused", "Paused.")
    store.command(id, "resume")
    assert not store.release(id)
    store.pending(id)
    assert store.release(id)
    assert store.run(id).status == "paused" and store.run(id).pid is None
    assert store.sweep() == []  # it belongs to nobody, so nobody has vanished
    store.command(id, "resume")
    assert store.run(id).status == "queued"


def test_a_run_whose_worker_vanished_is_interrupted_and_one_click_queues_it(store, monkeypatch):
    id = orphan(store, monkeypatch)
    assert store.sweep() == [id] and store.sweep() == []
    run = store.run(id)
    assert run.status == "interrupted" and run.pid is None and "Resume" in run.message
    assert store.events(id)[-1].data["status"] == "interrupted"
    store.command(id, "resume")
    assert store.run(id).status == "queued"
    assert store.claim(os.getpid()).id == id


def test_a_process_with_the_same_number_is_not_mistaken_for_the_worker(store, monkeypatch):
    id = submit(store)
    host = process.signature(os.getpid()).partition("/")[0]
    monkeypatch.setattr("engine.runs.store.signature", lambda pid: f"{host}/1")
    store.claim(os.getpid())
    assert store.sweep() == [id]


def test_a_worker_on_another_machine_counts_by_its_heartbeat(store, monkeypatch):
    id = submit(store)
    monkeypatch.setattr("engine.runs.store.signature", lambda pid: "elsewhere/1")
    store.claim(os.getpid())
    assert store.sweep() == []
    later = store.run(id).heartbeat + 11
    monkeypatch.setattr("engine.runs.store.time.time", lambda: later)
    assert store.sweep() == [id]


def test_living_runs_are_left_alone_and_cannot_be_deleted(store):
    id = submit(store)
    store.claim(os.getpid())
    assert store.sweep() == []
    with pytest.raises(Refused, match="stop it before"):
        store.delete(id)
    store.announce(id, "done", "Done.")
    store.delete(id)


def test_rewinding_forgets_what_came_after_the_step(store):
    id = submit(store)
    for step in range(5):
        store.write_frame(id, step, b"x")
        store.append(id, [("frame", step, {}), ("metric", step, {}), ("accuracy", step, {})])
    store.rewind(id, 2)
    assert store.frames(id) == [0, 1, 2]
    assert {e.step for e in store.events(id, kinds=("frame", "metric", "accuracy"))} == {0, 1, 2}
    assert store.run(id).step == 2


def test_evaluations_are_found_by_their_runs(store):
    one, other = submit(store), submit(store)
    row = {"mean": 0.9, "std": 0.01, "accuracies": [0.9], "protocol": "dc", "network": "convnet", "seconds": 1.0}
    store.add_evaluation(one, row)
    store.add_evaluation(other, {**row, "mean": 0.8})
    assert [(e["run"], e["mean"]) for e in store.evaluations([one, other])] == [(one, 0.9), (other, 0.8)]
    assert store.evaluations([]) == []
    assert store.events(one, kinds=("evaluation",))[0].data == row


def test_many_threads_and_two_stores_write_at_once(store):
    id = submit(store)
    stores = (store, Store(store.home))

    def write(number):
        for _ in range(25):
            stores[number % 2].append(id, [("metric", number, {})])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.events(id, kinds=("metric",))) == 200


def test_a_run_is_a_plain_record(store):
    run = store.run(submit(store))
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.status = "done"


def test_the_front_of_the_runs_is_torch_free():
    modules = "engine.runs.store, engine.runs.executor, engine.runs.validate, engine.cli"
    code = f"import sys, {modules}; print([m for m in ('torch', 'torchvision', 'captum') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_old_uploads_go_unless_a_run_speaks_of_them(tmp_path):
    store = Store(tmp_path)
    folder = tmp_path / "uploads"
    for name in ("a1old", "b2used", "c3new"):
        (folder / name).mkdir(parents=True)
        (folder / name / "images.zip").write_bytes(b"zip")
    store.submit("baseline", build_spec("baseline", dataset=f"folder:{folder / 'b2used' / 'images.zip'}"))
    before = time.time() - 40 * 86_400
    for name in ("a1old", "b2used"):
        os.utime(folder / name, (before, before))
    assert store.clean_uploads() == ["a1old"]
    assert sorted(p.name for p in folder.iterdir()) == ["b2used", "c3new"]


@pytest.mark.parametrize("moment", (0, 2**33))
def test_an_upload_from_when_the_clock_was_wrong_is_given_its_days_anew(tmp_path, moment):
    store, upload = Store(tmp_path), tmp_path / "uploads" / "a1"
    upload.mkdir(parents=True)
    os.utime(upload, (moment, moment))
    assert store.clean_uploads() == []
    assert abs(upload.stat().st_mtime - time.time()) < 60
