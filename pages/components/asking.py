"""Putting questions to the probes from a page, and waiting for answers without holding the page up (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st
from pydantic import BaseModel

from engine.errors import Refused
from engine.probes.desk import Answer
from pages.components import roles
from pages.components.shared import desk


@dataclass(frozen=True)
class Answered:
    """An answer and where its files are."""

    digest: str
    answer: Answer

    def table(self, name: str) -> pd.DataFrame:
        """A table of the answer; empty when it has none of that name."""
        return pd.DataFrame(self.answer.tables.get(name, []))

    def image(self, name: str) -> Path | None:
        """The path of a picture of the answer."""
        return desk().file(self.digest, self.answer.images.get(name, ""))

    def url(self, name: str) -> str:
        """Where a browser finds a picture of the answer."""
        return f"/api/probes/{self.digest}/{self.answer.images[name]}"


def ask(probe: str, spec: BaseModel, key: str) -> Answered | None:
    """The answer to a question; while there is none, its progress with a way to cancel it, and None.

    The page is run again when the answer is there. A question that was answered before costs nothing.
    """
    where = desk()
    try:
        digest = where.ask(probe, spec)
    except Refused as refused:
        st.info(str(refused))
        return None
    state = where.look(digest)
    if state.status == "done" and state.answer is not None:
        for note in state.answer.notes:
            st.caption(note)
        return Answered(digest, state.answer)
    if state.status in ("refused", "cancelled"):
        (st.error if state.status == "refused" else st.info)(state.message)
        again = roles.locked("put new questions")
        if st.button("Try again", key=f"{key}_again", icon=":material/refresh:", **again) and roles.presenter():
            where.ask(probe, spec, again=True)
            st.rerun()
        return None
    _wait(digest, key)
    return None


@st.fragment(run_every=0.3)
def _wait(digest: str, key: str) -> None:
    state = desk().look(digest)
    if state.status not in ("waiting", "working"):
        st.rerun()
    left, right = st.columns([5, 1], vertical_alignment="center")
    left.progress(state.progress, state.message or "Working.")
    locked = roles.locked("cancel questions")
    if right.button("Cancel", key=f"{key}_cancel", width="stretch", **locked) and roles.presenter():
        desk().cancel(digest)
        st.rerun()
