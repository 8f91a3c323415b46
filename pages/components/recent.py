"""The latest runs with their pictures, each one click away (torch-free)."""

from __future__ import annotations

import html
import time
from urllib.parse import urlencode

import streamlit as st

from engine.runs.store import Run
from pages.components import address, guess, hiding
from pages.components.shared import store

MOST = 8


def recent_runs(but: str = "") -> None:
    """Draw them, all but the run ``but`` and those of the gallery; nothing where there are none."""
    runs = [r for r in store().runs(kinds=("distill",), limit=50) if r.id != but and not r.gallery][:MOST]
    if not runs or hiding.hidden("recent"):
        return
    st.subheader("Recent runs", anchor=False)
    measured = [] if guess.hiding() else store().evaluations([r.id for r in runs])
    evaluations = {e["run"]: e for e in measured if e.get("split", "test") == "test"}
    for first in range(0, len(runs), 4):
        for column, run in zip(st.columns(4, gap="medium"), runs[first : first + 4], strict=False):
            with column:
                st.html(_link(run))
                found = evaluations.get(run.id)
                number = f"{100 * found['mean']:.1f} % ({found['protocol']} protocol), " if found else ""
                st.caption(f"{number}{run.status}, {ago(run.created)}")


def _link(run: Run) -> str:
    """The run's picture and title, which lead to it."""
    to = f"/distil?{urlencode({'run': run.id, **address.along()})}"
    picture, steps = "", store().frames(run.id)
    if steps:
        url = f"/api/runs/{run.id}/frames/{steps[-1]}.webp?e=f{int(run.finished or time.time())}"
        picture = f'<img class="thumbnail" src="{url}" alt="">'
    return f'<a href="{html.escape(to)}" target="_self">{picture}{html.escape(run.title)}</a>'


def ago(moment: float) -> str:
    """How long ago, in words."""
    minutes = (time.time() - moment) / 60
    if minutes < 1:
        return "just now"
    for size, word in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes >= size:
            count = int(minutes // size)
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return ""
