"""The tiles of the gallery: finished runs, each in a small canvas in which its images take form again (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from engine import gallery, words
from engine.data.catalogue import DATASETS, availability
from engine.exports.facts import Story, spread, story
from engine.methods import METHODS
from engine.runs.store import Run
from engine.spec import RunSpec
from pages.components.form import to_query
from pages.components.shared import dataset_title, store

ASSETS = Path(__file__).parents[2] / "assets"
FEW, MANY = 6, 12  # frames of a tile …
BYTES = 600_000  # … which together should not be much larger than that
OFFERED = 2  # runs of built-in data

HELP = {
    "Open": "its film, step by step, its curves and everything that can be made of it",
    "Train a student": "a network that learns from these images alone",
    "What if …": "the same settings, to change one of them and distil again",
}

Place = tuple[str, dict[str, str]]  # a page's file and the query to open it with

_mount = st.components.v2.component(
    "limbeck_gallery",
    css=(ASSETS / "gallery.css").read_text(),
    js=(ASSETS / "gallery.js").read_text(),
)


def tiles(runs: Sequence[Run], *, key: str) -> Place | None:
    """Show a tile for each run; where the link that was clicked leads, once, else None."""
    places = {run.id: _places(run) for run in runs}
    data = {"tiles": [_tile(run, places[run.id]) for run in runs]}
    asked = _mount(key=key, data=data, on_go_change=lambda: None).go
    if not isinstance(asked, dict):
        return None
    return places.get(asked.get("run"), {}).get(asked.get("to"))


def offline() -> None:
    """Links that train a student where that needs no download: on runs of the gallery whose data is here."""
    runs = [run for run in gallery.shown(store()) if availability(run.dataset).ready][:OFFERED]
    if not runs:
        return
    st.caption("Without a network, train a student on one of these:")
    with st.container(horizontal=True, gap="small"):
        for run in runs:
            st.page_link(
                "pages/students.py", label=gallery.card(run).title, icon=":material/school:",
                query_params={"src": run.id},
            )  # fmt: skip


def _places(run: Run) -> dict[str, Place]:
    """Where one can go from a tile, by what its link says."""
    places = {"Open": ("pages/distil.py", {"run": run.id}), "Train a student": ("pages/students.py", {"src": run.id})}
    if run.kind == "distill":
        places["What if …"] = ("pages/distil.py", to_query(RunSpec.model_validate(run.spec).flat()))
    return places


def _tile(run: Run, places: dict[str, Place]) -> dict[str, Any]:
    """All that the browser needs of a run, as JSON; ``frames`` holds [step, event id] of those shown, ascending."""
    told, named = story(store(), run.id), gallery.card(run)
    layout, events = told.layout, {event.step: event.id for event in told.events("frame")}
    each = store().frame_path(run.id, told.frames[-1]).stat().st_size
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
        "facts": _facts(told),
        "note": _lacking(run.dataset),
        "links": [
            {"to": to, "help": HELP[to], "href": f"/{Path(page).stem}?{urlencode(query)}"}
            for to, (page, query) in places.items()
        ],
    }


def _facts(told: Story) -> list[str]:
    """What a number needs to be believed, and what it cost, in lines."""
    method = METHODS[told.spec["method"]].name if told.kind == "distill" else words.BASELINE_NAMES[told.spec["kind"]]
    spent = f"{words.duration(told.run.seconds)} of distilling" if told.run.seconds else ""
    return [
        f"of the test images right: {words.under(told.headline)}" if told.headline else "not evaluated",
        f"{dataset_title(told.run.dataset)}, {method[:1].lower()}{method[1:]}, "
        f"{words.count(told.spec['ipc'], 'image')} per class",
        " on ".join(filter(None, (spent, told.machine))),
    ]


def _lacking(dataset: str) -> str:
    """What training on a set of ``dataset`` takes beyond this machine, as a sentence; empty when it takes nothing."""
    here = availability(dataset)
    if here.how != "download":
        return ""
    info = DATASETS[dataset]
    return f"Training on it downloads {info.title} first ({info.megabytes} MB)."
