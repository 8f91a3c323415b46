"""The guided tour's card, docked below the page, and the way from stop to stop (torch-free).

``tour=N`` in the address, on any page, shows the card of stop N; alone, it leads to the stop's page.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from engine.exports.facts import story
from engine.glossary import TERMS
from engine.methods import METHODS
from engine.runs.store import Run, Store
from engine.tour import STOPS, Stop, number
from engine.words import dataset_title
from pages.components import address, guess
from pages.components.component import component
from pages.components.shared import store

ENDED_WELL = ("done", "stopped")
MADE = ("distill", "import")  # kinds of run that may hold a distillation

_mount = component("tour")


@dataclass(frozen=True)
class Place:
    """Where a stop is now: its page with the address, its runs that are here, and what is to be said about that."""

    page: str
    query: dict[str, str]
    sentences: tuple[str, ...]
    runs: tuple[str, ...] = ()
    note: str = ""

    @property
    def path(self) -> str:
        """The page's part of the address, where it is not the first page."""
        return Path(self.page).stem


def on() -> bool:
    """Whether the tour is open."""
    return number(st.query_params.get("tour")) is not None


def start_link() -> None:
    """Ways into the tour and to the glossary."""
    with st.container(horizontal=True, gap="small"):
        st.page_link(
            "pages/distil.py", label="Guided tour", icon=":material/explore:", query_params={"tour": "1"},
            help=f"{len(STOPS)} stops on the live program, a quarter of an hour. Left and right arrow keys turn pages.",
        )  # fmt: skip
        st.page_link("pages/terms.py", label="Terms", icon=":material/menu_book:")


def card(path: str) -> None:
    """Draw the card where the tour is open, or go to the stop that is asked for. ``path``: the page's in the address.

    To be called before the page is run: what is drawn here stays in place, with the keyboard's focus, while pages
    change.
    """
    state, at = st.session_state, number(st.query_params.get("tour"))
    if at is None:
        st.query_params.pop("tour", None)
        state.pop("tour_at", None)
        return
    if state.get("tour_at") != at and not address.query():
        go(at)
    state.tour_at = at
    stop = STOPS[at - 1]
    place = find(stop, store())
    said = _mount(
        key="tour", data=_content(at, stop, place, path), on_go_change=lambda: None, on_shut_change=lambda: None,
        on_answered_change=lambda: None,
    )  # fmt: skip
    if said.shut:
        st.query_params.pop("tour", None)
        st.rerun()
    if said.go in range(1, len(STOPS) + 1):
        go(said.go)
    if said.answered and place.runs:
        guess.reveal(place.runs[0])


def go(at: int) -> None:
    """Open a stop's page, as a link to it would."""
    place = find(STOPS[at - 1], store())
    st.session_state.tour_at = at
    st.switch_page(place.page, query_params={**place.query, "tour": str(at)})


# ---- what there is for a stop ----------------------------------------------------------------------------------------


def find(stop: Stop, where: Store) -> Place:
    """Where a stop is, with the runs that are here in place of those that are not."""
    page, query, sentences = stop.page, stop.query, stop.sentences
    ready = not stop.student or any(
        where.student(run.id)
        for run in where.runs(kinds=["student"], dataset=stop.student, statuses=["done"], limit=100)
    )
    if not ready and stop.prepare:
        (page, query), sentences = stop.prepare, stop.preparing
    if not any("{0}" in value for value in query.values()):
        return Place(page, query, sentences)
    found = [_like(where, id, page) for id in stop.runs]
    note = " ".join(dict.fromkeys(said for _, said in found if said))
    runs = tuple(run.id for run, _ in found if run is not None)
    if runs:
        for i, (run, _) in enumerate(found):
            query = {key: value.replace(f"{{{i}}}", run.id if run else "") for key, value in query.items()}
        return Place(page, query, sentences, runs, note)
    return Place(page, stop.without, sentences, (), note)


def _like(where: Store, id: str, page: str) -> tuple[Run | None, str]:
    """A run, or another one by its method, of its dataset if there is one; and a sentence unless it is the run."""
    run = where.run(id)
    if run is not None:
        return run, ""
    _, dataset, method, ipc = id.split("-")
    name = METHODS[method].name.lower()
    bound = page != "pages/distil.py"  # to a dataset: sets are compared, and trained on, with those of their own
    there = where.result_folder if bound else where.frames
    others = [
        other
        for other in where.runs(kinds=MADE, statuses=ENDED_WELL, limit=200)
        if there(other.id) and story(where, other.id).spec.get("method") == method
    ]
    same = [other for other in others if other.dataset == dataset]
    chosen = next(iter(same or ([] if bound else others)), None)
    if chosen is not None:
        return chosen, f"The run that belongs here, {id}, is not in this store; this is {chosen.title}."
    count = "1 image" if ipc == "1" else f"{ipc} images"
    wanted = f"{dataset_title(dataset)}, {count} per class, by {name}"
    return None, f"The run that belongs here ({wanted}) is not in this store, nor another one of its kind." + {
        "pages/distil.py": " The form is set to a similar one: press “Distil” to make it."
    }.get(page, " Without it, the page shows what there is.")


# ---- what the card shows ---------------------------------------------------------------------------------------------


def _content(at: int, stop: Stop, place: Place, path: str) -> dict[str, Any]:
    """The card as the browser draws it."""
    return {
        "at": at,
        "titles": [one.title for one in STOPS],
        "sentences": list(place.sentences),
        "note": place.note,
        "away": path not in ("", place.path),
        "equation": stop.equation,
        "paper": METHODS[stop.method].paper if stop.method else "",
        "parts": [
            {"key": part.key, "name": part.name, "words": part.words, "lights": list(part.lights)}
            for part in stop.parts
        ],
        "terms": [{"name": TERMS[id].name, "words": f"{TERMS[id].means} ({TERMS[id].paper})"} for id in stop.terms],
        "question": _asked(stop, place),
    }


def _asked(stop: Stop, place: Place) -> dict[str, Any] | None:
    """The question with its answer, which the browser keeps to itself until somebody has chosen."""
    asked = stop.question
    if asked is None or not place.runs:
        return None
    measure = {"accuracy": guess.accuracy, "gain": guess.gain}[asked.measure]
    found = measure(store(), place.runs[0])
    if found is None:
        return {"text": asked.text, "choices": [], "said": "This has not been measured for the run that is shown here."}
    right = bisect.bisect_right(asked.bounds, found.value)
    return {
        "text": asked.text,
        "choices": list(asked.choices),
        "right": right,
        "said": f"Measured: {found.says}. {asked.why}",
    }
