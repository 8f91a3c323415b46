"""Changing images of a set, and seeing what students then get right: the section Edit (torch-free)."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from engine import edits
from engine.errors import Refused
from engine.probes.specs import PROBES
from engine.runs.store import Run, Store
from engine.spec import build_spec
from pages.components import canvas, choice, reports, roles
from pages.components.asking import Answered
from pages.components.pieces import download, percent
from pages.components.shared import executor
from pages.components.whatif_state import do, edits_text, knobs, leave, put, question, redo, reset, undo

LAID_OUT = 200  # images of a set, and those of the others that are edited
COVERED = 0.25  # of a pixel's square, from which a painted mask takes it


def show_edit(where: Store, run: Run) -> None:
    state, now = st.session_state, st.session_state.pieces
    if said := state.pop("pieces_refused", ""):
        st.error(said)
    text = edits_text()
    spec = question("edited", where, source=run.id, edits=text)
    if spec is None:
        return
    _stop_waiting(text)
    found = put("edited", spec, "pieces_edited")
    if found is None:
        if now["edits"]:  # perhaps it is one of them that cannot be done
            _steps([])
        return
    facts = found.answer.facts
    classes, labels = [str(name) for name in facts["classes"]], facts["after"]
    before, after = (_pictures(found, name, len(labels)) for name in ("before", "after"))
    left, right = st.columns([1, 2], gap="large")
    with left:
        image = _choose(labels, classes)
        _tools(image, after[image], labels[image], classes, int(facts["size"]))
    with right:
        st.html(strip(before, after, labels, facts["before"], classes, image))
        _steps(classes)
        with st.container():  # what is below keeps its place, and stays open, when the answer comes
            _measure(where, run, text)
        _save(where, run, text)


def _pictures(found: Answered, name: str, count: int) -> list[str]:
    path = found.image(name)
    return reports.cut(path, count) if path else []


def _choose(labels: list[int], classes: list[str]) -> int:
    """Which image is edited."""
    now, names = st.session_state.pieces, [f"Image {i} · {classes[label]}" for i, label in enumerate(labels)]
    now["image"] = min(now["image"], len(labels) - 1)
    choice.keep("pieces_image", min(st.session_state.get("pieces_image", now["image"]), len(labels) - 1))
    now["image"] = st.selectbox("Image", range(len(labels)), format_func=names.__getitem__, key="pieces_image")
    return now["image"]


def _tools(image: int, url: str, label: int, classes: list[str], size: int) -> None:
    """The board and the buttons, each of which does one edit."""
    now = st.session_state.pieces
    painted = canvas.board(
        key=f"pieces_board_{image}_{len(now['edits'])}_{len(now['undone'])}", kind="mask", under=url, brush=32,
        label=f"Image {image}: paint over a part of it, to erase or colour that part",
    )  # fmt: skip
    locked = roles.locked("edit images")
    nothing = {"disabled": True} if not painted else {}
    st.color_picker("Colour", "#ffffff", key="pieces_colour", help="On a grey image, its brightness counts.")
    with st.container(horizontal=True, gap="small"):
        st.button("Erase the mask", key="pieces_erase", on_click=_fill, args=(image, size, painted),
                  **{"help": "With the median colour of the image.", **nothing, **locked})  # fmt: skip
        st.button("Colour the mask", key="pieces_paint", on_click=_fill, args=(image, size, painted, True),
                  **{**nothing, **locked})  # fmt: skip
        st.button("Mirror", key="pieces_mirror", on_click=do, args=(f"{image}:mirror",), **locked)
        seed = sum(":swap:" in edit for edit in [*now["edits"], *now["undone"]])
        st.button("Swap in a real image", key="pieces_swap", on_click=do, args=(f"{image}:swap:{seed}",),
                  **roles.locked("edit images", help="A random training image of its class."))  # fmt: skip
    low, high = edits.BLUR
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.number_input("Blur by (pixels)", low, high, 1.0, 0.1, format="%.1f", key="pieces_sigma", width=140)
        st.button("Blur", key="pieces_blur", on_click=_blur, args=(image,), **locked)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        key = f"pieces_label_{image}_{label}"
        to = st.selectbox("Label", range(len(classes)), label, format_func=classes.__getitem__, key=key, width=140)
        same = {"disabled": True} if to == label else {}
        st.button("Change the label", key="pieces_relabel", on_click=_relabel, args=(image, key),
                  **{**same, **locked})  # fmt: skip


# What was chosen is read when a button is pressed: the browser may send both at once.


def _blur(image: int) -> None:
    do(f"{image}:blur:{st.session_state.pieces_sigma:g}")


def _relabel(image: int, key: str) -> None:
    do(f"{image}:label:{st.session_state[key]}")


def _fill(image: int, size: int, painted: str, coloured: bool = False) -> None:
    """Erase what is painted, or colour it."""
    try:
        place = place_of(canvas.drawn(painted), size)
    except Refused as refused:
        st.session_state.pieces_refused = str(refused)
        return
    colour = st.session_state.pieces_colour.removeprefix("#").lower()
    do(f"{image}:paint:{colour}:{place}" if coloured else f"{image}:erase:{place}")


def place_of(picture: Image.Image, size: int) -> str:
    """A painted mask, white on black, as edits write it. Raises ``Refused`` for one that covers no pixel."""
    side = min(size, edits.GRID)
    mask = np.asarray(picture.convert("L").resize((side, side), Image.Resampling.BOX)) > 255 * COVERED
    if not mask.any():
        raise Refused("Nothing of the image is covered; paint over a larger part.")
    return edits.place_of(mask)


def strip(
    before: list[str], after: list[str], labels: list[int], were: list[int], classes: list[str], chosen: int
) -> str:
    """HTML of the set: edited images are framed, with what they were below."""
    parts = []
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        changed, name = old != new or labels[i] != were[i], html.escape(classes[labels[i]])
        if i >= LAID_OUT and not changed and i != chosen:
            continue
        about = f"Image {i}, labelled {name}{', edited' if changed else ''}{', chosen' if i == chosen else ''}"
        was = f'<img class="was" src="{old}" alt="What image {i} was">' if old != new else ""
        label = f"{i} · " + (f"<s>{html.escape(classes[were[i]])}</s> {name}" if labels[i] != were[i] else name)
        kind = " ".join([*(["changed"] if changed else []), *(["chosen"] if i == chosen else [])])
        parts.append(
            f'<figure class="{kind}" title="{about}"><img src="{new}" alt="{about}">'
            f"<figcaption>{label}</figcaption>{was}</figure>"
        )
    return f"""<style>
