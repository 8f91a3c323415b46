"""Which training image did it? (torch-free)"""

from __future__ import annotations

import streamlit as st

from engine.probes.attribution.specs import (
    InfluenceSpec,
)
from pages.components import maps
from pages.components.attribution_controls import image_form, target_form
from pages.components.attribution_state import (
    put,
    row,
)
from pages.components.pieces import download, percent
from pages.components.reports import Facts


def show_influence(students: list[str], known: dict[str, Facts], called: dict[str, str]) -> None:
    left, right = st.columns([1.1, 2.3], gap="large")
    with left:
        image = image_form(students, known)
        target = target_form(image, known[students[0]])
        one, two = st.columns([1.6, 1], vertical_alignment="bottom")
        with one:
            layers = row("layers")
        with two:
            count = row("count")
    with right:
        if not image:
            st.info("Choose, upload or draw an image, and the training images that decided on it appear here.")
            return
        values = {"students": ",".join(students), "image": image, "target": target, "layers": layers, "count": count}
        found = put("influence", InfluenceSpec, values)
        if found is None:
            return
        table, facts = found.table("influence"), found.answer.facts
        path = found.image("input")
        with st.container(horizontal=True, vertical_alignment="center"):
            if path:
                st.image(str(path), width=96, alt=facts["image"]["text"])
            named = facts["image"]["class"]
            st.markdown(
                f"{facts['image']['text'].capitalize()}{'' if named is None else f', a “{named}”'}.", width="stretch"
            )
        for i, (student, answer) in enumerate(zip(facts["students"], facts["answers"], strict=True)):
            st.subheader(called.get(student["id"], student["name"]), anchor=False)
            st.markdown(
                f"Says **{answer['predicted']}**; asked about **{answer['target']}** "
                f"({percent(answer['probability'])}). {answer['looked_at']:,} of its {answer['training_images']:,} "
                "training images were looked at."
            )
            for direction, title in (
                ("up", f"Pushed “{answer['target']}” up, strongest first"),
                ("down", f"Pushed “{answer['target']}” down"),
                ("similar", "Nearest in feature space"),
            ):
                mine = table[(table["id"] == student["id"]) & (table["direction"] == direction)]
                st.markdown(f"{title}:" if len(mine) else f"{title}: none.")
                if len(mine):
                    st.html(maps.strip(found.url(f"{direction}-{i}"), title, list(mine["class"]), 76))
        download(table, "influence")
