"""The guided tour: its stops, the way between them, and guessing first; the glossary."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest

from engine.glossary import TERMS, explain, search
from engine.methods import METHODS
from engine.probes.bias.specs import StudySpec
from engine.probes.robustness.specs import ShortcutSpec
from engine.runs.store import Store
from engine.spec import build_spec
from engine.table import parameters
from engine.tour import STOPS, Stop, number
from pages.components import address, form, guess, student_form, tour
from tests.pages.test_distil import a_run, opened

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    return Store(tmp_path)


def asked(at: AppTest) -> dict[str, str]:
    """The address, whoever has written it last."""
    return {key: value if isinstance(value, str) else value[0] for key, value in at.query_params.items()}


def card(at: AppTest) -> dict:
    """What the card was given to show."""
    drawn = [e.proto for e in at.main if e.type == "bidi_component"]
    return next(json.loads(p.json) for p in drawn if p.component_name.endswith("limbeck_tour"))


# ---- the stops as data -----------------------------------------------------------------------------------------------


def test_there_are_eight_to_ten_stops_that_differ_and_say_something() -> None:
    assert 8 <= len(STOPS) <= 10
    assert len({stop.title for stop in STOPS}) == len({stop.sentences for stop in STOPS}) == len(STOPS)
    for stop in STOPS:
        assert (ROOT / stop.page).is_file() and stop.query, stop.title
        assert 2 <= len(stop.sentences) <= 4 and all(len(s) > 20 for s in stop.sentences), stop.title
        assert stop.terms and set(stop.terms) <= set(TERMS), stop.title
        assert len({part.key for part in stop.parts}) == len(stop.parts) > 0, stop.title
        assert all(part.lights and part.words.startswith("Lit: ") for part in stop.parts), stop.title


@pytest.mark.parametrize("stop", [s for s in STOPS if s.equation], ids=lambda s: s.method)
def test_every_part_of_an_equation_touches_something_that_is_said(stop: Stop) -> None:
    inside = {e.get("data-part") for e in ElementTree.fromstring(stop.equation).iter()} - {None}
    assert stop.method in METHODS and inside == {part.key for part in stop.parts}


def test_questions_have_a_choice_for_every_number() -> None:
    asked = [stop.question for stop in STOPS if stop.question]
    assert len(asked) >= 3
    for question in asked:
        assert len(question.choices) == len(question.bounds) + 1 and list(question.bounds) == sorted(question.bounds)
    hidden = [stop for stop in STOPS if stop.question and stop.page == "pages/distil.py"]
    assert all(stop.query.get("reveal") == "0" for stop in hidden), "the page would show the answer beside the question"


@pytest.mark.parametrize(("text", "stop"), [("1", 1), ("10", 10), ("0", None), ("11", None), ("²", None), ("", None)])
def test_an_address_names_a_stop_or_none(text: str, stop: int | None) -> None:
    assert number(text) == stop


def bias_keys() -> set[str]:
    """What the page Texture & shape takes of a link's study."""
    (own,) = re.findall(r"^OWN = \((.*?)^\)", (ROOT / "pages" / "bias.py").read_text(), re.MULTILINE | re.DOTALL)
    return set(re.findall(r'"(\w+)"', own))


def test_pages_accept_what_stops_ask_of_them(store: Store) -> None:
    for stop in STOPS:
        places = [(stop.page, stop.query), stop.prepare, (stop.prepare[0] if stop.prepare else stop.page, stop.without)]
        for page, query in (place for place in places if place and place[1]):
            query = {key: "random" if value == "{0}" else value for key, value in query.items()}
            if page == "pages/distil.py":
                assert form.from_query(query)[1] == [], stop.title
            if page == "pages/students.py":
                assert student_form.from_query(query, store)[1] == [], stop.title
            if "study" in query:
                build_spec(StudySpec, **{**json.loads(query["study"]), "sets": "none"})
            if page == "pages/robustness.py":
                keys = {row.key for row in parameters(ShortcutSpec)} | {"section"}
                assert set(query) <= keys and query["section"] == "shortcut"


def test_no_setting_has_a_key_that_the_program_keeps_for_itself() -> None:
    used = {row.key for method in METHODS for row in form.rows(method)}
    used |= {row.key for row in student_form.ROWS.values()}
    assert not used & address.CARRIED


# ---- on the pages ----------------------------------------------------------------------------------------------------


def test_a_stop_is_a_link_that_opens_its_page_with_the_card(store: Store) -> None:
    run = a_run(store)
    at = opened(tour="3")
    assert (asked(at)["run"], asked(at)["tour"]) == (run, "3"), "another run by the same method"
    shown = card(at)
    assert shown["at"] == 3 and shown["titles"][2] == STOPS[2].title and shown["equation"] == STOPS[2].equation
    assert "gallery-mnist-dm-10" in shown["note"], "and it is said that the run that belongs there is not here"


def came(store: Store, own: str) -> None:
    """A run under an id of those that come with the program."""
    run = a_run(store)
    store.folder(run).rename(store.folder(own))
    with store._transaction() as db:
        for table, column in (("runs", "id"), ("events", "run")):
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (own, run))


def test_a_stop_shows_the_run_that_came_with_the_program(store: Store) -> None:
    own = "gallery-mnist-dm-10"
    came(store, own)
    a_run(store)  # which is newer
    place = tour.find(STOPS[2], store)
    assert (place.query["run"], place.runs, place.note) == (own, (own,), "")


def test_of_two_runs_the_one_that_is_here_is_shown(store: Store) -> None:
    came(store, "gallery-mnist-dc-1")
    place = tour.find(STOPS[4], store)
    assert (
        place.query["runs"] == ",gallery-mnist-dc-1" and "by dataset distillation) is not in this store" in place.note
    )


