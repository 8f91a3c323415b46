"""What a room full of people who watch one run costs it, and what they wait for: prints a report.

    python tests/benchmarks/audience.py [--sessions N] [--seconds S] [--json FILE] …

Starts the server with a home of its own and a long run on it (digits, distribution matching), and measures in turn: the
run alone, the run watched by N sessions, the run alone again. A session does what a browser does with the page of a
run, without drawing it, since as many browsers would measure themselves on a machine of few cores: it holds Streamlit's
websocket, has the page's timers run its parts again, follows the run's event stream and fetches the latest frame as
``assets/player.js`` does, and every few seconds opens another run by its link and comes back. An answer is the
time from such a click to the end of the script that it started. Some real pages of chromium look on at the end, as a
check. Takes about two minutes more than the times asked for; measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import math
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.runs.store import Store  # noqa: E402
from engine.spec import build_spec  # noqa: E402
from tests.benchmarks.page import serve  # noqa: E402

LIMITS = {"lost": 0, "p95": 1.0, "slowed": 0.20, "memory": 600.0, "growth": 20.0}
SETTLED = 60.0  # seconds after which the server's memory shall not grow any more
PAGE = "distil"
PATIENCE = 60.0  # seconds after which an answer is given up


@dataclass
class Told:
    """What the sessions saw."""

    answers: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # seconds to the first whole page
    lost: list[str] = field(default_factory=list)  # why a websocket ended
    broken: int = 0  # event streams that ended while their run was going
    events: int = 0
    frames: int = 0
    parts: int = 0  # parts of a page that its timers ran again
    late: list[float] = field(default_factory=list)  # seconds from a frame's event to its picture
    strayed: set[str] = field(default_factory=set)  # pages that were shown instead of that of the run


# ---- a browser's side of HTTP ---------------------------------------------------------------------------------------


class Line:
    """One connection to the server that is kept, as browsers keep theirs."""

    def __init__(self, port: int):
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str) -> dict[str, str]:
        """Send a GET; the headers of the answer, with its status under the key “status”."""
        for again in (True, False):
            if self.writer is None or self.writer.is_closing():
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            lines = (f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Accept: */*", "Accept-Encoding: gzip")
            self.writer.write("\r\n".join([*lines, "", ""]).encode())
            try:
                await self.writer.drain()
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                break
            except (OSError, asyncio.IncompleteReadError):  # the server had closed it meanwhile
                self.close()
                if not again:
                    raise
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        return {**headers, "status": head[0].split()[1]}

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        headers = await self.ask(path)
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = b"".join([chunk async for chunk in self.chunks()])
        return int(headers["status"]), gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body

    async def chunks(self) -> Any:
        """The parts of a chunked body."""
        while size := int((await self.reader.readline()).strip() or b"0", 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readline()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


# ---- one who watches ------------------------------------------------------------------------------------------------


class Session:
    """A browser with the page of ``run`` open; ``other`` is a finished run that its clicks look at in between."""

    def __init__(self, port: int, run: str, other: str, every: float, told: Told, seed: int):
        self.port, self.run, self.other, self.every, self.told = port, run, other, every, told
        self.random = random.Random(seed)
        self.page = ""
        self.query = urlencode({"run": run})
        self.timers: dict[str, tuple[float, asyncio.Task[None]]] = {}
        self.finished = asyncio.Event()
        self.socket: ClientConnection | None = None
        self.watching: asyncio.Task[None] | None = None

    async def live(self) -> None:
        """Until cancelled, or until the server hangs up."""
        tasks: list[asyncio.Task[None]] = []
        began = time.perf_counter()
        try:
            address = f"ws://127.0.0.1:{self.port}/_stcore/stream"
            async with connect(address, subprotocols=["streamlit"], max_size=None, compression=None) as self.socket:
                await self.rerun()
                tasks = [asyncio.create_task(self.click()), asyncio.create_task(self.follow(began))]
                async for raw in self.socket:
                    self.hear(raw)
            self.told.lost.append("the server closed it")
        except (OSError, WebSocketException) as error:
            self.told.lost.append(f"{type(error).__name__} {error}")
        finally:
            for task in [*tasks, *(timer for _, timer in self.timers.values()), self.watching]:
                if task is not None:
                    task.cancel()

    def hear(self, raw: bytes) -> None:
        """One message of the server, as the page's own script takes it."""
        message = ForwardMsg()
        message.ParseFromString(raw)
        kind = message.WhichOneof("type")
        if kind == "new_session":
            if not message.metadata.run.fragment_ids:  # the whole page is drawn anew
                for name in list(self.timers):
                    self.stop(name)
        elif kind == "navigation":
            self.page = message.navigation.page_script_hash
            shown = next(page for page in message.navigation.app_pages if page.page_script_hash == self.page)
            if shown.url_pathname != PAGE:
                self.told.strayed.add(shown.url_pathname or "the first page")
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "auto_rerun":
            found = message.auto_rerun
            if self.timers.get(found.fragment_id, (0, None))[0] != found.interval:
                self.stop(found.fragment_id)
                task = asyncio.create_task(self.again(found.interval, found.fragment_id))
                self.timers[found.fragment_id] = (found.interval, task)
        elif kind == "stop_auto_rerun":
            for name in message.stop_auto_rerun.fragment_ids:
                self.stop(name)
        elif kind == "script_finished" and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
            self.finished.set()

    def stop(self, timer: str) -> None:
        _, task = self.timers.pop(timer, (0, None))
        if task is not None:
            task.cancel()

    async def again(self, interval: float, fragment: str) -> None:
        """A part of the page that is run again by a timer."""
        while True:
            await asyncio.sleep(interval)
            self.told.parts += 1
            await self.rerun(fragment=fragment)

    async def rerun(self, fragment: str = "") -> None:
        message = BackMsg()
        asked = message.rerun_script
        asked.query_string, asked.page_script_hash = self.query, self.page
        if not self.page:
            asked.page_name = PAGE
        if fragment:
            asked.fragment_id, asked.is_auto_rerun = fragment, True
        await self.socket.send(message.SerializeToString())

    async def click(self) -> None:
        """Now and then to the other run, and back."""
        await self.finished.wait()
        while True:
            await asyncio.sleep(self.every * self.random.uniform(0.5, 1.5))
            for target in (self.other, self.run):
                self.query = urlencode({"run": target})
                self.finished.clear()
                began = time.perf_counter()
                await self.rerun()
                try:
                    await asyncio.wait_for(self.finished.wait(), PATIENCE)
                except TimeoutError:
                    self.told.answers.append(PATIENCE)
                    continue
                self.told.answers.append(time.perf_counter() - began)
                self.look(target)
                if target == self.other:
                    await asyncio.sleep(1.0)

    async def follow(self, began: float) -> None:
        """The first page, then its film."""
        await self.finished.wait()
        self.told.first.append(time.perf_counter() - began)
        self.look(self.run)

    def look(self, run: str) -> None:
        """The player opens another run's film."""
        if self.watching is not None:
            self.watching.cancel()
        self.watching = asyncio.create_task(self.film(run))

    async def film(self, run: str) -> None:
        """What ``Reel`` in player.js does: the list of frames, the last of them, and what happens from then on."""
        line, stream = Line(self.port), Line(self.port)
        try:
            while True:
                _, body = await line.get(f"/api/runs/{run}/frames")
                found = json.loads(body)
                if found["frames"]:
                    step, event, *_ = found["frames"][-1]
                    await self.fetch(line, run, step, event)
                if found["status"] not in ("queued", "running", "paused"):
                    return
                headers = await stream.ask(f"/api/runs/{run}/events?since={found['cursor']}")
                if headers["status"] == "204":
                    return
                async for chunk in stream.chunks():
                    await self.take(line, run, chunk)
                self.told.broken += 1
                await asyncio.sleep(3.0)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            self.told.broken += 1
        finally:
            stream.close()
            line.close()

    async def take(self, line: Line, run: str, chunk: bytes) -> None:
        """Events that came together: the last frame among them is fetched."""
        latest = None
        for block in chunk.decode().split("\n\n"):
            fields = dict(text.split(": ", 1) for text in block.splitlines() if ": " in text and text[0] != ":")
            self.told.events += "event" in fields
            if fields.get("event") == "frame":
                latest = (json.loads(fields["data"])["step"], int(fields["id"]))
        if latest:
            await self.fetch(line, run, *latest)

    async def fetch(self, line: Line, run: str, step: int, event: int) -> None:
        began = time.perf_counter()
        status, _ = await line.get(f"/api/runs/{run}/frames/{step}.webp?e={event}")
        if status == 200:
            self.told.frames += 1
            self.told.late.append(time.perf_counter() - began)


