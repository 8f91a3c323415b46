"""The app: its pages, the few routes beside them, and the life of the workers. Start it with ``streamlit run app.py``.

Streamlit's server imports this file once for ``app``, and executes it once more for every view of a page.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.runtime.pages_manager import PagesManager

from engine import gallery
from engine.errors import Refused
from engine.exports import EXPORTS, export
from engine.faults import LOG, hindrance, outside, record
from engine.probes.desk import Desk
from engine.runs.store import FINISHED
from pages.components import address, feed, hiding, roles, room, tour
from pages.components.form import KEYS
from pages.components.pieces import is_big
from pages.components.room import closing
from pages.components.shared import answerer, executor, film, store

ASSETS = Path(__file__).parent / "assets"
OWN = "img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'; base-uri 'self'"
BESIDE = (
    "Another Limbeck works on this folder of runs, too: both show the same runs and take turns at what is queued, each "
    "with a worker of its own"
)
FOR_EVER = "public, max-age=31536000, immutable"
SEEN, SMALL = 64, 200_000  # frames kept in memory, and the size in bytes up to which one is
TIDY_EVERY = 15.0  # seconds
exporting = threading.BoundedSemaphore(2)
_seen: dict[tuple[str, str], bytes] = {}  # frames that were asked for last, by path and query


# ---- pages ----------------------------------------------------------------------------------------------------------


def show() -> None:
    """The page that the address names, under the common navigation."""
    st.set_page_config(page_title="Limbeck", page_icon=str(ASSETS / "icon.svg"), layout="wide")
    sections = {
        "": [
            st.Page("pages/gallery.py", title="Gallery", icon=":material/view_module:", default=True),
            st.Page("pages/distil.py", title="Distil", icon=":material/water_drop:"),
            st.Page("pages/compare.py", title="Compare", icon=":material/compare:"),
            st.Page("pages/data.py", title="Your images", icon=":material/photo_library:"),
            st.Page("pages/students.py", title="Students", icon=":material/school:"),
            st.Page("pages/terms.py", title="Terms", icon=":material/menu_book:", visibility="hidden"),
        ],
        "Probes": [
            st.Page("pages/attribution.py", title="Attribution", icon=":material/center_focus_strong:"),
            st.Page("pages/bias.py", title="Texture & shape", icon=":material/texture:"),
            st.Page("pages/robustness.py", title="Robustness", icon=":material/shield:"),
        ],
        "What if": [
            st.Page("pages/sweep.py", title="Sweep", icon=":material/grid_view:"),
            st.Page("pages/pieces.py", title="Image by image", icon=":material/grid_on:"),
            st.Page("pages/applications.py", title="Applications", icon=":material/science:"),
        ],
    }
    pages = [page for section in sections.values() for page in section]
    st.logo(str(ASSETS / "logo.svg"), size="large")
    st.html(ASSETS / "app.css")
    address.keep()
    if is_big():
        st.html(ASSETS / "seminar.css")
    page = st.navigation(sections, position="hidden" if hiding.hidden("pages") else "top")
    _mark_section(sections, page)
    if sentence := hindrance():
        st.warning(sentence, icon=":material/hard_drive:")
    room.take_part(page, pages)
    tour.card(page.url_path)
    page.run()
    room.lead(page)


def _mark_section(sections: dict[str, list[Any]], page: Any) -> None:
    """Show which folded section of the bar the page is in; Streamlit marks only pages that stand in the bar itself."""
    places = [title for title in sections if title]
    inside = [title for title in places if page in sections[title]]
    if inside:
        first = sum(each.visibility != "hidden" for each in sections[""]) + 1
        place = first + places.index(inside[0])
        st.html(
            f'<style>[data-testid="stTopNav"] > :nth-child({place}) [data-testid="stTopNavSection"] '
            "{ font-weight: 600; background: rgb(191 180 154 / 0.25); }</style>"
        )


def failed(error: Exception) -> bool:
    """What a page shows in place of an error: what to do, and where one that nobody foresaw is written down."""
    sentence = str(error) if isinstance(error, Refused) else outside(error, "reload the page")
    if not sentence:
        id = record(error, f"{st.context.url} {st.query_params.to_dict()}")
        sentence = (
            f"Something went wrong inside (error {id}). Reload the page; if that does not help, open it without what "
            f"follows the ? in its address. {LOG} in the folder of runs says more about {id}."
        )
    st.error(sentence)
    return True  # Streamlit shows nothing of its own


# ---- routes: read only, and only below a run's folder (the store checks ids and steps); room.py has two more ---------


async def frame(request: Request) -> Response:
    """One frame of a run. It never changes under one URL: a frame made anew has another event id in its query."""
    url = request.url.path, request.url.query
    content = _seen.get(url)
    if content is None:
        content = await run_in_threadpool(_frame, **request.path_params)
        if content is None:
            return PlainTextResponse("There is no such frame.", 404)
        if request.url.query and len(content) <= SMALL:  # a room asks for the latest frame all at once
            _seen[url] = content
            while len(_seen) > SEEN:
                del _seen[next(iter(_seen))]
    return Response(content, media_type="image/webp", headers={"Cache-Control": FOR_EVER})


def _frame(run: str, step: str) -> bytes | None:
    path = store().frame_path(run, int(step)) if step.isdecimal() and len(step) < 10 else None
    with contextlib.suppress(FileNotFoundError):  # its run was deleted meanwhile
        return path.read_bytes() if path else None
    return None


def frames(request: Request) -> Response:
    """Which frames a run has, and what a viewer needs to go on from there with ``events``."""
    found = film(store(), request.path_params["run"])
    if found is None:
        return PlainTextResponse("There is no such run.", 404)
    return JSONResponse(found, headers={"Cache-Control": "no-store"})


def moment(request: Request) -> Response:
    """What is known of the moment of a frame: distilling seconds, real images looked at, shares of the gradient."""
    step = request.path_params["step"]
    found = store().events(request.path_params["run"], kinds=("frame",), limit=100_000) if step.isdecimal() else []
    known = next((e.data for e in reversed(found) if str(e.step) == step), None)
    if known is None:
        return PlainTextResponse("There is no such frame.", 404)
    return JSONResponse(known, headers={"Cache-Control": FOR_EVER})


def beside(request: Request) -> Response:
    """A picture or a list that stands beside a run's film. It never changes under one URL, as a frame."""
    path = store().beside(request.path_params["run"], request.path_params["name"])
    if path is None:
        return PlainTextResponse("There is no such file.", 404)
    return FileResponse(path, headers={"Cache-Control": FOR_EVER})


