"""What attribution is asked about: an image, an answer, a method (torch-free)."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import Refused
from engine.home import limbeck_home
from engine.probes.attribution.specs import (
    METHOD_INFO,
    DisagreeSpec,
)
from pages.components import canvas, choice
from pages.components.asking import Answered
from pages.components.attribution_state import (
    PICKS,
    SHARED,
    field,
    one_of,
    put,
    row,
)
from pages.components.grid import data_url
from pages.components.pieces import percent
from pages.components.reports import Facts

ANY = "any class"
FILL = {"mnist": 20 / 28, "digits": 1.0}  # how much of the picture a digit's larger side fills in the dataset


def image_form(students: list[str], known: dict[str, Facts]) -> str:
    """Choose an image; how probes name it, or nothing as long as there is none."""
    values, facts = st.session_state.attribution, known[students[0]]
    words = {**PICKS, "other": "From the link"} if "other" in values["images"] else PICKS
    picked = one_of("pick", words, "Image", hide=False)
    if picked == "other":
        st.caption(values["images"]["other"])
    else:
        chooser = {"class": by_class, "disagree": by_disagreement, "upload": by_upload, "draw": by_drawing}[picked]
        try:
            if text := chooser(students, facts):
                values["images"][picked] = text
        except Refused as refused:
            st.error(str(refused))
    return values["images"].get(values["pick"], "")


def by_class(_: list[str], facts: Facts) -> str:
    """A test image of a class by its number there, or by its number among all."""
    state = st.session_state
    classes = [str(name) for name in facts["classes"]]
    if "attribution_number" not in state or state.get("attribution_class") not in (ANY, *classes):
        name, _, at = state.attribution["images"].get("class", "test:0").removeprefix("test:").rpartition(":")
        state.attribution_class = name if name in classes else ANY
        state.attribution_number = int(at) if at.isdecimal() and len(at) < 9 else 0
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        choice.keep("attribution_class", state.attribution_class)
        name = st.selectbox("Class", [ANY, *classes], key="attribution_class", width=130, help="What the image shows.")
        total = facts["test_images"] if name == ANY else sum(facts["confusion"][classes.index(name)])
        state.attribution_number = min(state.attribution_number, max(total - 1, 0))
        at = st.number_input(
            "Number", 0, max(total - 1, 0), step=1, key="attribution_number", width=120,
            help=f"Which of the {total:,} test images {'' if name == ANY else f'of class {name} '}it is.",
        )  # fmt: skip
        st.button(
            "Other", icon=":material/casino:", help="A far one", key="attribution_dice", on_click=any_other,
            args=(total,),
        )  # fmt: skip
    return f"test:{at}" if name == ANY else f"test:{name}:{at}"


def any_other(total: int) -> None:
    """Jump to a far image; over time to all of them."""
    st.session_state.attribution_number = (st.session_state.attribution_number + 7919) % max(total, 1)


def by_disagreement(students: list[str], _: Facts) -> str:
    """A test image on which the students differ, from a list of those where they differ most."""
    if len(students) < 2:
        st.info("It takes two students to disagree: choose another one above.")
        return ""
    found = put("disagree", DisagreeSpec, {"students": ",".join(students)})
    if found is None:
        return ""
    images, answers = found.table("images"), found.table("answers")
    said = answers.groupby("index", sort=False)["class"].agg(" · ".join)
    now = st.session_state.attribution["images"].get("disagree", "")
    at = [f"test:{index}" for index in images["index"]]
    default: Any = {"selection": {"rows": [at.index(now) if now in at else 0]}}
    marked = st.dataframe(
        pd.DataFrame(
            {
                "Image": [picture(found, f"image-{i}") for i in range(len(images))],
                "It is": images["class"],
                "They say": [said[index] for index in images["index"]],
                "Bits": images["divergence"],
            }
        ),
        hide_index=True, height=250, row_height=44, on_select="rerun", selection_mode="single-row",
        selection_default=default, key=f"attribution_list_{found.digest[:8]}",
        column_config={
            "Image": st.column_config.ImageColumn(width="small"),
            "Bits": st.column_config.NumberColumn(
                format="%.2f", help="Jensen-Shannon divergence of their probabilities: 0 when all say the same."
            ),
        },
        alt="Test images on which the students differ most; mark a row to look at it",
    )  # fmt: skip
    facts = found.answer.facts
    st.caption(f"Of {facts['scanned']:,} test images they answer {percent(facts['disagreed'])} differently.")
    rows = marked["selection"]["rows"]
    return at[rows[0]] if rows else (now or at[0])


def picture(found: Answered, name: str) -> str | None:
    """A small picture of an answer as a URL that carries it: tables take no other."""
    path = found.image(name)
    return data_url(path, mime="image/png") if path else None


def by_upload(_: list[str], facts: Facts) -> str:
    """A picture of one's own."""
    upload = st.file_uploader(
        "A picture", ["png", "jpg", "jpeg", "webp"], key="attribution_upload", max_upload_size=20,
        help=f"Its central square is shown to the students at {facts.get('size', 32)} pixels.",
    )  # fmt: skip
    return canvas.keep(canvas.opened(upload.getvalue()), limbeck_home()) if upload else ""