# ---- the machine ----------------------------------------------------------------------------------------------------


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1000


def spent(pid: int) -> float:
    """Seconds of a core that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Pace:
    """Steps of the run per second of the clock on the wall, between two moments."""

    def __init__(self, store: Store, run: str):
        self.store, self.run = store, run
        self.began, self.step = time.perf_counter(), store.run(run).step

    def rate(self) -> float:
        return (self.store.run(self.run).step - self.step) / (time.perf_counter() - self.began)


async def gather(port: int, args: argparse.Namespace, run: str, other: str, pid: int, told: Told) -> dict[str, Any]:
    """The audience comes, stays for ``--seconds``, has some browsers among it at last, and leaves."""
    store, sessions = Store(), []
    for seed in range(args.sessions):
        session = Session(port, run, other, args.every, told, seed)
        sessions.append(asyncio.create_task(session.live()))
        await asyncio.sleep(min(0.2, 10 / args.sessions))
    arrived = time.perf_counter()
    while len(told.first) + len(told.lost) < args.sessions and time.perf_counter() < arrived + PATIENCE:
        await asyncio.sleep(0.2)
    began, memory, tick, frames = time.perf_counter(), [], 0, told.frames
    pace, used, own = Pace(store, run), spent(pid), time.process_time()
    while (now := time.perf_counter() - began) < args.seconds:
        if now >= 10 * tick:
            memory.append([round(now), round(resident(pid), 1)])
            tick += 1
        await asyncio.sleep(min(1.0, args.seconds - now))
    memory.append([round(args.seconds), round(resident(pid), 1)])
    result = {
        "rate": pace.rate(),
        "memory": memory,
        "server": (spent(pid) - used) / args.seconds,
        "script": (time.process_time() - own) / args.seconds,
        "answers": sorted(told.answers),
        "frames": told.frames - frames,
        "pages": [],
    }
    if args.browsers:  # what is measured beside a browser, which takes all the cores, says nothing
        result["pages"] = await look_on(port, args.browsers, run)
    for task in sessions:
        task.cancel()
    for ended in await asyncio.gather(*sessions, return_exceptions=True):
        if isinstance(ended, Exception):  # a mistake of this script's
            raise ended
    return result


async def look_on(port: int, count: int, run: str) -> list[dict[str, Any]]:
    """Real pages of the run among the audience: how many pictures they draw in a while."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        pages, errors = [], [[] for _ in range(count)]
        for at in range(count):
            page = await browser.new_page(viewport={"width": 1280, "height": 720})
            page.on("pageerror", lambda error, at=at: errors[at].append(str(error)))
            await page.goto(f"http://127.0.0.1:{port}/?run={run}")
            await page.locator(".player[data-drawn]").wait_for(timeout=120_000)
            pages.append(page)
        drawn = [await _drawn(page) for page in pages]
        await asyncio.sleep(15)
        found = [
            {
                "connection": await page.get_by_test_id("stApp").get_attribute("data-test-connection-state"),
                "drawn": await _drawn(page) - before,
                "exceptions": await page.get_by_test_id("stException").count() + len(problems),
            }
            for page, before, problems in zip(pages, drawn, errors, strict=True)
        ]
        await browser.close()
        return found


