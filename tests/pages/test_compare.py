"""The Compare page: the sets that are chosen stay chosen."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import streamlit as st
from streamlit.testing.v1 import AppTest

from engine.runs.store import Store
from pages.components import shared

ROOT = Path(__file__).parents[2]


def test_a_baseline_just_made_stays_chosen_whatever_a_busy_browser_sends_next(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    store = Store(tmp_path)

    asked = SimpleNamespace(store=store, submit=lambda kind, spec: store.submit(kind, spec, pid=os.getpid()))
    monkeypatch.setattr(shared, "executor", lambda: asked)
    monkeypatch.setattr(st, "page_link", lambda *args, **keywords: None)  # the page is opened without the others
    at = AppTest.from_file(str(ROOT / "pages" / "compare.py"), default_timeout=60)
    at.query_params["dataset"], at.query_params["runs"] = "digits", ""
    at.run()
    next(b for b in at.button if b.label == "Make this baseline").click().run()
    (run,) = store.runs()

    def sets():
        assert not at.exception
        return next(m for m in at.multiselect if m.label == "Sets")

    assert sets().value == [run.id]
    sets().set_value([]).run()  # sent before the browser had heard of the new set
    assert sets().value == [run.id]

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 10)
    sets().set_value([]).run()
    assert sets().value == [], "and then it can be taken out"


def test_a_choice_that_was_left_behind_with_its_page_is_no_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.setattr(st, "page_link", lambda *args, **keywords: None)

    def left():
        import runpy
        import time

        import streamlit as st

        page = runpy.run_path("pages/compare.py")
        st.session_state.compare_new = {"some-new-set": time.monotonic()}
        del st.session_state["compare_runs"]
        page["keep_new"]()
        assert "compare_runs" not in st.session_state

    monkeypatch.chdir(ROOT)
    at = AppTest.from_function(left, default_timeout=60).run()
    assert not at.exception, at.exception[0].value