def result(request: Request) -> Response:
    """The distilled set as safetensors and JSON in one zip."""
    return _download(request, "zip")


def exported(request: Request) -> Response:
    """A run as a file of one of the formats that the page's “Export” offers, made now."""
    return _download(request, request.path_params["format"])


def _download(request: Request, format: str) -> Response:
    """Two at a time, since each takes seconds of a core, and a room may ask at once."""
    run = request.path_params["run"]
    if not room.leads(request):
        return PlainTextResponse(roles.only("export"), 403)
    if not exporting.acquire(timeout=2):
        return PlainTextResponse("Other files are being made; try again in a moment.", 503, {"Retry-After": "5"})
    try:
        content = export(store(), run, format)
    except Refused as refused:
        return PlainTextResponse(str(refused), 404)
    finally:
        exporting.release()
    name = f'attachment; filename="{EXPORTS[format].name(run)}"'
    return Response(content, media_type=EXPORTS[format].mime, headers={"Content-Disposition": name})


def probe_file(request: Request) -> Response:
    """A picture or table of a probe's answer."""
    path = Desk().file(request.path_params["digest"], request.path_params["name"])
    if path is None:
        return PlainTextResponse("There is no such file.", 404)
    return FileResponse(path, headers={"Cache-Control": FOR_EVER})


async def events(request: Request) -> Response:
    """What happens in a run, as server-sent events, from the event after ``since`` or ``Last-Event-ID``."""
    run = request.path_params["run"]
    since = request.headers.get("last-event-id") or request.query_params.get("since", "0")
    if not since.isdecimal() or len(since) > 18:
        return PlainTextResponse("“since” must be the id of an event: a whole number.", 400)
    known = await run_in_threadpool(store().run, run)
    if known is None:
        return PlainTextResponse("There is no such run.", 404)
    if known.status in FINISHED and not await feed.read(run, int(since)):
        return Response(status_code=204)  # tells an EventSource not to come back

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(feed.stream(request, run, int(since)), media_type="text/event-stream", headers=headers)