async def _drawn(page: Any) -> int:
    return int(await page.locator(".player[data-drawn]").get_attribute("data-drawn"))


def alone(store: Store, run: str, seconds: float) -> float:
    """Steps per second of the run while nobody watches."""
    pace = Pace(store, run)
    time.sleep(seconds)
    return pace.rate()


def start_runs(store: Store) -> tuple[str, str]:
    """A finished run to click on, and the long one; both of digits, by distribution matching."""
    spec = {"dataset": "digits", "method": "dm", "ipc": 1, "students": 0}
    other = store.submit("distill", build_spec("distill", steps=20, **spec))
    run = store.submit("distill", build_spec("distill", minutes=600, **spec))
    while store.run(run).step < 1:
        assert store.run(other).status != "failed", store.run(other).message
        time.sleep(0.2)
    return run, other


# ---- the report -----------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace) -> dict[str, Any]:
    told = Told()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIMBECK_HOME"] = folder
        process, url = serve(Path(folder), warm=args.warm)
        store, port = Store(), int(url.rpartition(":")[2])
        try:
            run, other = start_runs(store)
            time.sleep(args.warm)  # it begins eager, compiles, and measures its references
            before = alone(store, run, args.quiet)
            watched = asyncio.run(gather(port, args, run, other, process.pid, told))
            after = alone(store, run, args.quiet)
            metrics = sum(e.kind == "metric" for e in store.events(run, kinds=("metric",), limit=100_000))
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    answers = watched["answers"]
    settled = [size for at, size in watched["memory"] if at >= min(SETTLED, args.seconds / 2)]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "sessions": args.sessions,
        "seconds": args.seconds,
        "clicks": len(answers),
        "p50": _at(answers, 0.5),
        "p95": _at(answers, 0.95),
        "max": answers[-1] if answers else math.nan,
        "first_page_p95": _at(sorted(told.first), 0.95),
        "lost": len(told.lost),
        "lost_why": sorted(set(told.lost)),
        "streams_broken": told.broken,
        "frames_fetched": watched["frames"],
        "frame_p95": _at(sorted(told.late), 0.95),
        "events": told.events,
        "parts": told.parts,
        "strayed": sorted(told.strayed),
        "run_metrics": metrics,
        "rate_alone": [before, after],
        "rate_watched": watched["rate"],
        "slowed": 1 - watched["rate"] / statistics.mean((before, after)),
        "memory": watched["memory"],
        "memory_growth": settled[-1] - settled[0] if settled else math.nan,
        "server_cores": watched["server"],
        "script_cores": watched["script"],
        "pages": watched["pages"],
    }


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else math.nan


