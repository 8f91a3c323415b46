"""What the browser tests say about a page."""

from __future__ import annotations

import io
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from PIL import Image
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as Timeout

from engine.runs.store import Store
from engine.spec import build_spec


@dataclass(frozen=True)
class Server:
    """A running Limbeck with a home of its own."""

    url: str
    home: Path
    pid: int

    def get(self, path: str) -> bytes:
        """What a path of the server answers."""
        with urlopen(Request(self.url + path), timeout=10) as answer:
            return answer.read()


def go(page: Page, server: Server, path: str = "/", **query: Any) -> None:
    """Open a page and wait until its script has run and it has a heading."""
    page.goto(f"{server.url}{path}{'?' + urlencode(query) if query else ''}")
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-connection-state", "CONNECTED", timeout=30_000)
    expect(page.locator("h1").first).to_be_visible(timeout=30_000)


def settled(page: Page) -> None:
    """Wait until the page's script has ended. Only for pages without a running timer."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=30_000)


def pick(page: Page, box: Locator, option: str) -> None:
    """Add an option to those chosen in a list. An open list closes when the page below it moves, and what was clicked
    is not chosen then: like a person, look, and try again."""
    chosen = box.locator(f"xpath=ancestor::*[@data-testid='stMultiSelect']//*[@data-tag][@aria-label='{option}']")
    for left in (2, 1, 0):
        settled(page)
        box.click()
        box.fill(option)  # the list may be long
        try:
            page.get_by_role("option", name=option, exact=True).click(timeout=20_000 if left == 0 else 3_000)
        except Timeout:
            if left == 0:
                raise
        settled(page)
        # An open list hides the rest of the page from assistive technology, and from us.
        if page.get_by_role("listbox").count():
            page.keyboard.press("Escape")
        settled(page)
        if chosen.count():
            return
    raise AssertionError(f"“{option}” cannot be chosen")


def guess(page: Page, question: int, of: int, key: str) -> None:
    """Answer a question of the quiz with a key, and read what it was; its answer must not stand there before."""
    expect(page.get_by_text(f"Question {question} of {of}")).to_be_visible(timeout=60_000)
    told = page.get_by_text("It stands for")
    expect(told).to_have_count(0)  # that of the question before goes with the page's next run
    struck(page, key, told)


def struck(page: Page, key: str, then: Locator) -> None:
    """Strike a key that does something once. Buttons listen for their keys only a moment after they are seen."""
    for left in (3, 2, 1, 0):
        settled(page)
        page.keyboard.press(key)
        try:
            expect(then).to_be_visible(timeout=20_000 if left == 0 else 5_000)
            return
        except AssertionError:
            if left == 0:
                raise


def until(what: Callable[[], Any], seconds: float = 30.0, why: str = "") -> Any:
    """The first truthy answer of ``what``, asked ten times a second."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {why or what}"
        time.sleep(0.1)


def overflow(page: Page) -> list[str]:
    """Elements that stick out sideways of the page, which would make a phone scroll it; empty when all is well."""
    return page.evaluate(
        """() => {
          const parts = {document: document.documentElement, main: document.querySelector('[data-testid=stMain]')};
          return Object.entries(parts).filter(([, e]) => e.scrollWidth > e.clientWidth + 1)
            .map(([name, e]) => `${name}: ${e.scrollWidth} > ${e.clientWidth}`);
        }"""
    )


def loaded_torch(pid: int) -> bool | None:
    """Whether a process has loaded torch's library; None where the system does not tell."""
    maps = Path(f"/proc/{pid}/maps")
    return "libtorch" in maps.read_text() if os.access(maps, os.R_OK) else None


DIGITS = [str(d) for d in range(10)]


def evaluation(protocol: str, accuracies: list[float], network: str = "convnet") -> dict[str, Any]:
    """An evaluation as a worker keeps it."""
    return {
        "protocol": protocol,
        "network": network,
        "split": "test",
        "mean": statistics.mean(accuracies),
        "std": statistics.pstdev(accuracies),
        "accuracies": accuracies,
        "seeds": list(range(len(accuracies))),
        "seconds": 2.0,
    }


