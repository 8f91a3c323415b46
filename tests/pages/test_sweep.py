"""The page Sweep: what it offers and refuses, its address, and what it shows of a sweep that is going or done."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from engine import sweep
from engine.runs.store import Store

ROOT = Path(__file__).parents[2]
FORM = {"d": "digits", "n": "5", "st": "1"}


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    return Store(tmp_path)


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).switch_page("pages/sweep.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception, at.exception[0].value
    return at


def text(at: AppTest) -> str:
    said = [e.value for e in (*at.caption, *at.error, *at.warning, *at.markdown)]
    return " ".join(said + [h.proto.body for h in at.get("html") if "<style>" not in h.proto.body])


def finished(store: Store, run: str, accuracy: float) -> None:
    """As a worker leaves it."""
    store.append(
        run, [("layout", 0, {"columns": 10, "rows": 1, "size": 16, "channels": 1, "classes": list("0123456789")})]
    )
    image = io.BytesIO()
    Image.new("L", (160, 16)).save(image, "WEBP", lossless=True)
    store.write_frame(run, 5, image.getvalue())
    live = {"accuracy": 0.33, "std": 0.0, "protocol": "quick", "students": 2, "split": "held-out", "seconds": 1.0}
    store.append(run, [("frame", 5, {"seconds": 1.0}), ("accuracy", 5, {**live, "step": 5})])
    measured = {"mean": accuracy, "std": 0.0, "accuracies": [accuracy], "protocol": "dsa", "network": "convnet"}
    store.add_evaluation(run, {**measured, "split": "test", "seconds": 1.0, "seeds": [0]})
    store.update(run, step=5, seconds=2.0, progress=1.0)
    store.announce(run, "done", "Done.")


def test_a_sweep_is_set_up_priced_and_started_from_a_link(store):
    at = opened(**FORM, over="ipc=1,2;seed=0..2")
    assert "**6 cells**: 2 × 3." in text(at) and "6 runs, one after another: about" in text(at)
    assert at.text_input(key="over_seed").value == "0..2"
    at.text_input(key="over_seed").set_value("0..1").run()
    assert "**4 cells**" in text(at)
    assert at.query_params["over"] in ("ipc=1,2;seed=0..1", ["ipc=1,2;seed=0..1"])
    at.button(key="start-sweep").click().run()
    assert not at.exception
    (kept,) = store.sweeps()
    assert at.query_params["sweep"] in (kept["id"], [kept["id"]])
    assert at.title[0].value == "Digits: images per class × seed"
    runs = store.runs()
    assert sorted((r.spec["ipc"], r.spec["seed"]) for r in runs) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert {(r.status, r.spec["steps"]) for r in runs} == {("queued", 5)}


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("ipc=1,1000", "ipc=1000: Images per class (ipc) was 1000"),
        ("seed=0..99;ipc=1..3", "300 cells (100 × 3); at most 200"),
        ("ipc=one", "must be a whole number"),
        ("method=dm,magic", "magic"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(store, over, says):
    at = opened(**FORM, over=over)
    assert says in text(at) and at.button(key="start-sweep").disabled
    assert store.runs() == [] and store.sweeps() == []


def test_settings_that_are_varied_leave_the_form(store):
    at = opened(**FORM, over="method=dm,dc")
    assert "Method" not in [s.label for s in at.selectbox]
    at.multiselect(key="sweep_fields").set_value(["ipc"]).run()
    assert not at.exception
    assert "Method" in [s.label for s in at.selectbox]
    assert "Images per class" not in [n.label for n in at.number_input]


def test_a_sweep_that_is_going_shows_every_cell_and_can_be_cancelled(store):
    id = sweep.start(store, sweep.make_plan({"steps": 5, "students": 1}, sweep.parse_over(["seed=0..2"])))
    runs = sweep.load(store, id).runs
    finished(store, runs[0].id, 0.5)
    at = opened(sweep=id)
    assert text(at).count("<li>") >= 3 and f"run={runs[0].id}" in text(at)
    assert "33.0 % (quick, held-out)" in text(at) and "waiting" in text(at)
    assert "33.0 %" not in text(opened(sweep=id, reveal="0")) and "50.0 %" not in text(opened(sweep=id, reveal="0"))
    at.selectbox(key="cancel-which").set_value(runs[2].id).run()
    at.button(key="cancel-one").click().run()
    assert [r.status for r in sweep.load(store, id).runs.values()] == ["done", "queued", "stopped"]
    at.button(key="cancel-all").click().run()
    assert [r.status for r in sweep.load(store, id).runs.values()] == ["done", "stopped", "stopped"]
    at.button(key="go-on").click().run()
    assert not at.exception
    assert [r.status for r in sweep.load(store, id).runs.values()] == ["done", "queued", "queued"]


def test_what_came_of_it_names_protocol_and_interval_and_mixes_nothing(store):
    over = sweep.parse_over(["ipc=1,2", "seed=0..2"])
    id = sweep.start(store, sweep.make_plan({"steps": 5, "students": 1}, over))
    for i, run in enumerate(sweep.load(store, id).runs.values()):
        finished(store, run.id, (0.1, 0.2, 0.3, 0.5, 0.6, 0.7)[i])
    at = opened(sweep=id)
    assert "Test accuracy (dsa protocol, ConvNet). Bars: 95 % t interval" in text(at)
    table = at.dataframe[0].value
    assert list(table["Accuracy"]) == ["20.0 %", "60.0 %"] and list(table["Runs"]) == [3, 3]
    assert table["95 % t interval"][0] == "-4.8 % to 44.8 %"
    at.selectbox(key="sweep-measure").set_value("held-out-quick-").run()
    assert list(at.dataframe[0].value["Accuracy"]) == ["33.0 %", "33.0 %"]
    assert "Accuracy while distilling, on held-out training images (quick protocol)" in text(at)
    again = opened(sweep=id, measure="held-out-quick-")
    assert list(again.dataframe[0].value["Accuracy"]) == ["33.0 %", "33.0 %"], "the link says which"


def test_cells_lead_to_their_sweep_and_outlive_it(store):
    id = sweep.start(store, sweep.make_plan({"steps": 5}, sweep.parse_over(["seed=0,1"])), "Two <b>seeds")
    run = sweep.load(store, id).runs[0].id
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).switch_page("pages/distil.py")
    at.query_params["run"] = run
    at.run()
    assert f"/sweep?sweep={id}" in text(at) and "Two &lt;b&gt;seeds" in text(at)
    sweep.cancel(store, id)
    at = opened(sweep=id)
    at.button(key="forget").click().run()
    assert store.sweeps() == [] and store.run(run) is not None and at.title[0].value == "Sweep"


def test_a_sweep_that_is_not_here_is_said_to_be_missing(store):
    at = opened(sweep="sweep-0000000000000000")
    assert "There is no such sweep here" in text(at) and at.title[0].value == "Sweep"


def test_an_interrupted_cell_is_continued_and_not_made_anew(store):
    id = sweep.start(store, sweep.make_plan({"steps": 5, "students": 0}, sweep.parse_over(["seed=0,1"])))
    broken = store.claim(os.getpid())
    store.announce(broken.id, "interrupted", "The worker went away.")
    at = opened(sweep=id)
    at.button(key="go-on").click().run()
    assert not at.exception
    assert sweep.load(store, id).runs[0].id == broken.id and store.run(broken.id).status == "queued"
