"""Many people who watch one run: what each of them costs the server."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from starlette.requests import Request

from engine.runs.store import Store
from engine.spec import build_spec
from pages.components import feed, shared


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    shared.listening.clear()
    return Store(tmp_path)


def a_run(store: Store, steps: int = 3) -> str:
    run = store.submit("distill", build_spec("distill", dataset="digits"), pid=os.getpid())
    store.append(run, [("metric", step, {"loss": 1 / (step + 1), "seconds": step}) for step in range(steps)])
    return run


def test_the_history_of_a_run_is_read_once_for_all_who_look(store, monkeypatch):
    run = a_run(store, 100)
    first = shared.history(store, run)
    read = []
    events = store.events
    monkeypatch.setattr(store, "events", lambda *a, **k: read.append(events(*a, **k)) or read[-1])
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(shared.history(store, run))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(history[1] is first[1] for history in seen) and sum(map(len, read)) == 0
    store.append(run, [("metric", 100, {"loss": 0.1, "seconds": 100})])
    assert [e.step for e in shared.history(store, run)[1]["metric"]] == list(range(101)) and sum(map(len, read)) == 1


def test_what_is_kept_of_runs_does_not_grow(store):
    runs = [a_run(store) for _ in range(3 * shared.KEPT)]
    for run in runs:
        shared.history(store, run)
    assert [run for _, run in shared._kept] == runs[-shared.KEPT :]
    assert len(shared.history(store, runs[0])[1]["metric"]) == 3


def test_a_run_that_went_back_is_read_anew(store):
    run = a_run(store)
    shared.history(store, run)
    store.rewind(run, 1)
    store.announce(run, "running", "Resumed at step 1.", step=1, resumed=True)
    store.append(run, [("metric", 2, {"loss": 7.0, "seconds": 2})])
    assert [(e.step, e.data["loss"]) for e in shared.history(store, run)[1]["metric"]] == [(0, 1), (1, 0.5), (2, 7)]


@pytest.mark.parametrize(("watchers", "pace"), [(0, 1), (1, 1), (12, 1), (30, 2), (50, 4), (100, 8)])
def test_the_more_watch_the_less_often_they_hear(store, watchers, pace):
    shared.listening["a-run-of-many"] = watchers
    assert shared.pace("a-run-of-many") == pace
    assert shared.pace("another-run") == 1


def test_an_event_stream_counts_while_it_is_open_and_sends_what_came_together_as_one(store, monkeypatch):
    import app

    monkeypatch.setattr(feed, "closing", threading.Event())  # which a server that has ended here leaves set
    run = a_run(store)

    async def listen() -> list[str]:
        scope = {"type": "http", "path_params": {"run": run}, "headers": [], "query_string": b"since=0"}

        async def receive() -> dict:
            await anyio.sleep_forever()

        answer = await app.events(Request(scope, receive))
        parts = answer.body_iterator
        heard = [await anext(parts), await anext(parts)]
        assert shared.listening[run] == 1
        store.append(run, [("metric", 3, {"loss": 0.2}), ("metric", 4, {"loss": 0.1})])
        heard.append(await anext(parts))
        await parts.aclose()
        return heard

    with ThreadPoolExecutor(1) as own:  # a browser that was driven from this thread has left a loop in it
        first, before, after = own.submit(anyio.run, listen).result()
    assert first == "retry: 1000\n\n" and before.count("event: metric") == 3
    steps = [json.loads(line[6:])["step"] for line in after.splitlines() if line.startswith("data: ")]
    assert steps == [3, 4] and run not in shared.listening
