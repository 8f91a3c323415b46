"""The room of a seminar: its door, what the presenter shows, and who follows (torch-free).

What the presenter looks at is kept in the memory of the one server. Browsers hear of it as server-sent events; only a
change of page or address has a follower's script run. The film's place goes from player to player (``room.js``).
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import threading
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine import seminar
from pages.components import address, inside, roles
from pages.components.component import component
from pages.components.pieces import is_big
from pages.components.player import LINKED

TICK = 0.25  # seconds between two looks of a stream at what is shown
STREAMS = 500  # at once: a large lecture, and no more than a server carries
TRIES, MINUTE = 5, 60.0  # wrong keys of one address in that time, then none of its keys is looked at
SLOW = 1.0  # seconds that a wrong key costs
FILM: dict[str, Any] = {  # what a film's place is made of, and what it may be
    "clock": ("step", "seconds", "seen"),
    "speed": (0.25, 0.5, 1, 2, 4),
    "layer": ("images", "start", "last", "mean"),
    "even": (True, False),
    "playing": (True, False),
    "following": (True, False),
    "part": (-1, 0, 1, 2, 3),
}

closing = threading.Event()  # the server ends: so do its streams

_bar = component("room")


class Room:
    """What is shown. ``view`` and ``film`` are replaced whole, so that streams can read them while scripts write."""

    def __init__(self) -> None:
        self.view: dict[str, Any] | None = None  # number, page (its part of the address), query
        self.film: dict[str, Any] | None = None  # number, id of the film, the keys of FILM, its time, when it was told
        self.streams = self.followers = 0
        self._number = 0
        self._lock = threading.Lock()

    def show(self, page: str, query: dict[str, str]) -> None:
        """The presenter looks at a page."""
        self.view = {"number": self.count(), "page": page, "query": query}

    def count(self) -> int:
        with self._lock:
            self._number += 1
            return self._number


room = Room()


# ---- pages ----------------------------------------------------------------------------------------------------------


def take_part(page: Any, pages: list[Any]) -> None:
    """Before a page is drawn: the bar that says who leads, and, in a follower's session, the way to the presenter."""
    if not seminar.presenter_key():
        return
    state, view, presents = st.session_state, room.view, roles.presenter()
    if state.pop("room_asked", False) and view is not None and not presents:
        there = next((p for p in pages if p.url_path == view["page"]), None)
        if there is not None:
            for key in [k for k in state if not str(k).startswith(("room", "kept"))]:
                del state[key]  # the page is opened as by a link: nothing chosen before is in its way
            state.room_at = view["number"]
            st.switch_page(there, query_params={**view["query"], **state.get("kept", {})})
    data: dict[str, Any] = {"leads": presents, "big": is_big(), "page": page.url_path}
    if presents:
        data["address"] = room_address()
    else:
        data |= {"at": state.get("room_at", 0), "alone": bool(address.kept("hide"))}
    with st.container(key="seminar"):
        _bar(key="room", data=data, on_view_change=_ask, on_big_change=_resize)


def _ask() -> None:
    st.session_state.room_asked = True


def _resize() -> None:
    address.hold("seminar", "0" if is_big() else "1")


def lead(page: Any) -> None:
    """After a page was drawn for the presenter: followers see it, too.

    Only what changed in this window counts: a second one, which a finished run draws anew, takes nobody away.
    """
    if not seminar.presenter_key() or not roles.presenter():
        return
    own = address.own()
    # The film goes from player to player, unless what depends on its step is on the page.
    apart = () if any(key in own for key in inside.TOGGLES) else LINKED
    here = (page.url_path, {key: value for key, value in own.items() if key not in apart})
    if st.session_state.get("room_led") != here:
        st.session_state.room_led = here
        room.show(*here)


def room_address() -> str:
    """Where the others find this server, without what comes before the host."""
    host = seminar.room_host(str(st.get_option("server.address") or ""))
    return f"{host}:{st.get_option('server.port')}"


# ---- routes ---------------------------------------------------------------------------------------------------------


def leads(request: Request) -> bool:
    """Whether a request is the presenter's."""
    key = seminar.presenter_key()
    return seminar.right_token(key, request.cookies.get(seminar.cookie_name(key), "")) if key else True


