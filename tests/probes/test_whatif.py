"""What edits of a set change, and what a quiz asks."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from PIL import Image

from engine.baselines import make_baseline
from engine.data import load
from engine.probes.answerer import work_out
from engine.probes.desk import Answer, Desk
from engine.probes.specs import PROBES
from engine.probes.whatif.editing import decisions
from engine.probes.whatif.quiz import CHOICES, drawn
from engine.runs.film import publish
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from engine.synthetic import SyntheticSet, load_synthetic
from tests.browser.helpers import Server, keep_student

DIGITS = load("digits")


@pytest.fixture
def store(home) -> Store:
    return Store(home)


@pytest.fixture
def run(store) -> str:
    """A finished set of digits, the average of each class."""
    id = store.submit("baseline", build_spec("baseline", dataset="digits", kind="average"), pid=os.getpid())
    publish(store, id, make_baseline("average", DIGITS, 1))
    store.announce(id, "done", "Done.")
    return id


def ask(store: Store, probe: str, **values) -> Answer | str:
    desk, info = Desk(store.home), PROBES[probe]
    return work_out(desk, store, desk.ask(probe, info.named(build_spec(info.spec, **values), store)))


# ---- edits ----------------------------------------------------------------------------------------------------------


def test_decisions_that_most_students_change_come_first():
    before = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    after = torch.tensor([[0, 5, 2, 4], [0, 1, 2, 4]])
    rows = decisions(before, after, torch.tensor([0, 1, 2, 4]))
    assert rows == [
        {"at": 3, "class": 4, "before": 3, "after": 4, "students": 2},
        {"at": 1, "class": 1, "before": 1, "after": 5, "students": 1},
    ]


def test_what_an_edit_does_to_students(store, run):
    """A 3 that is called an 8 costs the threes; an edit that changes nothing changes no decision."""
    small = {"source": run, "seeds": 2, "images": 143}
    found = ask(store, "edit", edits="3:label:8", **small)
    own = {row["class"]: row for row in found.tables["classes"]}
    assert own["3"]["before"] > 0.2 and own["3"]["after"] < own["3"]["before"] / 2
    assert found.facts["after"] < found.facts["before"] and found.facts["changed"] > 0.05
    assert len(found.tables["changed"]) == min(12, found.facts["images_changed"]) and "held-out" in found.notes[0]
    path = Desk(store.home).root / _digest(store, "edit", edits="3:label:8", **small) / found.images["changed"]
    assert Image.open(path).size == (16 * len(found.tables["changed"]), 16)
    same = ask(store, "edit", edits="3:label:3", **small)
    assert same.facts["before"] == same.facts["after"] == found.facts["before"]
    assert same.facts["changed"] == 0 and not same.tables["changed"] and not same.images


def _digest(store: Store, probe: str, **values) -> str:
    info = PROBES[probe]
    return Desk(store.home).ask(probe, info.named(build_spec(info.spec, **values), store))


def test_edits_that_cannot_be_done_are_refused(store, run):
    assert "no image 10" in ask(store, "edited", source=run, edits="10:mirror")
    assert "is no edit" in ask(store, "edit", source=run, edits="1:melt")
    assert "no run and no file" in ask(store, "edited", source="nosuch")


def test_an_edited_set_is_a_run_whose_provenance_names_its_parent(store, run):
    id = store.submit("edit", build_spec("edit", source=run, edits="3:label:8 4:mirror"), pid=os.getpid())
    run_job(store, store.run(id), shares=False)
    made = store.run(id)
    assert (made.status, made.dataset, made.message) == ("done", "digits", "2 edits done to 2 images of 10.")
    before, after = (load_synthetic(store.result_folder(each)) for each in (run, id))
    assert after.labels.tolist() == [0, 1, 2, 8, 4, 5, 6, 7, 8, 9] and after.kind == before.kind
    (link,) = after.provenance["edited"]
    assert link == {"from": run, "title": store.run(run).title, "edits": "3:label:8 4:mirror"}
    assert torch.equal(before.labels, make_baseline("average", DIGITS, 1).labels), "the parent stays as it was"


# ---- quiz -----------------------------------------------------------------------------------------------------------


def many(classes: int, each: int) -> SyntheticSet:
    images = torch.zeros(classes * each, 1, 8, 8)
    labels = torch.arange(classes).repeat_interleave(each)
    return SyntheticSet(images, labels, "digits", tuple(f"c{i}" for i in range(classes)), (0.5,), (0.5,))


def test_questions_are_spread_over_the_classes():
    synthetic = many(4, 5)
    choices, chosen = drawn(synthetic, 10, 0)
    counts = synthetic.labels[chosen].bincount(minlength=4).tolist()
    assert choices == [0, 1, 2, 3] and len(set(chosen)) == 10 and sorted(counts) == [2, 2, 3, 3]
    assert drawn(synthetic, 10, 0) == (choices, chosen) and drawn(synthetic, 10, 1) != (choices, chosen)
    assert len(drawn(many(2, 2), 10, 0)[1]) == 4, "no image is asked about twice"


def test_of_many_classes_ten_can_be_chosen():
    synthetic = many(25, 1)
    choices, chosen = drawn(synthetic, 30, 3)
    assert len(choices) == CHOICES and set(synthetic.labels[chosen].tolist()) == set(choices)


def test_a_quiz_asks_about_images_of_the_set_and_tells_nothing_in_its_files(store, run):
    student = keep_student(Server("", store.home, 0), 0, "full", "Net", "lenet")
    found = ask(store, "quiz", source=run, student=student.id, images=10)
    rows = found.tables["questions"]
    assert sorted(row["truth"] for row in rows) == list(range(10)) and found.facts["network"] == "Net"
    assert list(found.images) == [f"image-{i}" for i in range(10)]
    pixels = load_synthetic(store.result_folder(run)).pixels()
    said = student.logits(pixels).argmax(1).tolist()
    assert [row["network"] for row in rows] == [said[row["image"]] for row in rows]
    assert ask(store, "quiz", source=run, images=3).tables["questions"][0]["network"] is None


def test_a_network_of_other_classes_cannot_play(store, run, tmp_path):
    student = keep_student(Server("", store.home, 0), 0, "full", "Net", "lenet")
    other = replace(make_baseline("random", DIGITS, 1), classes=tuple(f"digit {i}" for i in range(10)))
    assert "other classes" in ask(store, "quiz", source=str(other.save(tmp_path / "set")), student=student.id)
    assert "no trained student" in ask(store, "quiz", source=run, student="nobody-here")
