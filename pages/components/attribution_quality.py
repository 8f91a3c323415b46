"""How far maps agree, and how good they are (torch-free)."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from engine.probes.attribution.specs import (
    AgreementSpec,
    QualitySpec,
)
from pages.components import maps
from pages.components.attribution_controls import fits_none, method_form
from pages.components.attribution_state import (
    CHOICES,
    MATRICES,
    MOST_COMPARED,
    VIEWS,
    WHOM,
    WORDS,
    one_of,
    put,
    row,
    who_of,
)
from pages.components.choice import named
from pages.components.pieces import download, figure, interval, is_dark, number, percent
from pages.components.reports import Facts


def show_quality(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    if one_of("view", VIEWS, "What is measured") == "agreement":
        agreement(students, known, called)
    else:
        quality(students, called)


def agreement(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    """How far students' maps agree, as a matrix and a tree."""
    whom = one_of("whom", WHOM, "Whose maps are compared")
    asked = students if whom == "chosen" else list(dict.fromkeys([*students, *known]))[:MOST_COMPARED]
    if len(asked) < 2:
        st.info("Maps are compared of at least two students: choose or train another one.")
        return
    chosen = method_form(wide=True)
    one, two, _ = st.columns([1, 1, 2])
    with one:
        images = row("agreement_images", "Test images")
    with two:
        share = row("share")
    if fits_none(chosen["method"], asked, known):
        return
    found = put("agreement", AgreementSpec, {"students": ",".join(asked), "images": images, "share": share, **chosen})
    if found is None:
        return
    facts, who, pairs = found.answer.facts, who_of(found, called), found.table("pairs")
    shown = one_of("matrix", MATRICES, "Which number")
    left, right = st.columns(2, gap="large")
    with left:
        figure(
            maps.matrix(facts[shown], list(who["observer"]), shown == "distance", is_dark()), "agreement_figure",
            f"{MATRICES[shown]} of every two students; the table below holds the numbers", pairs, "map-distances",
        )  # fmt: skip
    with right:
        figure(
            maps.tree(facts["tree"], who, is_dark()), "tree_figure",
            "Tree of the students by the distance of their maps; the table below holds the distances", pairs,
            "map-tree",
        )  # fmt: skip
    st.caption("Distance: 1 less the mean cosine of the two students' maps of the true class (after Song et al. 2019). "
               "The tree joins the nearest first, groups at the mean of their distances.")  # fmt: skip
    st.dataframe(
        pd.DataFrame(
            {
                "Student": pairs["id_a"].map(called),
                "And": pairs["id_b"].map(called),
                "Distance": pairs["distance"].map(number),
                "Rank correlation": interval(pairs, "rank_correlation", share=False),
                "Overlap of the top pixels": interval(pairs, "overlap"),
                "Same answer": pairs["same_answer"].map(percent),
                "Images": pairs["n"],
            }
        ),
        hide_index=True,
    )
    download(pairs, "map-distances")


def quality(students: list[str], called: dict[str, str]) -> None:
    """The metrics of the maps themselves."""
    state = st.session_state
    one, two, three = st.columns([2.4, 1, 1], vertical_alignment="bottom")
    names = WORDS["method"]
    with one:
        if "attribution_methods" not in state:
            wanted = [m.strip() for m in state.attribution["methods"].split(",")]
            state.attribution_methods = [m for m in dict.fromkeys(wanted) if m in names][:5]
        methods = st.multiselect(
            "Methods", list(names), format_func=named(names), key="attribution_methods", max_selections=5,
            help="Up to five methods, with their usual settings.",
        )  # fmt: skip
        state.attribution["methods"] = ",".join(methods)
    with two:
        images = row("quality_images", "Test images")
    with three:
        changes = row("perturbations")
    if not methods:
        st.info("Choose one or more methods above.")
        return
    found = put(
        "quality",
        QualitySpec,
        {"students": ",".join(students), "methods": ",".join(methods), "images": images, "perturbations": changes},
        press=f"Every map is made {2 + changes} times, of {images} test images: about a minute for a few students on a "
        "laptop.",
    )
    if found is None:
        return
    table, metrics, who = found.table("quality"), found.answer.facts["metrics"], who_of(found, called)
    words = {name: metrics[name]["name"] for name in CHOICES["metric"] if name in metrics}
    metric = one_of("metric", words, "Metric")
    st.caption(metrics[metric]["about"])
    mine = table[table["metric"] == metric]
    figure(
        maps.quality(mine, who, {**names, maps.CHANCE: "Random order"}, metrics[metric]["better"], is_dark()),
        "quality_figure",
        f"{metrics[metric]['name']} of each method and student, with intervals; the table below holds the numbers",
        mine,
        "map-quality",
    )
    drawn = [m for m in methods if m in set(found.table("curves")["method"])]
    if drawn:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            method = st.selectbox("Curves of", drawn, format_func=named(names), key="attribution_curve", width=260)
        figure(
            maps.curves(found.table("curves"), who, method, is_dark()), "curves_figure",
            f"Deletion and insertion curves of {names[method]} for each student; the data can be downloaded below",
            found.table("curves"), "map-curves",
        )  # fmt: skip
        st.caption("Solid: the most important pixels first. Dotted: the same student, pixels in random order.")
    st.dataframe(
        pd.DataFrame(
            {
                "Student": mine["id"].map(called),
                "Method": [names.get(m, "Random order") for m in mine["method"]],
                metrics[metric]["name"]: interval(mine, share=False),
                "Images": mine["n"],
            }
        ),
        hide_index=True,
    )
    with st.container(horizontal=True, gap="small"):
        download(table, "map-quality")
        download(found.table("curves"), "map-curves", "Curves (CSV)")
