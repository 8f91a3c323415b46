"""The server and its pages never import torch; its routes only ever read below a run's folder."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import subprocess
import sys
import threading
import time
import weakref
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from engine.runs.store import Store
from engine.spec import build_spec

ROOT = Path(__file__).parents[1]
ABOUT = {"name": "two", "classes": ["0", "1"], "mean": [0.5], "std": [0.5], "kind": "distilled", "protocol": "dc"}
HEAVY = ("torch", "torchvision", "captum")


def test_no_page_and_no_module_of_the_front_imports_torch(tmp_path):
    """Every page is run once; then nothing heavy may have been imported."""
    code = f"""
import sys
from streamlit.testing.v1 import AppTest
import engine.presets, engine.spec, engine.home, engine.errors, engine.data.catalogue, engine.students
import engine.runs.store, engine.runs.executor, engine.runs.validate, engine.exports.setzip
import app
at = AppTest.from_file("app.py", default_timeout=60).run()
assert not at.exception, at.exception
for page in ("pages/distil.py", "pages/compare.py", "pages/data.py", "pages/students.py"):
    at.switch_page(page).run()
    assert not at.exception, (page, at.exception)
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""
    environment = {**os.environ, "LIMBECK_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def client(home) -> TestClient:
    import app

    return TestClient(Starlette(routes=app.ROUTES))


@pytest.fixture
def run(home) -> str:
    """A finished run of two frames."""
    store = Store(home)
    id = store.submit("distill", build_spec("distill", dataset="digits", method="dc"), pid=os.getpid())
    layout = {"columns": 2, "rows": 1, "size": 4, "channels": 1, "classes": ["0", "1"], "cells": [0, 1]}
    store.append(id, [("layout", 0, layout)])
    for step in (0, 5):
        image = io.BytesIO()
        Image.new("L", (8, 4), 10 * step).save(image, "WEBP", lossless=True)
        store.write_frame(id, step, image.getvalue())
        store.append(id, [("frame", step, {"seconds": step / 10})])
        store.append(id, [("metric", step, {"loss": 1.5 - step / 10, "seconds": step / 10, "rate": 2.0, "eta": 1.0})])
    (store.folder(id) / "result").mkdir()
    (store.folder(id) / "result" / "synthetic.json").write_text("{}")
    store.announce(id, "done", "Done.", step=5)
    return id


@pytest.mark.parametrize(
    ("asked", "leads"),
    [
        ("/?run=a-run", "/distil?run=a-run"),
        ("/?v=1&d=folder%3A%2Fcats%26dogs&m=dm", "/distil?v=1&d=folder%3A%2Fcats%26dogs&m=dm"),
        ("/?run=//example.org%0d%0aX:1", "/distil?run=//example.org%0d%0aX:1"),
        ("/", None),
        ("/?embed=true", None),
        ("/compare?run=a-run", None),
    ],
)
def test_links_that_were_made_when_distil_came_first_still_lead_there(asked, leads):
    import app

    page = Route("/{path:path}", lambda _: PlainTextResponse("the page"))
    client = TestClient(Starlette(routes=[page], middleware=[Middleware(app.OldLinks)]), follow_redirects=False)
    answer = client.get(asked)
    assert answer.headers.get("location") == leads
    assert answer.status_code == (307 if leads else 200)


def test_a_frame_is_the_file_and_may_be_kept_for_ever(client, run, home):
    answer = client.get(f"/api/runs/{run}/frames/5.webp?e=7")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.content == (home / "runs" / run / "frames" / "000005.webp").read_bytes()


def test_a_frame_that_was_made_anew_is_shown_and_that_of_a_deleted_run_is_not_read(client, run, home):
    frame = f"/api/runs/{run}/frames/5.webp"
    first = client.get(frame).content
    assert client.get(f"{frame}?e=7").content == client.get(f"{frame}?e=7").content == first
    Store(home).write_frame(run, 5, b"another")
    assert client.get(frame).content == client.get(f"{frame}?e=8").content == b"another"
    Store(home).delete(run)
    assert client.get(frame).status_code == client.get(f"{frame}?e=9").status_code == 404


def test_what_is_known_of_a_moment_and_what_stands_beside_a_film(client, run):
    from pages.components.shared import store

    assert client.get(f"/api/runs/{run}/frames/5.json").json() == {"seconds": 0.5}
    for missing in (f"{run}/frames/6.json", f"{run}/frames/-1.json", "nosuchrun-123/frames/5.json"):
        assert client.get(f"/api/runs/{missing}").status_code == 404
    assert client.get(f"/api/runs/{run}/frames").json()["beside"] == {}
    store().write_beside(run, "mean.webp", b"a picture")
    assert list(client.get(f"/api/runs/{run}/frames").json()["beside"]) == ["mean.webp"]
    assert client.get(f"/api/runs/{run}/beside/mean.webp?v=1").content == b"a picture"
    for missing in (f"{run}/beside/nearest.webp", f"{run}/beside/spec.json", f"{run}/beside/..%2fspec.json"):
        assert client.get(f"/api/runs/{missing}").status_code == 404


def test_the_film_lists_every_frame_with_its_loss(client, run):
    film = client.get(f"/api/runs/{run}/frames").json()
    assert [frame[0] for frame in film["frames"]] == [0, 5]
    assert [frame[3] for frame in film["frames"]] == [1.5, 1.0]
    assert film["layout"]["classes"] == ["0", "1"]
    assert film["status"] == "done"
    assert film["metric"]["step"] == 5


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/nosuchrun-123/frames",
        "/api/runs/nosuchrun-123/events",
        "/api/runs/nosuchrun-123/result.zip",
        "/api/runs/nosuchrun-123/exports/gif",
        "/api/runs/{run}/exports/mp4",
        "/api/runs/{run}/exports/..%2fspec.json",
        "/api/runs/{run}/frames/6.webp",
        "/api/runs/{run}/frames/-1.webp",
        "/api/runs/{run}/frames/../../spec.json",
        "/api/runs/%2e%2e/frames",
        "/api/runs/..%2f..%2fetc/frames/0.webp",
        "/api/runs/{run}%00/frames/0.webp",
    ],
)
def test_what_is_not_there_is_not_found(client, run, path):
    assert client.get(path.format(run=run)).status_code == 404


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_routes_only_read(client, run, method):
    assert getattr(client, method)(f"/api/runs/{run}/frames/0.webp").status_code == 405


