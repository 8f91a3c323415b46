"""How long somebody at the Attribution page waits for the maps of four students on this machine: prints a table.

    python tests/benchmarks/asking.py [--rounds N]

Trains four small students of the built-in shapes (ConvNet-3 of width 128, 32×32 images), opens the page in a real
chromium, asks once to warm up, then presses *Other* for another image and waits until its four maps are drawn. Median
and range over the rounds. Measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.page import memory, serve  # noqa: E402
from tests.benchmarks.results import engine  # noqa: E402

METHODS = ("saliency", "inputxgradient", "integrated-gradients", "gradientshap", "guided-gradcam", "occlusion")
DRAWN = """before => {
  const cards = [...document.querySelectorAll('.maps figure')];
  return cards.length === 5 && cards[0].innerText !== before
    && cards.slice(1).every(card => [...card.querySelectorAll('img')].length === 2
      && [...card.querySelectorAll('img')].every(image => image.complete));
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["LIMBECK_HOME"] = folder
        train = ["student", "train", "--dataset", "shapes", "--source", "random", "--protocol", "dc", "--epochs", 30]
        students = [engine(*train, "--seed", seed)["run"] for seed in range(4)]
        process, url = serve(Path(folder))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n")
        print("| method, four students | click to maps | server |\n|---|---|---|")
        try:
            for method in METHODS:
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto(f"{url}/attribution?dataset=shapes&students={','.join(students)}&image=test:0&m={method}")
                page.wait_for_function(DRAWN, arg="", timeout=180_000)
                waits = []
                for _ in range(args.rounds):
                    page.wait_for_timeout(1500)
                    before = page.locator(".maps figure").first.inner_text()
                    began = time.perf_counter()
                    page.get_by_role("button", name="Other").click()
                    page.wait_for_function(DRAWN, arg=before, timeout=60_000)
                    waits.append(time.perf_counter() - began)
                size, torch = memory(process.pid)
                wait = f"{statistics.median(waits):.1f} s ({min(waits):.1f} to {max(waits):.1f})"
                print(f"| {method} | {wait} | {size:.0f} MB, {torch} |", flush=True)
                page.close()
        finally:
            browser.close()
            process.send_signal(signal.SIGTERM)
            process.wait(20)


if __name__ == "__main__":
    main()
