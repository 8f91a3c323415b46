"""What happens in runs as server-sent events: a run is read from the store once for all who listen (torch-free)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from engine.errors import Refused
from engine.runs.store import Event
from pages.components.room import closing
from pages.components.shared import listening, pace, store

ALIVE = 5.0  # seconds of silence after which a stream says that it is there
STREAMED = ("layout", "frame", "metric", "status")
News = list[tuple[int, str]]  # ids of events, and what the stream says of them


class Feed:
    """One run, followed as long as somebody listens."""

    def __init__(self, run: str, cursor: int):
        self.run, self.cursor = run, cursor
        self.ears: set[asyncio.Queue[News | None]] = set()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            with contextlib.suppress(Refused, OSError, sqlite3.Error):  # who comes back is told what is in the way
                while not closing.is_set():
                    await asyncio.sleep(0.25 * pace(self.run))
                    if news := await read(self.run, self.cursor):
                        self.cursor = news[-1][0]
                        self._tell(news)
        finally:
            self.leave()
            self._tell(None)

    def leave(self) -> None:
        """Whoever comes from now on starts anew."""
        if _feeds.get(self.run) is self:
            del _feeds[self.run]

    def _tell(self, news: News | None) -> None:
        for ear in self.ears:
            ear.put_nowait(news)


_feeds: dict[str, Feed] = {}


async def read(run: str, since: int) -> News:
    """What happened after the event ``since``."""
    found = await run_in_threadpool(store().events, run, since, STREAMED, 100_000)
    return [(event.id, _message(event)) for event in found]


async def stream(request: Request, run: str, since: int) -> AsyncIterator[str]:
    """What happened in a run after the event ``since`` and what happens from now on, until the request's end."""
    ear: asyncio.Queue[News | None] = asyncio.Queue()
    feed = _feeds.get(run) or _feeds.setdefault(run, Feed(run, since))
    feed.ears.add(ear)  # before the first look, so that nothing falls between
    listening[run] += 1
    try:
        yield "retry: 1000\n\n"
        news: News | None = await read(run, since)
        while news is not None:
            yield "".join(text for id, text in news if id > since) or ": here\n\n"
            since = max(since, *(id for id, _ in news)) if news else since
            try:
                news = await asyncio.wait_for(ear.get(), ALIVE)
            except TimeoutError:
                news = []
            if await request.is_disconnected():
                return
    finally:
        feed.ears.discard(ear)
        listening[run] -= 1
        if not listening[run]:
            del listening[run]
        if not feed.ears:
            feed.task.cancel()
            feed.leave()


def _message(event: Event) -> str:
    data = json.dumps({"step": event.step, **event.data}, separators=(",", ":"))
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"