def test_events_come_after_the_one_named(client, run, home):
    store = Store(home)
    last = store.events(run)[-1].id
    assert client.get(f"/api/runs/{run}/events?since={last}").status_code == 204, "a finished run has nothing to add"
    assert client.get(f"/api/runs/{run}/events?since=x").status_code == 400
    assert client.get(f"/api/runs/{run}/events", headers={"Last-Event-ID": "-4"}).status_code == 400


def test_the_event_stream_tells_steps_losses_and_the_end(client, run, monkeypatch):
    import app

    sleep = asyncio.sleep

    async def end_after_first_round(_: float) -> None:
        await sleep(0.2)
        app.closing.set()

    monkeypatch.setattr(asyncio, "sleep", end_after_first_round)
    with client.stream("GET", f"/api/runs/{run}/events?since=0") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    app.closing.clear()
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if "id: " in block
    ]
    assert [b["event"] for b in blocks if b["event"] == "frame"] == ["frame", "frame"]
    assert [int(b["id"]) for b in blocks] == sorted(int(b["id"]) for b in blocks)
    assert json.loads(blocks[-1]["data"])["status"] == "done"


def test_a_room_hears_all_that_happens_from_one_reading(run, home, monkeypatch):
    from pages.components import feed

    class Listener:
        async def is_disconnected(self) -> bool:
            return False

    looks = []
    read = feed.read

    async def counted(run: str, since: int) -> feed.News:
        looks.append(since)
        return await read(run, since)

    async def listen(since: int, until: int) -> list[int]:
        heard: list[int] = []
        async for text in feed.stream(Listener(), run, since):
            heard += [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
            if until in heard:
                return heard
        return heard

    async def room() -> list[list[int]]:
        ids = [e.id for e in own.events(run)]
        last = ids[-1] + 3
        first = [asyncio.create_task(listen(ids[-1], last)) for _ in range(20)]
        await asyncio.sleep(0.4)
        own.append(run, [("metric", 6, {"loss": 1.0}), ("frame", 6, {})])
        late = asyncio.create_task(listen(ids[1], last))  # misses what came before, and has heard of some
        await asyncio.sleep(1.2)
        own.append(run, [("metric", 7, {"loss": 0.9})])
        return [ids, *await asyncio.wait_for(asyncio.gather(*first, late), 30)]

    own = Store(home)
    monkeypatch.setattr(feed, "read", counted)
    monkeypatch.setattr(feed, "closing", threading.Event())  # which a server that has ended here leaves set
    with ThreadPoolExecutor(1) as thread:  # a browser that was driven from this one has left a loop in it
        ids, *heard = thread.submit(asyncio.run, room()).result()
    new = [ids[-1] + 1, ids[-1] + 2, ids[-1] + 3]
    assert heard[:20] == [new] * 20
    assert heard[20] == [*ids[2:], *new], "each event once, in order"
    assert len(looks) < 21 + 30, "one reading for each of them, and then for all together"
    assert not feed._feeds and not feed.listening, "nobody listens any more"


def test_a_result_downloads_as_one_zip(client, run, home):
    folder = home / "runs" / run / "result"
    assert client.get(f"/api/runs/{run}/result.zip").status_code == 404, "half a set is none"
    tensors = {"images": np.zeros((2, 1, 4, 4), np.float32), "labels": np.arange(2)}
    save_file(tensors, folder / "synthetic.safetensors")
    (folder / "synthetic.json").write_text(json.dumps(ABOUT))
    answer = client.get(f"/api/runs/{run}/result.zip")
    assert answer.status_code == 200
    assert run in answer.headers["content-disposition"]
    assert "synthetic.json" in zipfile.ZipFile(io.BytesIO(answer.content)).namelist()


@pytest.mark.parametrize(("format", "start"), [("gif", b"GIF89a"), ("sheet", b"\x89PNG"), ("html", b"<!doctype html>")])
def test_pictures_and_reports_download(client, run, format, start):
    answer = client.get(f"/api/runs/{run}/exports/{format}")
    assert answer.status_code == 200 and answer.content.startswith(start)
    assert "attachment" in answer.headers["content-disposition"] and run in answer.headers["content-disposition"]
    refused = client.get(f"/api/runs/{run}/exports/npz")
    assert refused.status_code == 404 and refused.text.endswith(".")


def test_a_room_that_asks_at_once_is_told_to_come_back(client, run, monkeypatch):
    import app

    monkeypatch.setattr(app, "exporting", app.threading.BoundedSemaphore(1))
    app.exporting.acquire()
    busy = client.get(f"/api/runs/{run}/exports/sheet")
    assert busy.status_code == 503 and busy.headers["retry-after"]
    app.exporting.release()
    assert client.get(f"/api/runs/{run}/exports/sheet").status_code == 200
    assert client.get(f"/api/runs/{run}/exports/npz").status_code == 404
    assert client.get(f"/api/runs/{run}/exports/sheet").status_code == 200, "a refusal does not keep the place"


def test_the_server_forgets_what_scripts_leave_behind(monkeypatch):
    import app

    class Left:
        pass

    monkeypatch.setattr(app, "closing", threading.Event())
    monkeypatch.setattr(app, "TIDY_EVERY", 0.05)
    left = Left()
    left.itself, seen = left, weakref.ref(left)
    gc.disable()  # what Python does by itself
    try:
        thread = threading.Thread(target=app._tidy, daemon=True)
        thread.start()
        gc.collect(1)  # as happens where scripts run
        del left
        deadline = time.monotonic() + 10
        while seen() is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert seen() is None
    finally:
        gc.enable()
        app.closing.set()
        thread.join()
