"""What a page keeps: a choice that the browser reports as empty, an address that it sends too late."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import address


def choosing() -> None:
    import streamlit as st

    from pages.components.choice import one_of

    state = st.session_state
    state.kept = one_of("Fruit", {"a": "Apple", "b": "Plum"}, "fruit", state.get("kept"))
    st.text(f"It is {state.kept}")


def test_a_choice_that_a_busy_browser_reports_as_empty_stays_what_it_was() -> None:
    at = AppTest.from_function(choosing).run()
    assert at.text[0].value == "It is a"
    at.button_group[0].set_value("b").run()
    assert at.text[0].value == "It is b"
    at.button_group[0].set_value(None).run()
    assert not at.exception and at.text[0].value == "It is b"
    assert at.button_group[0].value == "b", "the browser shows it again"


def showing() -> None:
    """A page that keeps one number; a button adds to it."""
    import streamlit as st

    from pages.components import address

    state = st.session_state
    query = address.changed("page")
    if query is not None:
        state.number = int(query.get("n", 0))
    if st.button("More"):
        state.number += 1
    state.chosen = address.write("page", {"n": str(state.number)})
    st.text(f"{state.number}")


def shown(at: AppTest) -> tuple[str, str]:
    assert not at.exception
    return at.text[0].value, at.query_params["n"][0]


def test_an_address_that_the_browser_sends_late_undoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    at = AppTest.from_function(showing)
    at.query_params["n"] = "7"
    assert shown(at.run()) == ("7", "7") and not at.session_state.chosen
    at.button[0].click().run()
    assert shown(at) == ("8", "8") and at.session_state.chosen
    at.query_params["n"] = "7"  # the browser has not heard of the new one yet
    assert shown(at.run()) == ("8", "8")
    at.query_params["n"] = "3"  # a link
    assert shown(at.run()) == ("3", "3") and not at.session_state.chosen
    at.button[0].click().run()
    at.query_params["n"] = "3"
    monkeypatch.setattr(address, "LATE", 0.0)  # that was a while ago: somebody went back
    assert shown(at.run()) == ("3", "3")