.edited {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(64px, 1fr)); gap: 8px; max-height: 330px;
  overflow: auto; padding: 3px; }}
.edited figure {{ margin: 0; min-width: 0; max-width: 96px; border: 2px solid transparent; }}
.edited .changed {{ border-color: #b0602e; }}
.edited .chosen {{ outline: 2px solid currentColor; }}
.edited img {{ display: block; width: 100%; image-rendering: pixelated; }}
.edited .was {{ width: 50%; margin: 2px auto; opacity: 0.8; }}
.edited figcaption {{ font-size: 13px; text-align: center; overflow-wrap: anywhere; }}
</style><div class="edited" tabindex="0" role="group" aria-label="The images of the set">{"".join(parts)}</div>"""


def _steps(classes: list[str]) -> None:
    """What was done, and the ways back and forth."""
    now = st.session_state.pieces
    with st.container(horizontal=True, gap="small"):
        st.button("Undo edit", icon=":material/undo:", key="pieces_undo", on_click=undo, disabled=not now["edits"])
        st.button("Redo edit", icon=":material/redo:", key="pieces_redo", on_click=redo, disabled=not now["undone"])
        st.button("Reset", icon=":material/restart_alt:", key="pieces_reset", on_click=reset, disabled=not now["edits"])
    if now["edits"]:
        done = "; ".join(edits.told(edit, classes) for edit in edits.parse(" ".join(now["edits"])))
        st.caption(f"{done[:1].upper()}{done[1:]}.")
    else:
        st.caption("Nothing is edited yet.")


# ---- what it changes ------------------------------------------------------------------------------------------------


def _stop_waiting(text: str) -> None:
    """Students of edits that are no longer those on the page need not be trained."""
    state = st.session_state
    before = state.get("pieces_measured")
    if before is not None and before.edits != text:
        leave("edit", before)
        state.pieces_measured = None


def _measure(where: Store, run: Run, text: str) -> None:
    """Accuracy and decisions of students of the set as it was and as it is now."""
    state = st.session_state
    with st.expander("How it is measured"):
        knobs("edit", list(PROBES["edit"].spec.model_fields))
    if not text:
        st.info("Change an image, and quick students of the set as it was and as it is now are compared here.")
        return
    spec = question("edit", where, source=run.id, edits=text, **state.pieces["values"]["edit"])
    if spec is None:
        return
    state.pieces_measured = spec
    found = put("edit", spec, "pieces_edit")
    if found is None:
        return
    facts, changed = found.answer.facts, found.table("changed")
    one, two, three = st.columns(3)
    one.metric("As it was", percent(facts["before"]))
    two.metric("Edited", percent(facts["after"]), f"{100 * (facts['after'] - facts['before']):+.1f} points")
    three.metric("Decisions changed", percent(facts["changed"]))
    if len(changed):
        st.markdown("**Whose decision changed**")
        path = found.image("changed")
        st.html(decided(changed, reports.cut(path, len(changed)) if path else [], len(found.table("students"))))
        more = facts["images_changed"] - len(changed)
        if more > 0:
            st.caption(f"And {more:,} more images.")
    with st.expander("Class by class"):
        table = found.table("classes")
        st.dataframe(
            pd.DataFrame(
                {
                    "Class": table["class"],
                    "As it was": table["before"].map(percent),
                    "Edited": table["after"].map(percent),
                    "Points": [f"{100 * d:+.1f}" for d in table["after"] - table["before"]],
                }
            ),
            hide_index=True,
        )
        download(table, "edit", "Download the data (CSV)")


def decided(changed: pd.DataFrame, urls: list[str], students: int) -> str:
    """HTML of real images, with what they are and what students said before and say now."""
    parts = []
    for i, row in enumerate(changed.to_dict("records")):
        true, old, new = (html.escape(str(row[k])) for k in ("class", "before", "after"))
        about = f"A real image of {true}: taken for {old} before, for {new} now"
        picture = f'<img src="{urls[i]}" alt="{about}">' if i < len(urls) else ""
        verdict = " ✓" if new == true else " ✗" if old == true else ""
        parts.append(
            f'<figure title="{about}">{picture}<figcaption>{true}: {old} <b>→ {new}{verdict}</b><br>'
            f"{row['students']} of {students}</figcaption></figure>"
        )
    return f"""<style>
.decided {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)); gap: 10px 8px; }}
.decided figure {{ margin: 0; min-width: 0; }}
.decided img {{ display: block; width: 100%; max-width: 96px; image-rendering: pixelated; }}
.decided figcaption {{ font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; padding-top: 2px; }}
</style><div class="decided">{"".join(parts)}</div>"""


def _save(where: Store, run: Run, text: str) -> None:
    """Keep the edited set as a run of its own."""
    if not text:
        return
    with st.expander("Save as a new set"):
        st.text_input("Name", f"{run.title}, edited"[:200], key="pieces_title", max_chars=200)
        st.button("Save", key="pieces_save", type="primary", on_click=_saved, args=(run.id, text),
                  **roles.locked("start runs"))  # fmt: skip
        new = st.session_state.get("pieces_saved", {}).get(text)
        made = where.run(new) if new else None
        if made is not None and made.status == "failed":
            st.error(made.message)
        elif made is not None:
            st.page_link(
                "pages/compare.py", label="Compare it with the set it was made from", icon=":material/compare:",
                query_params={"dataset": run.dataset, "runs": f"{run.id},{new}"},
            )  # fmt: skip


def _saved(run: str, text: str) -> None:
    state = st.session_state
    title = state.pieces_title
    try:
        if not title.isprintable():
            raise Refused("A name is one line of text; take out what is not.")
        new = executor().submit("edit", build_spec("edit", source=run, edits=text), title.strip())
    except Refused as refused:
        state.pieces_refused = str(refused)
        return
    state.pieces_saved = {**state.get("pieces_saved", {}), text: new}
    st.toast("Queued: the edited set. Compare, Students and the others have it in a moment.")
