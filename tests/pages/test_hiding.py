"""Links for a class: which controls they leave out, and that their values hold."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from engine.runs.store import Store
from pages.components import hiding
from tests.pages.test_distil import opened


def labels(at: AppTest) -> set[str]:
    return {e.label for e in (*at.selectbox, *at.number_input, *at.toggle, *at.text_input)}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("export, seed,,", {"export", "seed"}),
        ("", set()),
        ("<script>,../..,__class__,\x00,%00", set()),
        ("seed," * 100_000, {"seed"}),
        ("Seed,SEED", set()),
        ("lr_img", {"lr_img"}),
    ],
)
def test_only_known_names_hide_something(text, names):
    assert hiding.parse(text) == names


def test_a_setting_that_is_hidden_holds_what_the_link_says(home):
    at = opened(v="1", d="digits", m="dm", ipc="7", s="42", hide="seed,ipc,presets,inside")
    assert {"Dataset", "Method"} <= labels(at) and not {"Seed", "Images per class", "Start from"} & labels(at)
    assert not any(e.label.startswith("How") for e in at.expander)
    at.button(key="distil").click().run()
    (run,) = Store(home).runs()
    assert (run.spec["seed"], run.spec["ipc"]) == (42, 7)


def test_all_settings_hidden_still_distil(home):
    at = opened(v="1", d="shapes", m="dc", ipc="1", min="0.5", lr="0.3", hide="settings,presets,pages,recent,export")
    assert not labels(at)
    at.button(key="distil").click().run()
    (run,) = Store(home).runs()
    assert (run.dataset, run.spec["method"], run.spec["minutes"]) == ("shapes", "dc", 0.5)
    assert run.spec["parameters"]["lr_img"] == 0.3


def test_what_is_hidden_stays_so_on_other_pages(home):
    at = opened(hide="seed,export")
    assert at.query_params["hide"] in ("seed,export", ["seed,export"]), "the form writes its own part around it"
    assert "v" in at.query_params
    at.query_params.clear()  # a link on a page has a query of its own
    at.switch_page("pages/compare.py").run()
    assert at.query_params["hide"] in ("seed,export", ["seed,export"])


def test_the_panel_makes_the_link(home):
    at = opened(v="1", d="digits", m="dm", ipc="7")
    assert not at.checkbox, "folded"
    at.session_state.hiding = True
    at.run()
    at.checkbox(key="hide_recent").check().run()
    at.checkbox(key="hide_seed").check().run()
    assert not at.exception
    made = at.code[0].value
    assert "hide=recent,seed" in made and "ipc=7" in made and "d=digits" in made
    for unfolded in (False, False, True):  # twice, as a box that is not drawn is forgotten only by the next drawing
        at.session_state.hiding = unfolded
        at.run()
        assert bool(at.code) is unfolded
    assert at.code[0].value == made, "folded and unfolded, the ticks are still there"
    again = opened(**dict(part.split("=", 1) for part in made.split("?", 1)[1].split("&")))
    assert "Seed" not in labels(again) and not again.checkbox, "who opens it is not offered to make another"
