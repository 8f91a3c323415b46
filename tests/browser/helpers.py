"""What the browser tests say about a page."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from playwright.sync_api import Page, expect


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


def seed_run(home: Path, kind: str, classes: list[str], /, *, evaluations: list[dict] = (), **spec: Any) -> str:
    """A finished run written straight into the store, as a worker leaves it (without a trained set's tensors)."""
    import io

    import numpy as np
    from PIL import Image

    from engine.runs.store import Store
    from engine.spec import build_spec

    store = Store(home)
    run = store.submit(kind, build_spec(kind, **spec), pid=os.getpid())
    rows, side = spec.get("ipc", 1), 32
    layout = {"columns": len(classes), "rows": rows, "size": side, "channels": 3, "classes": classes}
    store.append(run, [("layout", 0, {**layout, "cells": list(range(len(classes)))}), ("frame", 0, {"seconds": 0})])
    noise = np.random.default_rng(len(run)).integers(0, 255, (rows * side, len(classes) * side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "WEBP", lossless=True)
    store.write_frame(run, 0, buffer.getvalue())
    (store.folder(run) / "result").mkdir()
    (store.folder(run) / "result" / "synthetic.json").write_text(json.dumps({"classes": classes}))
    for evaluation in evaluations:
        store.add_evaluation(run, evaluation)
    store.announce(run, "done", "Done.")
    return run
