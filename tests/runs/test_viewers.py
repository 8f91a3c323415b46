"""Viewers' runs come last: they wait while anything else runs, and give way when something else is asked for."""

from __future__ import annotations

import os
import sqlite3

import pytest

from engine.runs.job import GaveWay, Job
from engine.runs.store import Store
from engine.spec import build_spec

PID = os.getpid()


@pytest.fixture
def store(home) -> Store:
    return Store(home)


def student(store: Store, viewer: str = "", seed: int = 0) -> str:
    return store.submit("student", build_spec("student", dataset="digits", seed=seed), viewer=viewer)


def test_the_presenters_runs_are_taken_first(store):
    theirs, mine = student(store, "anna"), student(store)
    assert store.queue_position(theirs) == 1 and store.queue_position(mine) == 0
    assert store.queue_length() == 2 and store.queue_length(viewers=False) == 1
    assert store.claim(PID).id == mine
    assert store.claim(PID) is None, "a viewer's waits while another runs"
    store.announce(mine, "paused", "Paused.")
    assert store.claim(PID) is None, "the presenter will go on in a moment"
    store.announce(mine, "done", "Done.")
    claimed = store.claim(PID)
    assert claimed.id == theirs and claimed.viewer == "anna"


def test_a_viewers_student_gives_way_and_waits_again(store):
    theirs = student(store, "anna")
    job = Job(store, store.claim(PID))
    assert job.stopping() is False
    later = student(store, "bob", seed=1)
    job._asked = 0.0
    assert job.stopping() is False, "another viewer's does not come first"
    mine = student(store)
    job._asked = 0.0
    with pytest.raises(GaveWay):
        job.stopping()
    store.give_way(theirs)
    again = store.run(theirs)
    assert (again.status, again.pid, again.started) == ("queued", None, None)
    assert [store.queue_position(id) for id in (mine, theirs, later)] == [0, 1, 2]


def test_a_paused_run_keeps_its_worker_from_viewers(store):
    mine = student(store)
    job = Job(store, store.claim(PID))
    student(store, "anna")
    store.announce(mine, "paused", "Paused.")
    assert not (job.shares and store.queue_length(viewers=False))


def test_a_store_made_before_there_were_viewers_is_read(home, store):
    id = student(store)
    with sqlite3.connect(home / "store.sqlite") as db:
        db.execute("ALTER TABLE runs DROP COLUMN viewer")
    again = Store(home)
    assert again.run(id).viewer == "" and again.claim(PID).id == id


def test_the_worker_takes_the_presenters_run_when_a_viewers_gave_way(store, monkeypatch):
    from engine.runs import worker

    def study(job: Job) -> None:
        student(store)  # the presenter's, queued meanwhile
        job.stopping()

    monkeypatch.setitem(worker.JOBS, "student", study)
    theirs = student(store, "anna")
    worker.run_job(store, store.claim(PID))
    assert store.run(theirs).status == "queued" and "presenter's run goes first" in store.run(theirs).message
    assert store.claim(PID).viewer == ""
