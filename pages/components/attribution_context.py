"""Object or context? (torch-free)"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import Refused
from engine.home import limbeck_home
from engine.probes.attribution.specs import (
    AttributionSpec,
    ContextSpec,
)
from pages.components import canvas, maps
from pages.components.asking import Answered
from pages.components.attribution_controls import fits_none, image_form, method_form
from pages.components.attribution_state import (
    MASKED,
    SCOPES,
    SHARES,
    one_of,
    put,
    row,
    who_of,
)
from pages.components.pieces import download, figure, interval, is_dark, percent
from pages.components.reports import Facts


def show_context(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    dataset = known[students[0]]["dataset"]
    scope = one_of("scope", SCOPES, "Which images") if dataset in MASKED else "one"
    asked: dict[str, Any] = {"students": ",".join(students)}
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        if scope == "one":
            image = image_form(students, known)
            asked |= {"image": image, "mask": paint(students, image, dataset) if image else ""}
        asked["target"] = one_of(
            "context_target",
            {"predicted": "Its own answer", "true": "The true class"},
            "Answer to explain",
            hide=False,
        )
        asked |= method_form("context_method")
        asked["images"] = row("context_images", "Test images" if scope == "all" else "Random contexts")
    with right:
        if scope == "one" and not asked["image"]:
            st.info("Choose, upload or draw an image first.")
            return
        if scope == "one" and not asked["mask"] and not (dataset in MASKED and asked["image"].startswith("test:")):
            st.info("Paint over the object on the left and press “Use this mask”: what lies outside is its context.")
            return
        if fits_none(asked["method"], students, known):
            return
        found = put("context", ContextSpec, asked)
        if found is None:
            return
        context_answer(found, called)


def paint(students: list[str], image: str, dataset: str) -> str:
    """A mask painted over the image; how probes name it, or nothing."""
    waiting = st.empty()
    with waiting.container():  # any map shows the image as the student sees it
        under = put("attribution", AttributionSpec, {"students": students[0], "image": image, "method": "saliency"})
    if under is None:
        return st.session_state.attribution["mask"]
    waiting.empty()  # its notes are about maps
    values, known_for = st.session_state.attribution, st.session_state.get("attribution_masked")
    if dataset in MASKED and image.startswith("test:"):
        st.caption("This image has a mask. Paint one of your own to use it instead.")
    url = canvas.board(
        key="attribution_mask",
        kind="mask",
        label="The image: paint over the object",
        under=under.url("input"),
        brush=32,
    )
    if known_for is not None and known_for[0] != image:  # that mask was another image's
        values["mask"] = "" if url == known_for[1] else values["mask"]
    if url and (known_for is None or url != known_for[1]):
        try:
            values["mask"] = canvas.keep(canvas.drawn(url), limbeck_home())
        except Refused as refused:
            st.error(str(refused))
    elif not url and known_for is not None and known_for[1]:
        values["mask"] = ""
    st.session_state.attribution_masked = (image, url)
    return values["mask"]


def context_answer(found: Answered, called: dict[str, str]) -> None:
    facts, table, who = found.answer.facts, found.table("context"), who_of(found, called)
    who = who[~who["id"].isin(facts["skipped"])]
    heads = [title.replace("<br>", " ") for title in maps.CONDITIONS.values()]
    st.html(maps.strip(found.url("conditions"), "An image under the five conditions", heads, 128))
    for i, student in enumerate(facts["students"]):
        if f"maps-{i}" in found.answer.images:
            name = called.get(student["id"], student["name"])
            st.markdown(name)
            st.html(maps.strip(found.url(f"maps-{i}"), f"Maps of {name} under the five conditions", [""] * 5, 128))
    everything = table[table["subset"] == "all"]
    words = {name: title for name, title in SHARES.items() if everything[name].notna().any()}
    shown = one_of("shown", words, "Which number")
    figure(
        maps.context(everything, who, shown, is_dark()), "context_figure",
        f"{SHARES[shown]} of each student under the five conditions; the table below holds the numbers", everything,
        "context",
    )  # fmt: skip
    if shown == "object_share":
        st.caption("Share of the absolute attribution that lies on the object, with 95 % intervals. Dotted: the "
                   "object's share of the pixels, which a map that ignores the object would have.")  # fmt: skip
    subsets = {"all": "all", "correct": "right answers", "incorrect": "wrong answers"}
    st.dataframe(
        pd.DataFrame(
            {
                "Student": table["id"].map(called),
                "Condition": [maps.CONDITIONS[c].replace("<br>", " ") for c in table["condition"]],
                "Images": table["subset"].map(subsets),
                "Number": table["n"],
                "Attribution on the object": interval(table, "object_share"),
                "Object's area": table["area"].map(percent),
                "Accuracy": interval(table, "accuracy"),
                "Answer unchanged": table["kept"].map(percent),
            }
        ),
        hide_index=True,
        column_config={"Student": st.column_config.TextColumn(width="medium")},
    )
    with st.expander("The five conditions"):
        for name, sentence in facts["conditions"].items():
            st.markdown(f"**{maps.CONDITIONS[name].replace('<br>', ' ').capitalize()}.** {sentence}")
    download(table, "context")
