"""Image by image: what is each image of a set worth, what if it were changed, and would people recognise it?"""

from __future__ import annotations

import streamlit as st

from engine.glossary import explain
from engine.runs.store import Run, Store
from pages.components import comparison
from pages.components.choice import one_of
from pages.components.shared import dataset_title, store
from pages.components.whatif_edit import show_edit
from pages.components.whatif_quiz import show_quiz
from pages.components.whatif_state import SECTIONS, read_address, write_address
from pages.components.whatif_values import show_values

LEADS = {
    "values": "Which images matter? What students lose without each image of a set, or what it adds to parts of it.",
    "edit": "What if an image looked otherwise? Change it, and see what students of the set then get right.",
    "quiz": "Do people see what networks see? Guess what distilled images stand for.",
}
HELP = "Any set that was distilled, picked, edited or imported here."
TERMS = {"values": ("valuation", "held-out"), "edit": ("student",), "quiz": ("distillation",)}


def sets(where: Store) -> list[Run]:
    """The runs that have made a set, newest first."""
    return [run for run in where.runs(kinds=comparison.SET_KINDS, limit=1000) if where.result_folder(run.id)]


def choose(there: list[Run]) -> Run:
    """The dataset, and the set of it that is looked at."""
    now, by_id = st.session_state.pieces, {run.id: run for run in there}
    asked = by_id.get(now["run"])
    datasets = {name: dataset_title(name) for name in dict.fromkeys(run.dataset for run in there)}
    left, right = st.columns([1, 3])
    with left:
        dataset = one_of("Dataset", datasets, "pieces_dataset", asked.dataset if asked else None, menu=True)
    names = comparison.names([run for run in there if run.dataset == dataset])
    with right:
        id = one_of("Set", names, "pieces_run", now["run"], menu=True, help=HELP)
    if id != now["run"]:
        if now["run"]:  # another set has other images
            now |= {"edits": [], "undone": [], "image": 0}
            st.session_state.pop("pieces_image", None)
        now["run"] = id
    return by_id[id]


def page() -> None:
    where = store()
    st.title("Image by image")
    for problem in read_address(where):
        st.warning(problem)
    now = st.session_state.pieces
    now["section"] = one_of("What is asked", SECTIONS, "pieces_section", now["section"], label_visibility="collapsed")
    st.markdown(LEADS[now["section"]], help=explain(*TERMS[now["section"]]))
    there = sets(where)
    if not there:
        st.info("There is no set yet. Distil one, or make a baseline, and come back.")
        st.page_link("pages/distil.py", label="Distil one", icon=":material/water_drop:")
        return write_address()
    run = choose(there)
    write_address()
    if now["section"] == "values":
        show_values(where, run.id)
    elif now["section"] == "edit":
        show_edit(where, run)
    else:
        show_quiz(where, run)
    write_address()


page()