def test_a_stop_without_its_run_says_so_and_can_be_read(store: Store) -> None:
    at = opened(tour="4")
    shown = card(at)
    assert "not in this store" in shown["note"] and shown["sentences"] == list(STOPS[3].sentences)
    assert shown["question"] is None and asked(at)["m"] == "mtt", "the form is set to make such a run"
    assert asked(at)["tour"] == "4", "the form's own address keeps it"


def test_other_links_are_left_as_they_are(store: Store) -> None:
    run = a_run(store)
    at = opened(run=run, tour="4")
    assert asked(at)["run"] == run and card(at)["at"] == 4
    at = opened(run=run, tour="99")
    assert "tour" not in at.query_params and not at.exception


def test_a_stop_that_needs_a_student_leads_to_training_one(store: Store) -> None:
    at = opened(tour="7")
    assert at.title[0].value == "Students" and asked(at)["src"] == "random"
    assert card(at)["sentences"] == list(STOPS[6].preparing)


def keeping() -> None:
    import streamlit as st

    from pages.components import address

    query = address.changed("page")
    if query is not None:
        st.session_state.n = query.get("n", "0")
    st.button("More", on_click=lambda: st.session_state.update(n="8"))
    address.write("page", {"n": st.session_state.n})
    st.text(" ".join([st.session_state.n, *sorted(address.query())]))


def test_pages_keep_the_programs_own_keys_and_never_hear_of_them() -> None:
    at = AppTest.from_function(keeping)
    at.query_params["n"], at.query_params["tour"], at.query_params["reveal"] = "7", "3", "0"
    assert at.run().text[0].value == "7 n"
    at.button[0].click().run()
    assert at.text[0].value == "8 n"
    assert asked(at) == {"n": "8", "tour": "3", "reveal": "0"}
    at.query_params["tour"] = "4"
    assert at.run().text[0].value == "8 n", "the next stop on a page does not undo what was chosen there"


# ---- guessing first --------------------------------------------------------------------------------------------------


def test_accuracies_are_hidden_until_they_were_guessed(store: Store) -> None:
    run = a_run(store)
    store.add_evaluation(
        run,
        {
            "protocol": "dc",
            "network": "convnet",
            "split": "test",
            "mean": 0.62,
            "std": 0.01,
            "accuracies": [0.61, 0.63],
        },
    )
    shown = "".join(m.value for m in opened(run=run).markdown)
    assert "Accuracy while distilling" in shown and "Guess first" not in shown
    at = opened(run=run, reveal="0")
    everything = " ".join(e.value for e in (*at.markdown, *at.caption, *at.info))
    assert not at.metric and "Accuracy while distilling" not in everything and "6" not in re.findall(r"6\d", everything)
    at.slider[0].set_value(55).run()
    at.button(key="show-measured").click().run()
    assert at.metric[0].value == "62.0 ± 1.0 %"
    assert at.info[0].value.startswith("You guessed 55 %. Measured: 62.0 ± 1.0 % test accuracy")
    assert at.info[0].value.endswith("7 points more.")


def test_what_a_question_measures_is_the_runs_own(store: Store) -> None:
    run = a_run(store)
    found = guess.gain(store, run)
    assert found is not None and found.value == pytest.approx(0.61 - 0.5)
    assert guess.accuracy(store, run).value == 0.61
    place = tour.find(STOPS[5], store)
    asked = tour._asked(STOPS[5], place)
    assert place.runs == (run,) and asked["right"] == 1 and "50.0 %" in asked["said"]


def test_numbers_of_two_protocols_make_no_gain(store: Store) -> None:
    run = a_run(store)
    other = {"label": "Random real images", "kind": "random", "accuracy": 0.3, "std": 0.02, "protocol": "dsa"}
    store.append(run, [("reference", 0, other)])
    assert guess.gain(store, run).value == pytest.approx(0.11), "the earlier one, of the same protocol"
    bare = store.submit("distill", build_spec("distill", dataset="digits", method="dc", ipc=1, minutes=0.5), pid=1)
    assert guess.gain(store, bare) is None and guess.accuracy(store, bare) is None


# ---- the glossary ----------------------------------------------------------------------------------------------------


def test_every_term_has_two_sentences_and_a_paper() -> None:
    assert len(TERMS) >= 40 and len({t.means for t in TERMS.values()}) == len(TERMS)
    for term in TERMS.values():
        assert len(re.findall(r"[.?!](?= |$)", term.means)) == 2, term.id
        assert re.search(r"(19|20)\d\d$", term.paper), term.id
        assert term.paper in explain(term.id)


def test_terms_are_found_by_other_words_too() -> None:
    assert search("IPC")[0].id == "ipc" and "zca" in [t.id for t in search("whitening")]
    assert search("geirhos texture") and not search("zebra crossing")


def test_the_page_of_terms_searches_and_marks() -> None:
    at = AppTest.from_file(str(ROOT / "pages" / "terms.py"), default_timeout=30)
    at.query_params["term"] = "zca"
    at.run()
    (listed,) = [e.proto.body for e in at.main if e.type == "html"]
    assert listed.index('id="term-zca" class=marked') < listed.index('id="term-ipc"')
    at.text_input[0].set_value("gradient").run()
    (listed,) = [e.proto.body for e in at.main if e.type == "html"]
    assert "gradient-matching" in listed and "term-herding" not in listed
    at.text_input[0].set_value("zebra").run()
    assert "No term has these words" in at.info[0].value
