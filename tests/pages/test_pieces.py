"""The page Image by image, with answers laid out as the probes give them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from engine import seminar, tally
from engine.edits import parse
from engine.probes.desk import Desk, write_json
from engine.probes.specs import PROBES
from engine.runs.store import Store
from engine.spec import build_spec
from pages.components import roles, shared, whatif_edit, whatif_quiz, whatif_values

ROOT = Path(__file__).parents[2]
DIGITS = [str(d) for d in range(10)]
ABOUT = {"dataset": "digits", "classes": DIGITS, "mean": [0.5], "std": [0.5], "kind": "distilled", "protocol": "dc"}


@pytest.fixture
def where(home, monkeypatch) -> Store:
    """A store with one set, of which nobody works out anything."""
    monkeypatch.setattr(shared, "answerer", lambda: SimpleNamespace(started=True))
    whatif_quiz._counted.clear()
    return Store(home)


@pytest.fixture
def run(where) -> str:
    id = where.submit("distill", build_spec("distill", dataset="digits"), pid=os.getpid())
    layout = {"columns": 10, "rows": 1, "size": 16, "channels": 1, "classes": DIGITS, "cells": list(range(10))}
    where.append(id, [("layout", 0, layout)])
    folder = where.folder(id) / "result"
    folder.mkdir()
    (folder / "synthetic.json").write_text(json.dumps(ABOUT))
    images = np.zeros((10, 1, 16, 16), np.float32)
    save_file({"images": images, "labels": np.arange(10)}, folder / "synthetic.safetensors")
    where.announce(id, "done", "Done.")
    return id


def answered(where: Store, probe: str, answer: dict, pictures: dict[str, int] = {}, **values) -> str:  # noqa: B006
    """Lay an answer out; ``pictures``: how many squares are side by side in each."""
    desk, info = Desk(where.home), PROBES[probe]
    digest = desk.ask(probe, info.named(build_spec(info.spec, **values), where))
    for name, count in pictures.items():
        Image.new("RGB", (16 * count, 16), "#777777").save(desk.root / digest / f"{name}.png")
    files = {name: f"{name}.png" for name in pictures}
    blank = {"tables": {}, "facts": {}, "notes": [], "seconds": 1.0}
    write_json(desk.root / digest / "answer.json", {**blank, "images": files, **answer})
    return digest


def open_page(run: str, **query) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    at.switch_page("pages/pieces.py")
    for key, value in {"run": run, **query}.items():
        at.query_params[key] = str(value)
    return checked(at.run())


def checked(at: AppTest) -> AppTest:
    assert not at.exception, at.exception[0].value
    return at


def texts(at: AppTest) -> str:
    kinds = (at.info, at.caption, at.markdown, at.error, at.warning, at.success)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def press(at: AppTest, label: str) -> AppTest:
    return checked(next(b for b in at.button if b.label == label).click().run())


# ---- values ---------------------------------------------------------------------------------------------------------


def values_of(count: int = 10) -> dict:
    ranks = [1 + sum(w < v for w in VALUES) for v in VALUES]
    rows = [
        {"image": i, "class": str(i), "value": v, "error": 0.5, "own_class": 2 * v, "rank": ranks[i]}
        for i, v in enumerate(VALUES[:count])
    ]
    classes = [{"image": i, "class": c, "value": VALUES[i]} for i in range(count) for c in DIGITS]
    facts = {"whole": 0.6, "parts": 11, "worst": 3, "best": 9, "judges": 300, "classes": DIGITS}
    return {"tables": {"values": rows, "classes": classes}, "facts": facts, "notes": ["Two notes."]}


VALUES = [1.0, 2.0, 3.0, -4.0, 0.5, 1.5, 2.5, 3.5, 4.5, 6.0]


def test_values_are_worked_out_when_somebody_asks_for_it(where, run):
    at = open_page(run)
    assert "33 of them" in texts(at), "11 parts, three students each"
    assert not list(Desk(where.home).queue.iterdir()), "nothing is trained by looking"
    press(at, "Work out the values")
    (digest,) = (path.name for path in Desk(where.home).queue.iterdir())
    spec = Desk(where.home).question(digest)["spec"]
    assert (spec["source"], spec["kind"], spec["split"], spec["seeds"]) == (run, "leave-one-out", "held-out", 3)


def test_values_stand_under_the_images_and_the_worst_can_be_edited(where, run):
    answered(where, "valuation", values_of(), {"set": 10}, source=run)
    answered(where, "edited", looks(), {"before": 10, "after": 10}, source=run, edits="")
    at = open_page(run)
    assert "Two notes." in texts(at)
    assert list(at.dataframe[0].value["Image"])[:2] == [3, 4] and list(at.dataframe[0].value["Rank"]) == list(
        range(1, 11)
    )
    press(at, "Edit image 3, the least valuable")
    assert next(s for s in at.selectbox if s.label == "Image").value == 3


def test_a_value_has_the_colour_of_its_side():
    (harmful, _), (nothing, ink), (valuable, _) = (whatif_values.shade(v, 4.0) for v in (-4.0, 0.0, 4.0))
    assert (harmful, nothing, valuable) == ("#053061", "#f7f7f7", "#6e2f05") and ink == "#000000"
    for value in np.linspace(-4, 4, 41):
        back, ink = whatif_values.shade(float(value), 4.0)
        assert contrast(back, ink) >= 4.5, (value, back, ink)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# ---- edits ----------------------------------------------------------------------------------------------------------


def looks(**labels: int) -> dict:
    after = [labels.get(f"image{i}", i) for i in range(10)]
    return {"facts": {"classes": DIGITS, "size": 16, "before": list(range(10)), "after": after}}


def test_edits_are_taken_back_and_done_again(where, run):
    for edits in ("", "2:mirror", "2:mirror 2:blur:1"):
        answered(where, "edited", looks(), {"before": 10, "after": 10}, source=run, edits=edits)
    at = open_page(run, section="edit", image=2)
    steps = []
    for label in ("Mirror", "Blur", "Undo edit", "Undo edit", "Redo edit", "Redo edit", "Reset", "Redo edit"):
        press(at, label)
        steps.append(" ".join(at.session_state["pieces"]["edits"]))
    assert steps == ["2:mirror", "2:mirror 2:blur:1", "2:mirror", "", "2:mirror", "2:mirror 2:blur:1", "", "2:mirror"]
    assert "Image 2: mirrored." in texts(at)
    press(at, "Blur")
    assert next(b for b in at.button if b.label == "Redo edit").disabled, "a new edit ends what could be done again"


def test_what_an_edit_changes_is_told(where, run):
    answered(where, "edited", looks(image2=5), {"before": 10, "after": 10}, source=run, edits="2:label:5")
    facts = {"before": 0.6, "after": 0.55, "judges": 300, "split": "held-out", "changed": 0.2, "images_changed": 14}
    tables = {
        "students": [{"seed": s, "before": 0.6, "after": 0.55} for s in (0, 1)],
        "classes": [{"class": c, "before": 0.6, "after": 0.5} for c in DIGITS],
        "changed": [{"class": "2", "before": "2", "after": "5", "students": 2}] * 12,
    }
    answer = {"facts": {**facts, "between": 0.1}, "tables": tables, "notes": ["Of both."]}
    answered(where, "edit", answer, {"changed": 12}, source=run, edits="2:label:5")
    at = open_page(run, section="edit", ed="2:label:5")
    assert [(m.label, m.value, m.delta) for m in at.metric] == [
        ("As it was", "60.0 %", ""), ("Edited", "55.0 %", "-5.0 points"), ("Decisions changed", "20.0 %", ""),
    ]  # fmt: skip
    assert "And 2 more images." in texts(at) and "Of both." in texts(at)


def test_an_edited_set_is_saved_as_a_run(where, run, monkeypatch):
    asked = []
    monkeypatch.setattr(shared.executor(), "submit", lambda *args: asked.append(args) or "a-new-run")
    answered(where, "edited", looks(), {"before": 10, "after": 10}, source=run, edits="2:mirror")
    at = open_page(run, section="edit", ed="2:mirror")
    next(t for t in at.text_input if t.label == "Name").set_value("My set")
    press(at, "Save")
    ((kind, spec, title),) = asked
    assert (kind, spec.source, spec.edits, title) == ("edit", run, "2:mirror", "My set")


def test_a_painted_mask_becomes_a_place():
    picture = Image.new("L", (256, 256))
    picture.paste(255, (0, 0, 128, 64))
    (edit,) = parse(f"0:erase:{whatif_edit.place_of(picture, 16)}")
    from engine.edits import mask_of

    mask = mask_of(edit.place, 16)
    assert mask[:4, :8].all() and mask.sum() == 32
    with pytest.raises(whatif_edit.Refused, match="Nothing of the image"):
        whatif_edit.place_of(Image.new("L", (256, 256)), 16)


def test_edits_of_one_set_are_not_done_to_another(where, run):
    other = where.submit("baseline", build_spec("baseline", dataset="digits"), pid=os.getpid())
    (where.folder(other) / "result").mkdir()
    (where.folder(other) / "result" / "synthetic.json").write_text(json.dumps(ABOUT))
    for id, edits in ((run, "2:mirror"), (other, "")):
        answered(where, "edited", looks(), {"before": 10, "after": 10}, source=id, edits=edits)
    at = open_page(run, section="edit", ed="2:mirror", image=4)
    next(s for s in at.selectbox if s.label == "Set").set_value(other)
    checked(at.run())
    now = at.session_state["pieces"]
    assert (now["run"], now["edits"], now["image"]) == (other, [], 0)


# ---- quiz -----------------------------------------------------------------------------------------------------------


def quiz(where: Store, run: str, network: bool = True) -> str:
    """Three questions: a 7, a 1 and a 4, of which a network knows the first two."""
    said = [(7, 7), (1, 1), (4, 9)]
    rows = [
        {"image": t, "truth": t, "network": n if network else None, "sure": 0.8 if network else None} for t, n in said
    ]
    facts = {"choices": DIGITS, "network": "Net" if network else "", "accuracy": 0.9 if network else None, "of": 10}
    pictures = {f"image-{i}": 1 for i in range(3)}
    return answered(where, "quiz", {"tables": {"questions": rows}, "facts": facts}, pictures, source=run, images=3)


def play(at: AppTest, *guesses: str) -> AppTest:
    for guess in guesses:
        press(at, guess)
        press(at, next(b.label for b in at.button if b.label in ("Next", "How did it go?")))
    return at


def test_answers_show_after_the_guess_and_the_score_at_the_end(where, run):
    digest = quiz(where, run)
    at = open_page(run, section="quiz", q=3)
    assert "stands for" not in texts(at) and "Net" not in texts(at)
    press(at, "2")
    assert "You said 2. It stands for **7**. The network says 7 (80% sure)." in texts(at)
    assert all(b.disabled for b in at.button if b.label in DIGITS), "one guess an image"
    assert tally.read(where.folder(run), digest, 10).people == 0
    press(at, "Next")
    play(at, "1", "9")
    assert [(m.label, m.value) for m in at.metric][:2] == [("You", "1 of 3"), ("The network", "2 of 3")]
    counted = tally.read(where.folder(run), digest, 10)
    assert (counted.people, counted.right, counted.shown) == (1, 1, 3) and counted.counts[7][2] == counted.counts[4][
        9
    ] == 1
    press(at, "Start over")
    play(at, "7", "1", "4")
    assert at.metric[0].value == "3 of 3" and tally.read(where.folder(run), digest, 10).people == 1, "counted once"


def test_without_a_network_one_can_be_trained(where, run, monkeypatch):
    asked = []
    monkeypatch.setattr(shared.executor(), "submit", lambda *args: asked.append(args) or "a-student")
    quiz(where, run, network=False)
    at = open_page(run, section="quiz", q=3)
    press(at, "Train one on all images")
    ((kind, spec),) = asked
    assert (kind, spec.source, spec.dataset) == ("student", "full", "digits") and "Queued" in texts(at)
    assert "The network" not in texts(play(at, "7", "1", "4"))


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (DIGITS, DIGITS),
        (["7", "2"], ["7", "2"]),
        (["cat", "dog"], ["1", "2"]),
        ([f"class {i}" for i in range(10)], ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"]),
    ],
)
def test_a_digit_is_its_own_key(names, keys):
    assert whatif_quiz.shortcuts(names) == keys


def test_viewers_take_the_quiz_but_edit_and_measure_nothing(where, run, monkeypatch):
    digest = quiz(where, run)
    answered(where, "edited", looks(), {"before": 10, "after": 10}, source=run, edits="")
    monkeypatch.setenv(seminar.VARIABLE, "a-key-for-tests")
    monkeypatch.setattr(shared, "answerer", lambda: pytest.fail("a viewer started the answerer"))
    for who in ("anna", "ben", "anna"):
        monkeypatch.setattr(roles, "viewer", lambda who=who: who)
        at = play(open_page(run, section="quiz", q=3), "7", "1", "1")
        assert at.metric[0].value == "2 of 3"
        assert "Show what everybody answered" not in [t.label for t in at.toggle]
    assert tally.read(where.folder(run), digest, 10).people == 2, "anna counts once"
    assert "2 people, 6 answers: 66.7% right" in texts(at)
    at = open_page(run, section="edit")
    assert all(
        b.disabled for b in at.button if b.label in ("Mirror", "Blur", "Swap in a real image", "Change the label")
    )
    at = open_page(run)
    assert next(b for b in at.button if b.label == "Work out the values").disabled


# ---- counts ---------------------------------------------------------------------------------------------------------


def test_counts_add_up_and_what_is_broken_counts_for_nothing(tmp_path):
    digest = "0" * 24
    for guesses in ([(0, 0), (1, 0)], [(0, 0), (1, 1)]):
        tally.add(tmp_path, digest, 2, guesses)
    found = tally.read(tmp_path, digest, 2)
    assert (found.people, found.counts, found.right, found.shown) == (2, [[2, 0], [1, 1]], 3, 4)
    assert [path.name for path in (tmp_path / "quiz").iterdir()] == [f"{digest}.json"]
    for text in (
        "{",
        "[]",
        '{"people": "many"}',
        '{"people": 1, "counts": [[1, -1], [0, 0]]}',
        '{"people":1,"counts":[[1]]}',
    ):
        (tmp_path / "quiz" / f"{digest}.json").write_text(text)
        assert tally.read(tmp_path, digest, 2) == tally.Tally(0, [[0, 0], [0, 0]])
