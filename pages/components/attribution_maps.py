"""The students' maps of one image side by side, and the sanity check of one of them (torch-free)."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from engine.glossary import explain
from engine.probes.attribution.specs import (
    METHOD_INFO,
    AttributionSpec,
    SanitySpec,
)
from pages.components import maps
from pages.components.asking import Answered
from pages.components.attribution_controls import about, fits_none, image_form, method_form, target_form
from pages.components.attribution_state import (
    field,
    put,
    row,
)
from pages.components.choice import named
from pages.components.pieces import download, figure, is_dark, number, percent
from pages.components.reports import Facts
from pages.components.shared import desk


def show_maps(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        image = image_form(students, known)
        target = target_form(image, known[students[0]])
        chosen = method_form()
        with st.popover("More settings", icon=":material/tune:", width="stretch"):
            scale, _ = row("scale"), row("seed")
    with right:
        if not image:
            st.info("Choose, upload or draw an image, and the students' maps of it appear here.")
            return
        if fits_none(chosen["method"], students, known):
            return
        asked = {"students": ",".join(students), "image": image, "target": target, **chosen}
        pictures = st.container()
        found = put("attribution", AttributionSpec, {**asked, "scale": scale})
        if found is None:
            last = st.session_state.get("attribution_last")
            answer = desk().look(last).answer if last else None
            if last and answer is not None and answer.facts["students"][0]["id"] in known:
                pictures.html(f'<div style="opacity:.4">{cards(Answered(last, answer), called)}</div>')
                st.caption("Pale: the answer before.")
            return
        st.session_state.attribution_last = found.digest
        pictures.html(cards(found, called))
        about(chosen["method"])
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            checked = st.session_state.attribution["check"]
            st.button(
                "Close the sanity check" if checked else "Sanity check", icon=":material/rule:", on_click=check,
                args=("" if checked else students[0],), type="secondary" if checked else "primary",
                help="Does the map change when the student forgets, layer by layer? (Adebayo et al. 2018)",
            )  # fmt: skip
            with st.popover("Numbers", icon=":material/table:"):
                map_numbers(found)
            download(lambda: pixel_table(found).to_csv(index=False), "maps", "Maps (CSV)")
        if checked:
            sanity(asked, students, known, called)


def check(student: str) -> None:
    st.session_state.attribution["check"] = student
    st.session_state.pop("attribution_check", None)


def cards(found: Answered, called: dict[str, str]) -> str:
    """The image and everybody's map of it."""
    answer, facts = found.answer, found.answer.facts
    rows = {r["id"]: r for r in answer.tables["students"]}
    image = facts["image"]
    columns = [
        maps.Card(
            "The image",
            pictures=[(found.url("input"), image["text"])],
            lines=[
                "It is " + image["class"] if image["class"] is not None else "Nobody has said what it is",
                image["text"][:1].upper() + image["text"][1:],
            ],
        )
    ]
    for i, student in enumerate(facts["students"]):
        mine = [a for a in answer.tables["answers"] if a["id"] == student["id"]]
        lines = ["Says " + ", ".join(f"{a['class']} ({percent(a['probability'])})" for a in mine[:2])]
        row = rows.get(student["id"])
        if row and row["target"] != row["predicted"]:
            lines.append(f"Explained: {row['target']}, logit {number(row['logit'])}")
        if row and row["gap"] is not None:
            lines.append(f"Completeness gap {percent(row['gap'])}")
        if row:
            lines.append(f"{row['seconds']:.2f} s")
        name = called.get(student["id"], student["name"])
        columns.append(
            maps.Card(
                name,
                student["kind"] or "full",
                [
                    (found.url(f"map-{i}"), f"Map of {name}"),
                    (found.url(f"blend-{i}"), f"Map of {name} over the image"),
                ]
                if row
                else (),
                lines,
                facts["skipped"].get(student["id"], ""),
            )
        )
    limit, share = facts["limit"], facts["scale"] == "share"
    high = f"for it: {percent(limit, 2) if share else number(limit)}"
    low = "against it" if facts["signed"] else "0"
    unit = "of a student's whole attribution, per pixel" if share else "logits per pixel"
    return maps.side_by_side(columns, (found.url("key"), low, high, unit))


def map_numbers(found: Answered) -> None:
    """The tables behind the maps."""
    table, pairs = found.table("students"), found.table("agreement")
    st.dataframe(
        pd.DataFrame(
            {
                "Student": table["student"],
                "Says": table["predicted"],
                "Surely": table["confidence"].map(percent),
                "Explained": table["target"],
                "Logit": table["logit"].map(number),
                "Completeness gap": table["gap"].map(percent),
                "Whole attribution": table["total"].map(number),
            }
        ),
        hide_index=True,
    )
    if len(pairs):
        st.markdown("How far two maps agree", help="On this image. Over many images: Quality & agreement.")
        st.dataframe(
            pd.DataFrame(
                {
                    "Student": pairs["student_a"],
                    "And": pairs["student_b"],
                    "Rank correlation": pairs["rank_correlation"].map(number),
                    "Overlap of the top tenth": pairs["overlap"].map(percent),
                }
            ),
            hide_index=True,
        )
    with st.container(horizontal=True, gap="small"):
        download(table, "attribution")
        download(found.table("answers"), "answers", "Answers (CSV)")
        if len(pairs):
            download(pairs, "map-agreement", "Agreement (CSV)")


def pixel_table(found: Answered) -> pd.DataFrame:
    """Every pixel of every map."""
    facts = found.answer.facts
    return pd.DataFrame(
        {"id": student["id"], "student": student["name"], "row": y, "column": x, "attribution": value}
        for student, values in zip(facts["students"], facts["maps"], strict=True)
        for y, line in enumerate(values or [])
        for x, value in enumerate(line)
    )


def sanity(asked: dict[str, Any], students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    """The sanity check of one student's map."""
    st.subheader("Sanity check", anchor=False, help=explain("sanity-check"))
    fitting = {id: called[id] for id in students if not METHOD_INFO[asked["method"]].valid_for(known[id]["network"])}
    if st.session_state.attribution["check"] not in fitting:
        check(next(iter(fitting)))
    student = field(
        "check",
        lambda key: st.selectbox("Student to check", list(fitting), format_func=named(fitting), key=key, width=420),
    )
    found = put("sanity", SanitySpec, {**asked, "students": student})
    if found is None:
        return
    table = found.table("stages")
    st.markdown(f"**{found.answer.facts['verdict']}**")
    heads = ["trained", *(f"down to {layer}" for layer in table["layer"][1:])]
    st.html(maps.strip(found.url("strip"), "The map from the trained student to one all random", heads, 128))
    figure(
        maps.stages(table, is_dark()), "sanity_figure",
        "Likeness of the map to the trained student's as layers become random; the data can be downloaded below", table,
        "sanity",
    )  # fmt: skip
    st.caption("Means over three random networks, with the lowest and the highest. A map that stays alike shows the "
               "image rather than what was learned.")  # fmt: skip
    download(table, "sanity")
