"""The page Applications: each experiment's answer, with networks that nobody trained, and what stands in the way."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from engine.baselines import make_baseline
from engine.networks import make_network
from engine.probes.answerer import work_out
from engine.probes.applications import (
    adaptation,
    continual,
    data_free,
    membership,
    ownership,
    search,
)
from engine.probes.desk import Desk
from engine.probes.specs import PROBES
from engine.runs.store import Store
from engine.spec import build_spec
from engine.table import parameters
from pages.components import knobs, shared
from tests.browser.helpers import keep_student

ROOT = Path(__file__).parents[2]
SET, STUDENT = "SET", "STUDENT"
SMALL = {
    "inversion": {"images": 2, "steps": 5, "starts": 1, "behind": 2},
    "continual": {"ipc": 1, "per_step": 5, "repeats": 2, "tested": 10},
    "poisoning": {"ipc": 1, "steps": 1, "networks": 2, "pool": 1},
    "adaptation": {"source": "shapes", "descents": 1, "steps": 1, "networks": 2, "pool": 1},
    "search": {"source": SET, "tested": 50},
    "data-free": {"teacher": STUDENT, "source": SET, "images": 1, "students": 2, "steps": 10},
    "membership": {"ipc": 1, "members": 10, "repeats": 2},
    "ownership": {"source": SET, "students": STUDENT, "trials": 2, "references": 3},
}  # fmt: skip
FIGURES = {"continual": 3, "poisoning": 2, "membership": 2}  # others have one


@pytest.fixture
def there(home, monkeypatch):
    """A home with a set and a student of digits, where nobody answers what the page asks."""
    monkeypatch.setattr(shared, "answerer", lambda: SimpleNamespace(started=True))
    store = Store(home)
    spec = build_spec("baseline", dataset="digits", kind="random", ipc=2)
    run = store.submit("baseline", spec, pid=os.getpid())
    from engine.data import load

    make_baseline("random", load("digits"), 2).save(store.folder(run) / "result")
    store.announce(run, "done", "Done.")
    student = keep_student(SimpleNamespace(home=home), 1, "full", "Fig", "convnet")
    return home, {SET: run, STUDENT: student.id}


@pytest.fixture
def untrained(monkeypatch):
    """Nothing is trained: networks stay as they begin, and sets are real images."""

    def network(plan, seed):
        yield 1.0
        return plan.make(seed).eval()

    def chosen(data, ipc, steps, seed, work, tell, **more):
        return make_baseline("random", data, ipc, seed=seed)

    def begun(start, build, seed, data, accel):
        return make_network(**build, seed=seed % 2**31)

    def kept(*_):
        return make_network("convnet", 1, 16, 10, 8)

    for module in (continual, membership, ownership, search, data_free):
        monkeypatch.setattr(module, "train_one", network)
    for module in (continual, membership):
        monkeypatch.setattr(module, "distilled", chosen)
        monkeypatch.setattr(module, "real_set", lambda kind, *rest: chosen(*rest[:2], 0, rest[2], None, None))
    monkeypatch.setattr(continual, "herded", lambda part, ipc, seed, *_: make_baseline("random", part, ipc, seed=seed))
    for place in ("engine.distill.dd", *(f"engine.probes.applications.{m}" for m in ("poisoning", "adaptation"))):
        monkeypatch.setattr(f"{place}.begin", begun)
    real = make_baseline
    monkeypatch.setattr(adaptation, "make_baseline", lambda kind, *rest, **more: real("random", *rest, **more))
    monkeypatch.setattr(membership, "fit", lambda *_, **__: make_network("convnet", 1, 16, 10, 8))
    monkeypatch.setitem(search.GRIDS, "small", [(8, depth, "none") for depth in (1, 2, 3)])
    monkeypatch.setattr(data_free, "listened", kept)
    monkeypatch.setattr(
        data_free, "adversarial", lambda teacher, data, *_: (kept(), data.train_images[:50])
    )  # fmt: skip


def opened(section, values):
    """The page, with a question of the section in its address."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.switch_page("pages/applications.py")
    at.query_params["section"] = section
    for key, value in knobs.written(parameters(PROBES[section].spec), values).items():
        at.query_params[key] = value
    return at.run()


@pytest.mark.parametrize("section", SMALL)
def test_an_answer_is_shown_with_its_figures_and_numbers(there, untrained, section):
    home, ids = there
    values = {name: ids.get(value, value) for name, value in SMALL[section].items()}
    spec = build_spec(PROBES[section].spec, **values)
    before = opened(section, values)
    assert not before.exception and any("has not been measured" in i.value for i in before.info)
    desk = Desk(home)
    answer = work_out(desk, Store(home), desk.ask(section, spec))
    assert not isinstance(answer, str), answer
    at = opened(section, values)
    assert not at.exception, at.exception[0].value
    assert not at.error and not at.warning
    assert any(answer.facts["headline"] in m.value for m in at.markdown)
    assert len(at.get("plotly_chart")) == FIGURES.get(section, 1)
    assert len(at.dataframe) >= 1 and len(at.get("download_button")) >= 2
    for note in answer.notes:
        assert any(note in c.value for c in at.caption)


def test_what_cannot_be_asked_yet_says_what_to_do(home, monkeypatch):
    monkeypatch.setattr(shared, "answerer", lambda: SimpleNamespace(started=True))
    Store(home)
    for section, says in (("search", "There is no set"), ("ownership", "no set"), ("data-free", "no trained student")):
        at = opened(section, {})
        assert not at.exception and any(says in i.value for i in at.info)


def test_a_question_is_put_only_when_the_button_is_pressed(there):
    home, _ = there
    at = opened("inversion", {"images": 1})
    assert not list((home / "probes").glob("*/question.json"))
    next(button for button in at.button if button.label == "Measure").click().run()
    (question,) = (home / "probes").glob("*/question.json")
    assert '"images": 1' in question.read_text()
