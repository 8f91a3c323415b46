"""The distilled image itself (torch-free)."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from engine.probes.attribution.specs import (
    DistilledSpec,
)
from engine.runs.store import Store
from pages.components import comparison, maps
from pages.components.attribution_controls import method_form
from pages.components.attribution_state import (
    field,
    put,
    row,
)
from pages.components.choice import named
from pages.components.pieces import download, figure, is_dark, number, percent
from pages.components.reports import Facts
from pages.components.shared import dataset_title


def show_distilled(students: list[str], known: dict[str, Facts], called: dict[str, str], where: Store) -> None:
    dataset, values = known[students[0]]["dataset"], st.session_state.attribution
    runs = where.runs(kinds=comparison.SET_KINDS, dataset=dataset, limit=300)
    names = comparison.names([r for r in runs if where.result_folder(r.id)])
    if not names:
        st.info(f"There is no distilled set of {dataset_title(dataset)} yet.")
        st.page_link("pages/distil.py", label="Distil one", icon=":material/water_drop:", query_params={"d": dataset})
        return
    if values["run"] not in names:
        if values["run"]:
            st.info(f"The set “{values['run'][:60]}” is not here; this is another one.")
        sources = [known[id]["source"].get("run") for id in students]
        values["run"] = next((run for run in sources if run in names), next(iter(names)))
        st.session_state.pop("attribution_run", None)
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        run = field(
            "run",
            lambda key: st.selectbox("Synthetic set", list(names), format_func=named(names), key=key,
                                     help="Any set of this dataset that was distilled, picked or imported here."),
        )  # fmt: skip
        indices, neighbours = row("indices"), row("neighbours")
        chosen = method_form()
    with right:
        asked = {"students": ",".join(students), "run": run, "indices": indices or "", "neighbours": neighbours}
        found = put("distilled-view", DistilledSpec, {**asked, **chosen})
        if found is None:
            return
        facts, looks = found.answer.facts, found.table("looks")
        classes = facts["classes"]
        heads = classes if len(classes) <= 10 else [""] * 10
        st.html(maps.strip(found.url("set"), "The synthetic images", heads, 90))
        for i, student in enumerate(facts["students"]):
            name, mine = called.get(student["id"], student["name"]), looks[looks["id"] == student["id"]]
            right_ones = int((mine["class"] == mine["predicted"]).sum())
            st.markdown(f"{name}: {right_ones} of {len(mine)} taken for what they stand for.")
            if f"maps-{i}" in found.answer.images:
                st.html(
                    maps.strip(
                        found.url(f"maps-{i}"),
                        f"Maps of {name} of the synthetic images",
                        list(mine["predicted"]) if len(mine) <= 10 else [""] * 10,
                        90,
                    )
                )
            else:
                st.caption(facts["skipped"].get(student["id"], ""))
    nearest = found.table("nearest")
    st.subheader("Which real images it pulls", anchor=False)
    st.caption("First each synthetic image, then the test images nearest to it in a student's feature space.")
    for column, (i, student) in zip(st.columns(max(2, len(students))), enumerate(facts["students"]), strict=False):
        mine = nearest[nearest["id"] == student["id"]]
        with column:
            own = percent(mine["own_class"].astype(float).mean())
            st.markdown(f"{called.get(student['id'], student['name'])}: {own} of them are of its class.")
            st.html(maps.strip(found.url(f"nearest-{i}"), "Each synthetic image and its nearest test images",
                               [""] * (facts_width(mine)), 64))  # fmt: skip
    st.subheader("How natural it is", anchor=False)
    one, two = st.columns([2.2, 1], gap="large", vertical_alignment="center")
    with one:
        figure(
            maps.spectrum(found.table("spectrum"), is_dark()), "spectrum_figure",
            "Power over spatial frequency of the set and of real images; the data can be downloaded below",
            found.table("spectrum"), "spectrum",
        )  # fmt: skip
    with two:
        for kind, title in (("synthetic", "This set"), ("real", "Real test images")):
            value = facts["total_variation"][kind]
            st.metric(
                f"Total variation: {title.lower()}", number(value["mean"]),
                help="Mean absolute difference between neighbouring pixels, across plus down: how rough an image is.",
            )  # fmt: skip
            st.caption(f"95 % interval of the mean: {number(value['low'])} to {number(value['high'])}")
    with st.container(horizontal=True, gap="small"):
        download(nearest, "nearest", "Neighbours (CSV)")
        download(looks, "synthetic-looks", "Answers (CSV)")
        download(found.table("variation"), "variation", "Variation (CSV)")


def facts_width(nearest: pd.DataFrame) -> int:
    """Images in a row: the synthetic one and its neighbours."""
    return 1 + int(nearest["rank"].max())
