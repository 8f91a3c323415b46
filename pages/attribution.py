"""Attribution: which pixels, and which training images, make students give their answers?"""

from __future__ import annotations

import streamlit as st

from engine.glossary import explain
from pages.components import reports
from pages.components.attribution_context import show_context
from pages.components.attribution_distilled import show_distilled
from pages.components.attribution_influence import show_influence
from pages.components.attribution_maps import show_maps
from pages.components.attribution_quality import show_quality
from pages.components.attribution_state import (
    MOST,
    SECTIONS,
    field,
    one_of,
    read_address,
    write_address,
)
from pages.components.reports import Facts
from pages.components.shared import dataset_title, store

LEADS = {
    "maps": "Which pixels speak for an answer, and do the students look at the same ones?",
    "influence": "Which images that a student was trained on pushed its answer up or down?",
    "quality": "Can one trust the maps, and how far are the students from each other by what they look at?",
    "context": "How much of the attribution lies on the object, and what is left of the answers when object or context "
    "change?",
    "distilled": "What do students look at in a synthetic image, and how far is it from a natural one?",
}
TERMS = {  # of the glossary, for the “?” of a section
    "maps": ("attribution", "completeness", "reference-image"),
    "influence": ("influence",),
    "quality": ("infidelity", "completeness"),
    "context": ("attribution",),
    "distilled": ("attribution", "distillation"),
}


def choose_students(known: dict[str, Facts], dataset: str) -> list[str]:
    """The students that are asked; ones that are not here are named."""
    state = st.session_state
    wanted = state.get("attribution_students", state.attribution["students"])
    if wanted is None:  # the newest of each kind of training set, then the newest
        kinds = {reports.mark(facts).name: id for id, facts in reversed(known.items())}
        wanted = [*(id for id in known if id in kinds.values()), *known]
    lost = [id for id in wanted if id not in known]
    if lost:
        st.info(f"Not here, or not of {dataset_title(dataset)}: {', '.join(id[:60] for id in lost[:5])}.")
    state.attribution_students = list(dict.fromkeys(id for id in wanted if id in known))[:MOST]
    called = reports.names(known)
    state.attribution["students"] = st.multiselect(
        "Students", list(known), key="attribution_students", max_selections=MOST, wrap=True,
        format_func=lambda id: f"{called[id]}, {known[id]['accuracy']:.0%}",
        help=f"Up to {MOST} trained students: say of a distilled set, of random real images, and of all images.",
    )  # fmt: skip
    return state.attribution["students"]


def another_dataset() -> None:
    """Another dataset has students, classes and images of its own."""
    state = st.session_state
    state.attribution |= {"students": None, "images": {}, "target": "predicted", "check": "", "mask": "", "run": ""}
    for name in ("students", "target", "class", "number", "run", "last", "board", "mask", "masked", "upload"):
        state.pop(f"attribution_{name}", None)


def page() -> None:
    where, state = store(), st.session_state
    st.title("Attribution")
    for sentence in read_address(where):
        st.warning(sentence)
    runs = where.runs(kinds=["student"], statuses=["done"], limit=1000)
    options = [name for name in dict.fromkeys(run.dataset for run in runs) if reports.kept(where, name)]
    if not options:
        st.write(LEADS["maps"])
        st.info("No student is trained yet. Train one on a distilled set and one on all images, and question them "
                "here.")  # fmt: skip
        query = {"dataset": state.attribution["dataset"]} if state.attribution["dataset"] else None
        st.page_link("pages/students.py", label="Train a student", icon=":material/school:", query_params=query)
        return
    lead = st.empty()
    if state.attribution["dataset"] not in options:
        if state.attribution["dataset"]:
            st.info(
                f"No student of “{state.attribution['dataset'][:60]}” is here; these know {dataset_title(options[0])}."
            )
        state.attribution["dataset"] = state.attribution_dataset = options[0]
    left, right = st.columns([1, 3])
    with left:
        dataset = field(
            "dataset",
            lambda key: st.selectbox("Dataset", options, format_func=dataset_title, key=key, on_change=another_dataset,
                                     help="Students can only be compared when they know the same classes."),
        )  # fmt: skip
    known = reports.kept(where, dataset)
    called = reports.names(known)
    with right:
        students = choose_students(known, dataset)
    section = one_of("section", SECTIONS, "What is asked")
    lead.markdown(LEADS[section], help=explain(*TERMS[section]))
    if not students:
        st.info("Choose one or more students above.")
    elif section == "distilled":
        show_distilled(students, known, called, where)
    else:
        show = {"maps": show_maps, "influence": show_influence, "quality": show_quality, "context": show_context}
        show[section](students, known, called)
    write_address()


page()