async def broken(request: Request, error: Exception) -> Response:
    """The answer of a route that failed."""
    if sentence := str(error) if isinstance(error, Refused) else outside(error):
        return PlainTextResponse(sentence, 503, {"Retry-After": "5"})
    id = record(error, f"{request.method} {request.url}")
    return PlainTextResponse(f"Something went wrong inside; {LOG} of this server says where, under {id}.", 500)


class OldLinks:
    """Links to a run or a filled form that were made when the first page was Distil still lead there."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/":
            request = Request(scope)
            if {"run", *KEYS} & set(request.query_params):
                return await RedirectResponse(f"/distil?{request.url.query}")(scope, receive, send)
        await self.app(scope, receive, send)


class OwnPictures:
    """Has browsers take images from this server alone: names in files may be Markdown that asks for others."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = OWN
            await send(message)

        await self.app(scope, receive, sealed if scope["type"] == "http" else send)


# ---- the workers ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    """The gallery's runs, and one warm worker for as long as the server lives."""
    _end_streams_on_signals()
    threading.Thread(target=_tidy, name="limbeck-tidy", daemon=True).start()
    starting = threading.Thread(target=_start, name="limbeck-start", daemon=True)
    starting.start()
    await run_in_threadpool(starting.join, 2)
    try:
        yield
    finally:
        closing.set()
        await run_in_threadpool(starting.join, 5)
        with contextlib.suppress(Refused, OSError, sqlite3.Error):  # there was no folder to keep runs in
            await run_in_threadpool(answerer().shutdown)
            await run_in_threadpool(executor().shutdown)


def _start() -> None:
    """Start the workers, as soon as the folder of runs allows it: until then the pages say what is in the way."""
    told = ""
    while not closing.is_set():
        try:
            others = store().servers()
            executor().start()
            if others:
                print(f"{BESIDE} (process {', '.join(map(str, others))}).", file=sys.stderr, flush=True)
            gallery.start(store())
            store().clean_uploads()
            return
        except (Refused, OSError, sqlite3.Error) as error:
            if told != (told := str(error) if isinstance(error, Refused) else outside(error) or repr(error)):
                print(told, file=sys.stderr, flush=True)
        closing.wait(2)


def _tidy() -> None:
    """Collect garbage now and then, where there may be any, instead of after every script as Streamlit would."""
    young = 0
    while not closing.wait(TIDY_EVERY):
        if young != (young := gc.get_stats()[1]["collections"]):
            gc.collect()


def _end_streams_on_signals() -> None:
    """The server waits for open responses before it ends, so event streams have to end by themselves first."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)

        def handle(number: int, frame: Any, before: Any = before) -> None:
            closing.set()
            if callable(before):
                before(number, frame)

        signal.signal(number, handle)


ROUTES = [
    Route("/api/runs/{run}/frames/{step}.webp", frame),
    Route("/api/runs/{run}/frames/{step}.json", moment),
    Route("/api/runs/{run}/frames", frames),
    Route("/api/runs/{run}/beside/{name}", beside),
    Route("/api/runs/{run}/events", events),
    Route("/api/runs/{run}/result.zip", result),
    Route("/api/runs/{run}/exports/{format}", exported),
    Route("/api/probes/{digest}/{name}", probe_file),
    *room.ROUTES,
]

if __name__ == "__main__":
    show()
else:
    # Streamlit takes a folder named pages for its older kind of navigation until the first view of this file, so that
    # a link to a page, followed right after the start, would bypass it.
    PagesManager.uses_pages_directory = False
    app = st.App(
        __file__,
        routes=ROUTES,
        lifespan=lifespan,
        middleware=[Middleware(OwnPictures), Middleware(OldLinks), Middleware(room.Door)],
        on_script_error=failed,
        exception_handlers={Exception: broken},
    )
