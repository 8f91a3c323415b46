"""A real server and a real browser for the tests in this folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from tests.browser.helpers import Server, make_gallery, until

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")  # the same list is in the Makefile
FLAGS = [
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

# Console errors that are not ours, each with its reason.
HARMLESS = (
    # Streamlit's client looks for its server below each part of a page's address before it finds it at the root.
    "/_stcore/health",
    "/_stcore/host-config",
)

expect.set_options(timeout=20_000)  # a busy machine draws late


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """The app on a free port, with a home of its own; it must end without a traceback and without leaving workers."""
    with serving(tmp_path_factory.mktemp("home")) as running:
        yield running


@contextmanager
def serving(home: Path, **environment: str) -> Iterator[Server]:
    """See ``server``; ``environment``: what is more in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log, shown = home / "server.log", make_gallery(home.with_name(f"{home.name}-gallery"))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}",
                "--server.address=127.0.0.1", "--browser.gatherUsageStats=false", "--server.fileWatcherType=none",
            ],
            cwd=ROOT, env={**os.environ, "LIMBECK_HOME": str(home), "LIMBECK_GALLERY": str(shown), **environment},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    running = Server(f"http://127.0.0.1:{port}", home, process.pid)

    def healthy() -> bool:
        assert process.poll() is None, f"the server ended by itself:\n{log.read_text()}"
        try:
            return running.get("/_stcore/health") == b"ok"
        except OSError:  # not listening yet, or too busy to answer in time
            return False

    try:
        until(healthy, 60, "the server answers")
        yield running
        workers = [int(file.stem) for file in (home / "workers").glob("*.json")]
    finally:
        _end(process)
    for text in (log.read_text(), *(f.read_text() for f in home.glob("workers.log"))):
        assert "Traceback" not in text, text
    until(lambda: not [w for w in workers if _alive(w)], 10, "the workers end with the server")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the server as a person would, and its whole group if that takes too long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="session")
def browser():
    """The machine's chromium. Without one the tests are skipped, or fail where LIMBECK_REQUIRE_BROWSER is set."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path  # what `playwright install chromium` would have fetched
        found = next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)
        if found is None:
            reason = f"no browser on this machine (looked for {', '.join(NAMES)}); make test installs one on Debian"
            if os.environ.get("LIMBECK_REQUIRE_BROWSER"):
                pytest.fail(reason)
            pytest.skip(reason)
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, server: Server):
    """A fresh window of 1280×720. Whatever the test did, the console must be clean and no exception on the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    window, errors = context.new_page(), []
    window.on("console", lambda m: errors.append(f"{m.text} ({m.location.get('url')})") if m.type == "error" else None)
    window.on("pageerror", lambda e: errors.append(str(e)))
    yield window
    exceptions = _exceptions(window)
    context.close()
    assert not exceptions, exceptions
    assert not [e for e in errors if not any(h in e for h in HARMLESS)], errors


def _exceptions(window: Page) -> list[str]:
    try:
        return window.get_by_test_id("stException").all_inner_texts()
    except Error:  # the window crashed: the test has failed already
        return []


@pytest.fixture
def idle(server: Server):
    """Runs left by an earlier test are stopped first, so that this one has the worker to itself."""
    from engine.errors import Refused
    from engine.runs.store import Store

    store = Store(server.home)

    def rest() -> bool:
        busy = store.runs(statuses=("queued", "running", "paused"))
        for run in busy:
            try:
                store.command(run.id, "stop")
            except Refused:
                pass  # it has just ended
        return not busy

    until(rest, 60, "earlier runs end")
    time.sleep(0.2)
    return store
