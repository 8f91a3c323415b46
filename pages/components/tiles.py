"""The tiles of the gallery: finished runs, each in a small canvas in which its images take form again (torch-free)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from engine import gallery, words
from engine.data.catalogue import availability
from engine.exports.facts import Story, spread, story
from engine.methods import METHODS
from engine.runs.store import Run
from engine.spec import RunSpec
from pages.components.component import component
from pages.components.form import to_query
from pages.components.shared import store

FEW, MANY = 6, 12  # frames of a tile …
BYTES = 600_000  # … which together should not be much larger than that
OFFERED = 2  # runs of built-in data

HELP = {
    "Open": "its film, step by step, its curves and everything that can be made of it",
    "Train a student": "a network that learns from these images alone",
    "What if …": "the same settings, to change one of them and distil again",
}

_mount = component("gallery")


def tiles(runs: Sequence[Run], *, key: str) -> None:
    """Show a tile for each run. Whose pictures move is the browser's own business: the page's script has no part."""
    _mount(key=key, data={"tiles": [_tile(run) for run in runs]})


def offline() -> None:
    """Links that train a student where that needs no download: on runs of the gallery whose data is here."""
    runs = [run for run in gallery.shown(store()) if availability(run.dataset).ready][:OFFERED]
    if not runs:
        return
    links = (
        f'<a href="/students?src={run.id}" target="_self">{html.escape(gallery.card(run).title)}</a>' for run in runs
    )
    st.html(f"<p>Without a network, train a student on one of these: {', '.join(links)}.</p>")


def _links(run: Run) -> list[dict[str, str]]:
    """Where one can go from a tile."""

    def link(to: str, page: str, query: dict[str, str]) -> dict[str, str]:
        return {"to": to, "href": f"/{page}?{urlencode(query)}", "help": HELP[to]}

    found = [link("Open", "distil", {"run": run.id}), link("Train a student", "students", {"src": run.id})]
    if run.kind == "distill":
        found.append(link("What if …", "distil", to_query(RunSpec.model_validate(run.spec).flat())))
    return found


def _tile(run: Run) -> dict[str, Any]:
    """All that the browser needs of a run, as JSON; ``frames`` holds [step, event id] of those shown, ascending."""
    told, named = story(store(), run.id), gallery.card(run)
    layout, events = told.layout, {event.step: event.id for event in told.events("frame")}
    last = store().frame_path(run.id, told.frames[-1])
    each = last.stat().st_size if last else BYTES
    steps = spread(told.frames, min(max(BYTES // each, FEW), MANY))
    return {
        "id": run.id,
        "title": named.title,
        "about": named.about,
        "frames": [[step, events[step]] for step in steps],
        "layout": {name: layout[name] for name in ("columns", "rows", "size")},
        "alt": f"{told.what}: its images as they take form. Classes: {', '.join(layout['classes'][:10])}"
        + (" and others" if layout["columns"] > 10 else ""),
        "number": words.accuracy(told.headline) if told.headline else "",
        "measured": f"test accuracy, {words.under(told.headline)}" if told.headline else "Not evaluated.",
        "facts": [f"{words.dataset_title(run.dataset)}, {_method(told)}, {told.spec['ipc']} per class", _cost(told)],
        "links": _links(run),
    }


def _method(told: Story) -> str:
    named = METHODS[told.spec["method"]].name if told.kind == "distill" else words.BASELINE_NAMES[told.spec["kind"]]
    return named[:1].lower() + named[1:]


def _cost(told: Story) -> str:
    """What it took to make."""
    spent = f"{words.duration(told.run.seconds)} of distilling" if told.run.seconds else ""
    return ", ".join(filter(None, (spent, told.machine)))
