"""What somebody at the page waits for on this machine: prints a table.

    LIMBECK_DATA=… python tests/benchmarks/page.py [--rounds N] [--seconds S]

Starts the server with a home of its own, waits until its worker is warm, and presses each preset's button in a real
chromium: seconds until the initial images are drawn (median and range over the rounds), how often the picture changes
in the first S seconds and after them (a preset's first round compiles), and what the server holds in memory meanwhile.
Measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.presets import PRESETS  # noqa: E402
from engine.runs.store import Store  # noqa: E402
from pages.components.form import to_query  # noqa: E402

WATCHED = ("digits-dc-1", "mnist-dc-1")


def serve(home: Path, warm: float = 45) -> tuple[subprocess.Popen[bytes], str]:
    """The server's process and address, once its worker has been there for ``warm`` seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}"]
    process = subprocess.Popen(
        [*command, "--server.address=127.0.0.1", "--browser.gatherUsageStats=false"],
        cwd=ROOT,
        env={**os.environ, "LIMBECK_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url, store = f"http://127.0.0.1:{port}", Store(home)
    while True:
        with contextlib.suppress(OSError):  # not listening yet, or too busy to answer in time
            if urlopen(f"{url}/_stcore/health", timeout=5).read() == b"ok" and store.workers():
                time.sleep(warm)  # the worker reads the datasets of the presets ahead
                return process, url
        time.sleep(0.2)


def press(page: Page, url: str, preset: str) -> tuple[float, str]:
    """Seconds from the click to the drawn initial images, and the run's id."""
    page.goto(f"{url}/distil?{urlencode(to_query(PRESETS[preset].spec.flat()))}")
    button = page.get_by_role("button", name="Distil", exact=True)
    button.wait_for()
    page.wait_for_timeout(2500)
    page.evaluate("document.querySelectorAll('.player').forEach(e => e.dataset.old = 1)")  # a replay of an earlier run
    began = time.perf_counter()
    button.click()
    page.locator(".player[data-drawn]:not([data-old])").wait_for(timeout=60_000)
    taken = time.perf_counter() - began
    page.wait_for_url("**/*run=*")
    return taken, page.url.split("run=")[1].split("&")[0]


def changes(store: Store, run: str, seconds: float) -> tuple[float, float]:
    """Frames a second in the first ``seconds`` of the run and in the ``seconds`` after them."""
    began = store.run(run).started
    while time.time() < began + 2 * seconds:
        time.sleep(0.5)
    made = [e.at - began for e in store.events(run, kinds=("frame",))]
    return sum(t < seconds for t in made) / seconds, sum(seconds <= t < 2 * seconds for t in made) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        process, url = serve(home)
        store = Store(home)
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n")
        try:
            print("| preset | click to initial images | changes/s at first | changes/s then | server |")
            print("|---|---|---|---|---|")
            for preset in WATCHED:
                waits, first, then = [], [], []
                for _ in range(args.rounds):
                    page = browser.new_page(viewport={"width": 1280, "height": 720})
                    taken, run = press(page, url, preset)
                    rates = changes(store, run, args.seconds)
                    waits.append(taken)
                    first.append(rates[0])
                    then.append(rates[1])
                    size, torch = memory(process.pid)
                    store.command(run, "stop")
                    while store.run(run).status == "running":
                        time.sleep(0.2)
                    page.close()
                wait = f"{statistics.median(waits):.1f} s ({min(waits):.1f} to {max(waits):.1f})"
                rates = " | ".join(f"{min(r):.1f} to {max(r):.1f}" for r in (first, then))
                print(f"| {PRESETS[preset].title} | {wait} | {rates} | {size:.0f} MB, {torch} |", flush=True)
        finally:
            browser.close()
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def memory(pid: int) -> tuple[float, str]:
    """Resident megabytes of a process, and whether it has loaded torch (Linux only)."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    loaded = "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    return kilobytes / 1000, "with torch" if loaded else "no torch"


if __name__ == "__main__":
    main()