async def events(request: Request) -> Response:
    """What the presenter shows, as server-sent events for a follower; how many follow, for the presenter."""
    if not seminar.presenter_key():
        return PlainTextResponse("This server is in no seminar mode.", 404)
    if room.streams >= STREAMS:
        return PlainTextResponse("The room is full; try again later.", 503, {"Retry-After": "30"})
    presents = leads(request)

    async def stream() -> AsyncIterator[str]:
        seen: dict[str, Any] = {}
        quiet = 0.0
        room.streams += 1
        room.followers += not presents
        try:
            yield "retry: 1000\n\n"
            while not closing.is_set() and not await request.is_disconnected():
                now = {"followers": room.followers} if presents else {"view": room.view, "film": room.film}
                new = [kind for kind, value in now.items() if value is not None and seen.get(kind) != value]
                for kind in new:
                    yield f"event: {kind}\ndata: {json.dumps(now[kind], separators=(',', ':'))}\n\n"
                seen = now
                quiet = 0.0 if new else quiet + TICK
                if quiet >= 10:
                    quiet = 0.0
                    yield ": keep-alive\n\n"
                await asyncio.sleep(TICK)
        finally:
            room.streams -= 1
            room.followers -= not presents

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


async def film(request: Request) -> Response:
    """The presenter's film is somewhere else now. The one route that changes something, and only for the presenter."""
    if not seminar.presenter_key() or not leads(request):
        return PlainTextResponse(roles.only("lead"), 403)
    if request.headers.get("content-type", "") != "application/json":  # what no form of another site can send
        return PlainTextResponse("A film's place is JSON.", 415)
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 4000:
            return PlainTextResponse("A film's place is at most 4,000 bytes.", 413)
    found = read_film(body)
    if found is None:
        return PlainTextResponse("That is no film's place.", 400)
    room.film = {"number": room.count(), **found}
    return Response(status_code=204)


def read_film(body: bytes) -> dict[str, Any] | None:
    """A film's place as a player tells it, or None where it is none."""
    try:
        said = json.loads(body)
        found = {name: said[name] for name in FILM}
        time_, told, id = float(said["time"]), float(said["told"]), said["id"]
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    if not isinstance(id, str) or not math.isfinite(time_) or not math.isfinite(told):
        return None
    for name, value in found.items():
        if not isinstance(value, (str, int, float)) or value not in FILM[name]:
            return None
    return {"id": id, "time": time_, "told": told, **found}


ROUTES = [Route("/api/seminar/events", events), Route("/api/seminar/film", film, methods=["POST"])]


# ---- the door -------------------------------------------------------------------------------------------------------


class Door:
    """Takes the presenter's key out of an address and leaves a cookie in its place; keeps viewers' uploads out."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.wrong: dict[str, list[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = seminar.presenter_key()
        if scope["type"] != "http" or not key:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if "key" in request.query_params:
            await (await self._enter(request, key))(scope, receive, send)
        elif "/_stcore/upload_file/" in request.url.path and request.method != "OPTIONS" and not leads(request):
            await PlainTextResponse(roles.only("bring files"), 403)(scope, receive, send)
        elif "limbeck_viewer" in request.cookies:
            await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, _greeted(request, send))

    async def _enter(self, request: Request, key: str) -> Response:
        now, who = time.monotonic(), request.client.host if request.client else ""
        self.wrong = {h: recent for h, at in self.wrong.items() if (recent := [t for t in at if now - t < MINUTE])}
        if len(self.wrong.get(who, ())) >= TRIES:
            return PlainTextResponse("Too many wrong keys came from here; try again in a minute.", 429)
        if not seminar.right_key(key, request.query_params["key"]):
            self.wrong.setdefault(who, []).append(now)
            await asyncio.sleep(SLOW)
            return PlainTextResponse("That is not the presenter's key. Viewers need none: leave it out.", 403)
        rest = urlencode([(k, v) for k, v in request.query_params.multi_items() if k != "key"])
        path = "/" + quote(request.scope["path"].lstrip("/\\"))  # two slashes would lead to another server
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        answer.headers.update({"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        answer.set_cookie(
            seminar.cookie_name(key), seminar.make_token(key), max_age=seminar.LIFE, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer


def _greeted(request: Request, send: Send) -> Send:
    """Give a browser that opens a page a name, by which its share of the worker is counted."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("content-type", "").startswith("text/html"):
                cookie = f"limbeck_viewer={secrets.token_hex(8)}; Path=/; HttpOnly; SameSite=Strict"
                headers.append("Set-Cookie", cookie)
        await send(message)

    return named