def seed_run(
    home: Path, kind: str, /, *, frames: int = 1, side: int = 32, evaluations: Sequence[dict] = (), **spec: Any
) -> str:
    """A finished run of digits written straight into the store, as a worker leaves it, without a set of tensors.

    Frame i of n is grey all over, of brightness 250 i / n.
    """
    store = Store(home)
    run = store.submit(kind, build_spec(kind, **{"dataset": "digits", **spec}), pid=os.getpid())
    rows = spec.get("ipc", 1)
    layout = {"columns": 10, "rows": rows, "size": side, "channels": 1, "classes": DIGITS, "cells": list(range(10))}
    store.append(run, [("layout", 0, layout)])
    for i in range(frames):
        buffer = io.BytesIO()
        Image.new("L", (10 * side, rows * side), 250 * i // frames).save(buffer, "WEBP", lossless=True)
        store.write_frame(run, 10 * i, buffer.getvalue())
        store.append(run, [("metric", 10 * i, {"loss": 1 / (i + 1), "seconds": i}), ("frame", 10 * i, {"seconds": i})])
    (store.folder(run) / "result").mkdir()
    (store.folder(run) / "result" / "synthetic.json").write_text(json.dumps({"classes": DIGITS}))
    for one in evaluations:
        store.add_evaluation(run, one)
    store.update(run, progress=1.0)
    store.announce(run, "done", "Done.")
    return run


def publish_average(store: Store) -> str:
    """A finished set: the average of each class of digits."""
    from engine.baselines import make_baseline
    from engine.data import load
    from engine.runs.film import publish

    run = store.submit("baseline", build_spec("baseline", dataset="digits", kind="average"), pid=os.getpid())
    publish(store, run, make_baseline("average", load("digits"), 1))
    store.announce(run, "done", "Done.")
    return run


def make_gallery(folder: Path) -> Path:
    """Zips for a gallery of two small runs, of a dataset that no other test looks at; returns the folder."""
    from engine.exports import export
    from tests.exports import runs

    made, steps = Store(folder / "made"), tuple(range(5))  # of which each is a little brighter than the one before
    for id, title, ipc, measured in (
        ("gallery-one", "One of each", 1, runs.evaluation()),
        ("gallery-ten", "Ten of each", 10, runs.evaluation("dsa", [0.5])),
    ):
        run = runs.a_run(
            made, steps, ipc=ipc, side=28, dataset="kmnist", seed=5, title=title,
            evaluations=({**measured, "dataset": "kmnist"},), result=runs.a_set(ipc, 28, "kmnist"),
        )  # fmt: skip
        (folder / f"{id}.zip").write_bytes(export(made, run, "run"))
    return folder


def keep_student(server: Server, seed: int, kind: str, name: str, network: str) -> Any:
    """An untrained student of digits, kept as a worker leaves it."""
    from engine.data import load
    from engine.networks import make_network
    from engine.students.kept import Student, save_student

    store, data = Store(server.home), load("digits")
    spec = build_spec("student", dataset="digits", network=network, seed=seed)
    run = store.submit("student", spec, pid=os.getpid())
    build = {"name": network, "channels": 1, "size": 16, "classes": 10, "width": 16}
    facts = {
        "name": name, "dataset": "digits", "network": network, "protocol": "quick", "seed": seed, "size": 16,
        "channels": 1, "classes": list(data.classes), "mean": list(data.mean), "std": list(data.std),
        "source": {"kind": kind, "text": kind, "run": None, "images": 1437, "ipc": None, "method": None},
        "accuracy": 0.125, "per_class": [0.1] * 10, "confusion": [[36 * (p == 0) for p in range(10)]] * 10,
        "mistakes": [], "test_images": 360, "seconds": 1.0, "machine": "a CPU", "parameters": 4000,
        "spec": spec.model_dump(mode="json"),
    }  # fmt: skip
    module = make_network(**build, seed=seed).eval()
    save_student(store.folder(run) / "student", module, facts, build)
    store.announce(run, "done", "Done.")
    return Student(run, module, facts)