def by_drawing(_: list[str], facts: Facts) -> str:
    """A picture drawn here."""
    fill = FILL.get(facts["dataset"])
    url = canvas.board(
        key="attribution_board", label="Drawing board" if fill is None else "Board to draw a digit on",
        colours=facts.get("channels") == 3,
    )  # fmt: skip
    state = st.session_state
    if not url:
        if state.pop("attribution_drew", False):  # it was cleared
            state.attribution["images"].pop("draw", None)
        return ""
    state.attribution_drew = True
    drawing = canvas.drawn(url)
    return canvas.keep(canvas.centred(drawing, fill) if fill else drawing, limbeck_home())


def target_form(image: str, facts: Facts) -> str:
    """Which answer is explained."""
    classes = [str(name) for name in facts["classes"]]
    words = {"predicted": "Each student's own answer", "true": "What it really is"}
    if image.startswith("file:"):
        words.pop("true")
    options = [*words, *(name for name in classes if name not in words)]
    values = st.session_state.attribution
    if values["target"] not in options or st.session_state.get("attribution_target", options[0]) not in options:
        values["target"] = "predicted"
        st.session_state.pop("attribution_target", None)
    return field(
        "target",
        lambda key: st.selectbox(
            "Answer to explain", options, format_func=lambda t: words.get(t, f"Class {t}"), key=key,
            help="The class whose logit is attributed to the pixels. One class asks all students the same question.",
        ),
    )  # fmt: skip


def method_form(name: str = "method", wide: bool = False) -> dict[str, Any]:
    """Choose a method and turn its knobs; the values of its spec."""
    values = st.session_state.attribution
    place = list(st.columns(4, vertical_alignment="bottom")) if wide else [st.container()]
    with place[0]:
        method = row(name)
    info = METHOD_INFO[method]
    knobs = list(info.knobs)
    if info.gradient:
        knobs.append("smooth")
        if values["smooth"]:
            knobs += ["samples", "noise"]
    for i, knob in enumerate(knobs):
        if not wide and i % 2 == 0:
            place[1:] = st.columns(2, vertical_alignment="bottom", gap="small", wrap=False)
        with place[1 + (i % 2 if not wide else i % 3)]:
            row(knob)
    if info.id == "occlusion" and values["stride"] > values["window"]:
        st.caption("The stride is at most the window, so that no pixel is left out.")
    chosen = {knob: values[knob] for knob in SHARED if knob != "method"}
    chosen |= {"method": method, "smooth": values["smooth"] and info.gradient}
    return {**chosen, "stride": min(values["stride"], values["window"])}


def about(method: str) -> None:
    """What a method can show and what it cannot."""
    info = METHOD_INFO[method]
    smooth = info.gradient and st.session_state.attribution["smooth"]
    more = " Averaged over noisy copies, at as many times the cost." if smooth else ""
    st.markdown(
        f"**What it shows.** {info.shows} **Its limits.** {info.cannot} **Cost.** {info.cost}{more}",
        help=info.paper,
    )


def fits_none(method: str, students: list[str], known: dict[str, Facts]) -> bool:
    """Whether the method is right for none of the students; then says why."""
    reasons = [METHOD_INFO[method].valid_for(known[id]["network"]) for id in students]
    if all(reasons):
        st.info(" ".join(dict.fromkeys(reasons)))
    return all(reasons)
