"""What one can take away from a run: a popover of files, made when they are asked for, and lines that train on its set
(torch-free)."""

from __future__ import annotations

from functools import partial

import streamlit as st

from engine.errors import Refused
from engine.exports import EXPORTS, export, missing
from engine.exports.facts import story
from engine.exports.snippet import about, snippet
from engine.runs.store import Run
from pages.components import roles
from pages.components.hiding import hidden
from pages.components.shared import store

GROUPS = {
    "How the images came to be": ("gif", "webp"),
    "To print, to read": ("sheet", "html"),
    "The set, to train on": ("zip", "npz", "safetensors", "pt"),
    "For another Limbeck": ("run",),
}
HELD = "safetensors"  # the file that the shown lines read


def popover(run: Run) -> None:
    """A button that opens the list of files; nothing is made before one of them is clicked."""
    why_not = missing(store(), run.id)
    if len(why_not) == len(EXPORTS) or hidden("export"):
        return
    with (
        st.popover("Export", icon=":material/ios_share:", key=f"export-{run.id}"),
        st.container(gap="xsmall"),
    ):
        for title, formats in GROUPS.items():
            st.caption(title)
            with st.container(horizontal=True, gap="xsmall"):
                for name in formats:
                    kind = EXPORTS[name]
                    st.download_button(
                        kind.title, partial(export, store(), run.id, name) if roles.presenter() else b"",
                        kind.name(run.id), kind.mime, key=f"export-{name}-{run.id}", on_click="ignore",
                        **roles.locked("export", disabled=name in why_not, help=why_not.get(name) or kind.about),
                    )  # fmt: skip


def training(run: Run) -> None:
    """Lines of plain PyTorch that train a student on the run's set, folded away."""
    folder = store().result_folder(run.id)
    if folder is None or hidden("export"):
        return
    with st.expander("Train on this set without Limbeck", icon=":material/code:"):
        headline = story(store(), run.id).headline
        file = EXPORTS[HELD].name(run.id)
        try:
            code = snippet(about(folder, file), headline)
        except Refused as refused:
            st.write(str(refused))
            return
        st.write(
            f"Export the set as {EXPORTS[HELD].title} and run these lines where the file lies."
            + (" They reach the accuracy shown above, up to the spread over seeds." if headline else "")
        )
        st.code(code, language="python")