def report(found: dict[str, Any]) -> tuple[str, bool]:
    """Sentences and whether all limits were kept."""
    most = max(size for _, size in found["memory"])
    kept = {
        "no session lost": found["lost"] <= LIMITS["lost"],
        f"every click shows the page of a run {found['strayed'] or ''}": not found["strayed"],
        "95 % of the answers within a second": found["p95"] <= LIMITS["p95"],
        "the run slowed by a fifth at most": found["slowed"] <= LIMITS["slowed"],
        "600 MB at most": most <= LIMITS["memory"],
        "memory flat after the first minute": found["memory_growth"] <= LIMITS["growth"],
    }
    before, after = found["rate_alone"]
    frames = found["frames_fetched"] / found["sessions"] / found["seconds"]
    lines = [
        f"{found['date']}, {found['machine']}: {found['sessions']} sessions watched a run for {found['seconds']:g} s.",
        f"answers   {found['clicks']} clicks: median {found['p50']:.2f} s, 95 % within {found['p95']:.2f} s, "
        f"the slowest {found['max']:.2f} s; 95 % of the first pages within {found['first_page_p95']:.2f} s",
        f"sessions  {found['lost']} lost {found['lost_why'] or ''}, {found['streams_broken']} event streams broken, "
        f"{found['parts']} parts of pages drawn again by their timers",
        f"pictures  {frames:.2f} a second for each, 95 % within {1000 * found['frame_p95']:.0f} ms of their event",
        f"run       {before:.1f} and {after:.1f} steps/s alone, {found['rate_watched']:.1f} watched: slowed by "
        f"{found['slowed']:.0%}",
        f"server    {found['server_cores']:.2f} of a core (this script {found['script_cores']:.2f}); "
        f"MB at second: {', '.join(f'{at}: {size:.0f}' for at, size in found['memory'])}",
    ]
    for page in found["pages"]:
        lines.append(
            f"browser   {page['connection']}, drew {page['drawn']} pictures in 15 s, {page['exceptions']} exceptions"
        )
    lines += [f"{'kept  ' if ok else 'MISSED'}    {what}" for what, ok in kept.items()]
    return "\n".join(lines), all(kept.values())


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0, help="of being watched")
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds alone, before and after")
    parser.add_argument("--warm", type=float, default=45.0, help="seconds for the worker, and for the run, to warm up")
    parser.add_argument("--every", type=float, default=6.0, help="seconds between the clicks of a session")
    parser.add_argument("--browsers", type=int, default=2, help="pages of a real chromium among them at the end")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args(given)


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no server is left behind
    found = measure(args)
    text, kept = report(found)
    print(text)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
