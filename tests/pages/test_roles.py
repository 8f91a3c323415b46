"""What viewers of a seminar can do, below the pages and on them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from engine import seminar
from engine.errors import Refused
from engine.probes.distilling.specs import FeatureMapSpec
from engine.runs.store import Store
from engine.spec import build_spec
from pages.components import canvas, roles, shared

ROOT = Path(__file__).parents[2]
KEY = "a-key-for-tests"
QUICK = {"dataset": "digits", "protocol": "quick"}


@pytest.fixture
def viewer(home, monkeypatch) -> Store:
    """Pages are drawn for a viewer called anna; the store as the server has it."""
    monkeypatch.setenv(seminar.VARIABLE, KEY)
    monkeypatch.setattr(roles, "get_script_run_ctx", lambda **_: SimpleNamespace(session_id="anna"))
    monkeypatch.setattr(roles, "_cookie", lambda name: "")
    monkeypatch.setattr(shared, "answerer", lambda: pytest.fail("a viewer started the answerer"))
    return Store(home)


def a_set(store: Store) -> str:
    run = store.submit("distill", build_spec("distill", dataset="digits"), pid=os.getpid())
    (store.folder(run) / "result").mkdir()
    (store.folder(run) / "result" / "synthetic.json").write_text("{}")
    store.announce(run, "done", "Done.")
    return run


def test_who_is_the_presenter(viewer, monkeypatch):
    assert not roles.presenter()
    monkeypatch.setattr(roles, "_cookie", lambda name: seminar.make_token(KEY))
    assert roles.presenter() and type(shared.store()) is Store
    monkeypatch.setattr(roles, "_cookie", lambda name: seminar.make_token("another-key-here"))
    assert not roles.presenter()
    monkeypatch.delenv(seminar.VARIABLE)
    assert roles.presenter(), "without a seminar everybody is"


def test_a_viewer_changes_nothing(viewer):
    run = a_set(viewer)
    waiting = viewer.submit("student", build_spec("student", dataset="digits"))
    executor, store, desk = shared.executor(), shared.store(), shared.desk()
    for kind, values in (
        ("distill", {}), ("baseline", {}), ("evaluate", {"source": run}), ("import", {"path": "x.pt", "per_class": 1}),
        ("soften", {"source": run, "teacher": waiting}), ("rank", {"source": run}),
        ("edit", {"source": run, "edits": "0:mirror"}),
    ):  # fmt: skip
        with pytest.raises(Refused, match="^Only the presenter can start runs"):
            executor.submit(kind, build_spec(kind, **values))
    picture = canvas.Image.new("L", (8, 8))
    attempts = [
        lambda: executor.cancel(waiting), lambda: executor.start(), lambda: executor.shutdown(),
        *(lambda what=what: store.command(waiting, what) for what in ("pause", "resume", "stop")),
        lambda: store.delete(run), lambda: store.rename(run, "mine"), lambda: store.submit("student", None),
        lambda: store.announce(run, "failed", ""), lambda: store.clean_uploads(), lambda: store.update(run, title="x"),
        lambda: store.keep_sweep("s", "s", {}), lambda: store.take_cell("s", 0, run), lambda: store.forget_sweep("s"),
        lambda: desk.ask("feature-map", FeatureMapSpec(run=run)), lambda: desk.cancel("0" * 24), lambda: desk.prune(),
        lambda: canvas.keep(picture, viewer.home),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(Refused, match="^Only the presenter can"):
            attempt()
    assert store.run(run) == viewer.run(run) and store.run(waiting).status == "queued"
    assert not (viewer.home / "uploads").exists() and not list((viewer.home / "probes" / "queue").iterdir())


def test_whatever_the_store_learns_is_closed_to_viewers_until_it_is_opened():
    """A new method that changes something must not be forgotten."""
    refused = {name for name, value in vars(roles.ViewedStore).items() if getattr(value, "__name__", "") == "refuse"}
    opened = {name for name in vars(Store) if not name.startswith("_")} - refused - {"command", "delete", "rename"}
    assert opened == {
        "run", "runs", "viewed", "events", "evaluations", "workers", "folder", "frames", "frame_path", "result_folder",
        "student", "queue_position", "queue_length", "forks", "alike", "sweeps", "cells", "swept", "tensors_path",
    }  # fmt: skip


def test_a_question_that_was_answered_is_read(viewer):
    from engine.probes.desk import Desk

    digest = Desk().ask("feature-map", FeatureMapSpec(run="a-run-of-digits"))
    assert shared.desk().ask("feature-map", FeatureMapSpec(run="a-run-of-digits")) == digest
    with pytest.raises(Refused, match="new questions"):
        shared.desk().ask("feature-map", FeatureMapSpec(run="a-run-of-digits"), again=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"protocol": "dc"}, "Protocol must be quick"),
        ({"network": "resnet18"}, "Network must be convnet or lenet or mlp"),
        ({"style": "adain"}, "style must be original"),
        ({"epsilon": 2.0}, "radius must be 0"),
        ({"epochs": 9999}, "Epochs must be the protocol's own"),
        ({"name": "a rude word"}, "Name must be empty"),
        ({"width": 512}, "width up to 128"),
        ({"dataset": "folder:/etc"}, "built-in"),
        ({"dataset": "mnist"}, "built-in"),
        ({"source": "herding"}, "random ones"),
        ({"source": "/etc/passwd", "dataset": None}, "a run that is here"),
    ],
)
def test_a_student_that_is_not_quick_is_refused(viewer, values, says):
    with pytest.raises(Refused, match=says):
        shared.executor().submit("student", build_spec("student", **{**QUICK, **values}))
    assert viewer.runs() == []


def test_quick_students_are_queued_within_a_budget(viewer, monkeypatch):
    run = a_set(viewer)
    spec = build_spec("student", source=run, protocol="quick")
    mine = shared.executor().submit("student", spec)
    assert viewer.run(mine).viewer == "anna" and viewer.run(mine).dataset == "digits"
    with pytest.raises(Refused, match="One student at a time"):
        shared.executor().submit("student", spec)
    shared.executor().cancel(mine)
    assert viewer.run(mine).status == "stopped", "one's own can be stopped"

    for seed in range(roles.TOGETHER):
        viewer.submit("student", build_spec("student", seed=seed, **QUICK), viewer=f"student {seed}")
    with pytest.raises(Refused, match="wait already"):
        shared.executor().submit("student", spec)
    for other in viewer.viewed(0):
        viewer.update(other.id, started=1000.0)
        viewer.announce(other.id, "done", "")
        viewer.update(other.id, finished=1000.0 + roles.EACH_SECONDS / 2)
    shared.executor().cancel(shared.executor().submit("student", spec))
    for other in viewer.viewed(0)[:1]:
        viewer.update(other.id, started=1000.0, finished=1000.0 + roles.EACH_SECONDS / 2)
    with pytest.raises(Refused, match="2 minutes"):
        shared.executor().submit("student", spec)
    monkeypatch.setattr(roles, "viewer", lambda: "bob")
    shared.executor().submit("student", spec)


# ---- on the pages ---------------------------------------------------------------------------------------------------


def opened(page: str, leads: bool, monkeypatch, **query: str) -> AppTest:
    monkeypatch.setenv(seminar.VARIABLE, KEY)
    monkeypatch.setattr(roles, "_cookie", lambda name: seminar.make_token(KEY) if leads else "")
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).switch_page(f"pages/{page}.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception, at.exception[0].value
    return at


@pytest.mark.parametrize("leads", [True, False])
def test_distil_is_the_presenters(home, monkeypatch, leads):
    at = opened("distil", leads, monkeypatch)
    assert at.button(key="distil").disabled is not leads
    assert at.button(key="distil").help == ("" if leads else "Only the presenter can start runs here.")
    monkeypatch.setattr(roles, "locked", lambda what, **otherwise: otherwise)  # a browser may send what is greyed out
    at.run()
    at.button(key="distil").click().run()
    assert not at.exception
    assert len(Store(home).runs()) == leads
    assert leads or at.error[0].value.startswith("Only the presenter can start runs")


@pytest.mark.parametrize("leads", [True, False])
def test_sweeps_are_the_presenters(home, monkeypatch, leads):
    at = opened("sweep", leads, monkeypatch, over="seed=0,1")
    assert at.button(key="start-sweep").disabled is not leads
    monkeypatch.setattr(roles, "locked", lambda what, **otherwise: otherwise)  # a browser may send what is greyed out
    at.run()
    at.button(key="start-sweep").click().run()
    assert not at.exception
    assert (len(Store(home).runs()), len(Store(home).sweeps())) == ((2, 1) if leads else (0, 0))
    assert leads or at.error[0].value.startswith("Only the presenter can start runs")


@pytest.mark.parametrize("leads", [True, False])
def test_images_are_brought_by_the_presenter(home, monkeypatch, leads):
    at = opened("data", leads, monkeypatch, dataset="folder:/etc")
    assert bool(at.text_input) is leads
    assert leads or at.info[0].value == "Only the presenter can bring images and sets here."


def test_a_viewer_trains_a_quick_student_from_the_form(home, monkeypatch):
    at = opened("students", False, monkeypatch)
    assert any("Viewers can train quick students" in caption.value for caption in at.caption)
    at.button(key="train").click().run()
    (run,) = Store(home).runs()
    assert run.viewer and run.spec["protocol"] == "quick" and not at.error
    at.number_input(key="student_seed").set_value(5).run()
    at.button(key="train").click().run()
    assert at.error[0].value.startswith("One student at a time") and len(Store(home).runs()) == 1


def test_a_viewers_link_cannot_look_for_folders(home, monkeypatch, tmp_path):
    (tmp_path / "private").mkdir()
    at = opened("distil", False, monkeypatch, d=f"folder:{tmp_path / 'private'}", m="dm", ipc="1", v="1")
    said = " ".join(e.value for e in (*at.warning, *at.error, *at.caption))
    assert "private" not in said and at.selectbox(key="form_dataset").value == "digits"


def test_everything_is_allowed_without_a_seminar(home, monkeypatch):
    monkeypatch.delenv(seminar.VARIABLE, raising=False)
    began = time.time()
    id = shared.executor().submit("distill", build_spec("distill"))
    assert Store(home).run(id).viewer == "" and Store(home).viewed(began - 1) == []
