"""Gallery: what do training sets look like when they have been distilled? Finished runs, and where to go from them."""

from __future__ import annotations

import streamlit as st

from engine import gallery
from engine.data.catalogue import DATASETS, availability
from engine.errors import Refused
from engine.presets import DEFAULT, PRESETS
from engine.runs.store import Run
from engine.runs.validate import check
from pages.components import tour
from pages.components.recent import recent_runs
from pages.components.shared import executor, store
from pages.components.tiles import offline, tiles


def start() -> None:
    """Queue the run that shows most in the shortest time, and watch it."""
    spec = PRESETS[DEFAULT].spec
    try:
        check(spec)
        run = executor().submit("distill", spec)
    except Refused as refused:
        st.error(str(refused))
        return
    st.switch_page("pages/distil.py", query_params={"run": run})


def finished() -> list[Run]:
    """The tiles; while the runs behind them are still being set up, they come in one by one."""
    runs = gallery.shown(store())
    if runs:
        tiles(runs, key="tiles")
    if gallery.at_work():
        st.caption("The gallery is being set up.")
    return runs


def coming() -> None:
    """Redraws the page when runs have come in."""
    if not gallery.at_work() or len(gallery.shown(store())) != st.session_state.gallery_count:
        st.rerun()


def downloads(runs: list[Run]) -> None:
    """Which of the runs' datasets are not on this machine, and which runs need nothing."""
    lacking = [DATASETS[id].title for id in DATASETS if any(run.dataset == id for run in runs) and not ready(id)]
    if lacking:
        are = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'}"
        st.caption(
            f"{are} not on this machine. That changes nothing for a look at these runs; training or distilling with "
            "such images downloads them first."
        )
        offline()


def ready(dataset: str) -> bool:
    return availability(dataset).ready


def page() -> None:
    st.title("Gallery")
    st.write("Limbeck distils a training set into a handful of images while you watch. These runs are finished.")
    tour.start_link()
    runs = finished()
    st.session_state.gallery_count = len(runs)
    if gallery.at_work():
        st.fragment(coming, run_every=0.5)()
    downloads(runs)

    preset = PRESETS[DEFAULT]
    st.subheader("Make your own", anchor=False)
    st.caption(f"{preset.about} {preset.sentence()} Nothing is downloaded for it.")
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if st.button("Distil the digits now", type="primary", icon=":material/play_arrow:", key="start"):
            start()
        st.page_link("pages/distil.py", label="Set up a run", icon=":material/tune:")
        st.page_link("pages/data.py", label="Bring your own images", icon=":material/photo_library:")
    recent_runs()


page()
