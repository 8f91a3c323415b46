"""The room of a seminar: the door that takes keys, what followers hear, and what the presenter may tell."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from engine import seminar
from pages.components import roles, room
from tests.pages.test_roles import KEY, ROOT

FILM = {
    "id": "run-of-digits", "time": 40, "clock": "step", "speed": 1, "layer": "images", "even": True, "playing": False,
    "following": False, "told": 1.0,
    "part": -1,
}  # fmt: skip


@pytest.fixture
def client(home, monkeypatch) -> TestClient:
    """A server with the door, the room's routes and the app's, and a page."""
    import app

    monkeypatch.setenv(seminar.VARIABLE, KEY)
    monkeypatch.setattr(room, "room", room.Room())
    monkeypatch.setattr(room, "SLOW", 0.0)
    page = Route("/{path:path}", lambda request: HTMLResponse("<p>page</p>"))
    upload = Route("/_stcore/upload_file/{rest:path}", lambda request: PlainTextResponse("kept"), methods=["PUT"])
    routes = [*app.ROUTES, upload, page]
    served = Starlette(routes=routes, middleware=[Middleware(room.Door)])
    return TestClient(served, follow_redirects=False)


def enter(client: TestClient) -> None:
    assert client.get("/", params={"key": KEY}).status_code == 303


def test_the_key_is_exchanged_for_a_cookie_and_leaves_the_address(client):
    answer = client.get("/compare", params={"dataset": "digits", "key": KEY})
    assert answer.status_code == 303 and answer.headers["location"] == "/compare?dataset=digits"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and KEY not in str(answer.headers)
    assert seminar.right_token(KEY, answer.cookies[seminar.cookie_name(KEY)])
    assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["//elsewhere.example/x", "/%5Celsewhere.example", "///elsewhere.example"])
def test_the_door_leads_to_no_other_server(client, path):
    answer = client.get(f"http://testserver{path}?key={KEY}")
    assert answer.status_code == 303 and answer.headers["location"][:2] not in ("//", "/\\")


def test_wrong_keys_open_nothing_and_are_counted(client):
    for _ in range(room.TRIES):
        answer = client.get("/", params={"key": "wrong"})
        assert answer.status_code == 403 and "not the presenter's key" in answer.text
        assert "set-cookie" not in answer.headers
    assert client.get("/", params={"key": KEY}).status_code == 429, "not even the right one, for a minute"
    assert client.get("/").status_code == 200, "everybody may still look"


def test_without_a_seminar_there_is_no_door(client, monkeypatch):
    monkeypatch.delenv(seminar.VARIABLE)
    assert client.get("/", params={"key": "wrong"}).text == "<p>page</p>"
    assert client.get("/api/seminar/events").status_code == 404
    assert client.post("/api/seminar/film", json=FILM).status_code == 403


def test_uploads_and_exports_are_the_presenters(client):
    assert client.put("/_stcore/upload_file/session/file").status_code == 403
    for path in ("result.zip", "exports/gif"):
        answer = client.get(f"/api/runs/nosuchrun-123/{path}")
        assert answer.status_code == 403 and answer.text == "Only the presenter can export here."
    enter(client)
    assert client.put("/_stcore/upload_file/session/file").text == "kept"
    assert client.get("/api/runs/nosuchrun-123/exports/gif").status_code == 404


def test_a_browser_is_named_once_on_a_page(client):
    assert "limbeck_viewer=" in client.get("/").headers["set-cookie"]
    assert "set-cookie" not in client.get("/").headers
    client.cookies.clear()
    assert "set-cookie" not in client.get("/api/runs/nosuchrun-123/frames").headers


def test_only_the_presenter_moves_the_film(client):
    assert client.post("/api/seminar/film", json=FILM).status_code == 403
    enter(client)
    assert client.post("/api/seminar/film", data={"id": "form"}).status_code == 415, "no other site's form"
    assert client.post("/api/seminar/film", json=FILM).status_code == 204
    assert {k: v for k, v in room.room.film.items() if k != "number"} == FILM


@pytest.mark.parametrize(
    "change",
    [
        {"time": "x"}, {"time": float("inf")}, {"told": None},
        {"speed": 1000}, {"speed": [1]}, {"layer": "<b>"}, {"clock": {}},
        {"id": 3}, {"id": "x" * 5000}, {"playing": "yes"},
    ],
)  # fmt: skip
def test_a_film_that_is_none_is_refused(client, change):
    enter(client)
    body = json.dumps({**FILM, **change})
    answer = client.post("/api/seminar/film", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413) and room.room.film is None
    for body in (b"", b"[" * 3000, b"null", b"\xff"):
        answer = client.post("/api/seminar/film", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400


def heard(client: TestClient, monkeypatch) -> tuple[dict, int]:
    """What a stream says at first, and how many followed meanwhile."""
    followed = 0

    async def sleep(_: float) -> None:
        nonlocal followed
        followed = room.room.followers
        room.closing.set()

    monkeypatch.setattr(room.asyncio, "sleep", sleep)
    with client.stream("GET", "/api/seminar/events") as answer:
        text = "".join(answer.iter_text())
    room.closing.clear()
    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("event")]
    return {kind.removeprefix("event: "): json.loads(data.removeprefix("data: ")) for kind, data in blocks}, followed


def test_followers_hear_what_is_shown_and_are_counted(client, monkeypatch):
    room.room.show("compare", {"dataset": "digits"})
    room.room.film = {"number": 2, **FILM}
    said, followed = heard(client, monkeypatch)
    assert said["view"] == {"number": 1, "page": "compare", "query": {"dataset": "digits"}}
    assert said["film"]["time"] == 40 and "followers" not in said
    assert followed == 1 and room.room.followers == room.room.streams == 0
    enter(client)
    said, followed = heard(client, monkeypatch)
    assert said == {"followers": 0} and followed == 0, "the presenter follows nobody"
    room.room.streams = room.STREAMS
    assert client.get("/api/seminar/events").status_code == 503


# ---- on the pages ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(home, monkeypatch):
    """Opens the app as the presenter or as a viewer; each is a session of its own."""
    monkeypatch.setenv(seminar.VARIABLE, KEY)
    monkeypatch.setattr(room, "room", room.Room())

    def run(at: AppTest, leads: bool) -> AppTest:
        monkeypatch.setattr(roles, "_cookie", lambda name: seminar.make_token(KEY) if leads else "")
        at.run()
        assert not at.exception, at.exception[0].value
        return at

    return run


def an_app() -> AppTest:
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)


def test_a_viewer_is_taken_to_where_the_presenter_is(shown):
    presenter, viewer = an_app(), an_app()
    shown(viewer, leads=False)
    assert room.room.view is None, "viewers show nothing to anybody"
    presenter.switch_page("pages/compare.py")
    presenter.query_params["dataset"] = "shapes"
    shown(presenter, leads=True)
    view = room.room.view
    assert view["page"] == "compare" and view["query"]["dataset"] == "shapes"
    shown(presenter, leads=True)
    assert room.room.view is view, "nothing changed, so nobody is called"

    viewer.session_state.compare_dataset = "digits"  # what was chosen here before is not in the way
    viewer.query_params["hide"] = "export"
    viewer.session_state.room_asked = True
    shown(viewer, leads=False)
    assert viewer.title[0].value == "Compare" and viewer.session_state.compare_dataset == "shapes"
    assert viewer.session_state.room_at == view["number"]
    assert viewer.query_params["hide"] in ("export", ["export"]), "their own"
    assert room.room.view is view


def test_a_second_window_of_the_presenter_that_is_drawn_anew_takes_nobody_away(shown):
    first, second = an_app(), an_app()
    shown(first, leads=True)
    second.switch_page("pages/students.py")
    shown(second, leads=True)
    shown(first, leads=True)
    assert room.room.view["page"] == "students"


def sized() -> None:
    import plotly.graph_objects as go
    import streamlit as st

    from pages.components import address, charts, pieces

    address.keep()
    chart = go.Figure(go.Scatter(x=[1, 2], y=[1, 2], line={"width": 2}), layout={"font": {"size": 10}})
    drawn = pieces.enlarged(chart) if pieces.is_big() else chart
    st.text(f"{charts._label(False)['fontSize']} {drawn.layout.font.size} {drawn.data[0].line.width:g}")


@pytest.mark.parametrize(
    ("key", "asked", "sizes"),
    [("", "", "13 10 2"), ("", "1", "17 13 3"), (KEY, "", "17 13 3"), (KEY, "0", "13 10 2"), ("", "<b>", "13 10 2")],
)
def test_charts_are_drawn_for_the_back_row_where_that_is_wanted(monkeypatch, key, asked, sizes):
    monkeypatch.setenv(seminar.VARIABLE, key)
    at = AppTest.from_function(sized, default_timeout=60)
    if asked:
        at.query_params["seminar"] = asked
    at.run()
    assert not at.exception and at.text[0].value == sizes
