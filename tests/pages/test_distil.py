"""The Distil page: its form, its address, and what it shows of a run in every state."""

from __future__ import annotations

import io
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from engine.presets import DEFAULT, PRESETS
from engine.probes.desk import Answer, Desk, write_json
from engine.probes.distilling.specs import FeatureMapSpec
from engine.runs.store import Store
from engine.spec import build_spec
from pages.components.form import from_query, to_query
from tests.exports import runs as exported

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    return Store(tmp_path)


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).switch_page("pages/distil.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception, at.exception[0].value
    return at


def by_label(elements, label: str):
    return next(e for e in elements if e.label == label)


def labels(elements) -> list[str]:
    return [e.label for e in elements]


def a_run(store: Store, status: str = "done", message: str = "Done.", **data) -> str:
    values = {"dataset": "digits", "method": "dm", "ipc": 2, "minutes": 0.5}
    run = store.submit("distill", build_spec("distill", **values), pid=os.getpid())
    layout = {"columns": 10, "rows": 2, "size": 16, "channels": 1, "classes": list("0123456789"), "machine": "CPU"}
    store.append(run, [("layout", 0, layout)])
    image = io.BytesIO()
    Image.new("L", (160, 32)).save(image, "WEBP", lossless=True)
    for step in (0, 10):
        store.write_frame(run, step, image.getvalue())
        metric = {"loss": 1.0, "seconds": step / 10, "rate": 3.0, "eta": 5.0}
        store.append(run, [("frame", step, {"seconds": step / 10}), ("metric", step, metric)])
        measured = {"accuracy": 0.61, "std": 0.01, "protocol": "quick", "students": 2, "split": "held-out"}
        store.append(run, [("accuracy", step, {**measured, "seconds": step / 10, "step": step})])
    reference = {"label": "Random real images", "kind": "random", "accuracy": 0.5, "std": 0.02, "protocol": "quick"}
    store.append(run, [("reference", 0, reference)])
    store.announce(run, status, message, **data)
    return run


# ---- the form and the address ---------------------------------------------------------------------------------------


def test_the_first_visit_offers_the_default_preset_and_starts_nothing(store):
    at = opened()
    assert at.title[0].value == "Distil"
    assert at.selectbox(key="form_preset").value == DEFAULT
    assert by_label(at.selectbox, "Dataset").value == "digits"
    assert "Distil" in labels(at.button)
    assert store.runs() == []


@pytest.mark.parametrize("id", PRESETS)
def test_every_preset_is_a_valid_run_and_survives_the_address(id):
    spec = PRESETS[id].spec
    values, problems = from_query(to_query(spec.flat()))
    assert problems == []
    assert build_spec("distill", **values) == spec
    assert PRESETS[id].sentence()


@pytest.mark.parametrize("id", PRESETS)
def test_every_preset_opens_from_its_link(store, id):
    at = opened(**to_query(PRESETS[id].spec.flat()))
    assert at.selectbox(key="form_preset").value == id


def test_choosing_a_preset_fills_the_form_and_changing_a_field_leaves_it(store):
    at = opened()
    at.selectbox(key="form_preset").set_value("digits-dm-10").run()
    assert by_label(at.selectbox, "Method").value == "dm"
    assert by_label(at.number_input, "Images per class").value == 10
    by_label(at.number_input, "Seed").set_value(7).run()
    assert not at.exception
    assert at.selectbox(key="form_preset").value is None
    assert by_label(at.number_input, "Images per class").value == 10
    assert at.query_params["s"] == ["7"] or at.query_params["s"] == "7"


def test_a_method_brings_its_own_parameters(store):
    at = opened()
    assert "Variant" in labels(at.selectbox)
    by_label(at.selectbox, "Method").set_value("frepo").run()
    assert not at.exception
    assert "Variant" not in labels(at.selectbox)
    assert "Learn the labels" in labels(at.toggle)


def test_a_link_sets_the_form_and_says_what_it_could_not_take(store):
    at = opened(v="1", d="shapes", m="dm", ipc="5", lr="2", i="noise", s="-3", min="abc")
    assert by_label(at.number_input, "Images per class").value == 5
    assert by_label(at.number_input, "Image learning rate").value == 2.0
    assert by_label(at.selectbox, "Initial images").value == "noise"
    said = " ".join(w.value for w in at.warning)
    assert "seed" in said and "from 0" in said
    assert "minutes" in said


@pytest.mark.parametrize("query", [{"m": "magic"}, {"ipc": "1e9"}, {"d": "<b>x</b>"}, {"v": "99"}, {"lr": "nan"}])
def test_nonsense_in_the_address_is_no_accident(store, query):
    opened(**query)


def test_distil_queues_one_run_and_shows_it(store):
    at = opened()
    by_label(at.number_input, "Seed").set_value(3).run()
    at.button(key="distil").click().run()
    assert not at.exception
    runs = store.runs()
    assert len(runs) == 1
    assert runs[0].spec["seed"] == 3 and runs[0].status == "queued"
    assert at.title[0].value == "Digits, 1 per class"
    assert "Stop" in labels(at.button)


def test_what_this_machine_cannot_do_is_refused_before_a_run_exists(store):
    at = opened(v="1", d="folder:/nowhere/at/all", m="dm", ipc="1")
    assert at.button(key="distil").disabled
    at = opened(v="1", d="digits", m="dm", ipc="100", min="1")
    at.button(key="distil").click().run()
    assert not at.exception
    if not store.runs():
        assert at.error[0].value


# ---- a run ----------------------------------------------------------------------------------------------------------


def test_a_finished_run_shows_its_accuracy_with_protocol_and_students(store):
    run = a_run(store)
    found = {"mean": 0.824, "std": 0.006, "accuracies": [0.82, 0.83, 0.822], "protocol": "dc", "network": "convnet"}
    store.add_evaluation(run, {**found, "seconds": 3, "split": "test", "seeds": [0, 1, 2]})
    at = opened(run=run)
    assert at.metric[0].value == "82.4 ± 0.6 %"
    assert any(c.value == "ConvNet, 3 students, dc protocol" for c in at.caption)
    assert "Pause" not in labels(at.button)


def test_a_finished_run_can_be_taken_up_again_as_a_form(store):
    at = opened(run=a_run(store))
    by_label(at.button, "Change the settings").click().run()
    assert not at.exception
    assert at.title[0].value == "Distil"
    assert by_label(at.number_input, "Images per class").value == 2


def test_a_finished_run_offers_its_files_and_makes_none_of_them(store, monkeypatch):
    from engine import exports

    made = []
    monkeypatch.setattr(exports, "story", lambda *_: made.append("something"))
    run = exported.a_run(store)
    at = opened(run=run)
    buttons = {
        b.key.removeprefix("export-").removesuffix(f"-{run}"): b for b in at.download_button if "export" in b.key
    }
    assert set(buttons) == set(exports.EXPORTS)
    assert not any(b.disabled for b in buttons.values()) and made == []
    code = next(c.value for c in at.code if "torch" in c.value)
    assert f"limbeck-{run}.safetensors" in code and "82.0 ± 0.8 % test accuracy (DC protocol" in code


def test_what_a_run_does_not_have_is_not_offered(store):
    run = a_run(store, "failed", "It failed.")
    at = opened(run=run)
    on = {b.key.split("-")[1] for b in at.download_button if "export" in b.key and not b.disabled}
    assert on == {"gif", "webp", "sheet", "html"}, "there are frames, but no set"
    baseline = exported.a_run(store, (0,))
    at = opened(run=baseline)
    off = {b.key.split("-")[1] for b in at.download_button if "export" in b.key and b.disabled}
    assert off == {"gif", "webp"}, "nothing moves"
    at = opened(run=a_run(store, "running", "Distilling."))
    assert not [b for b in at.download_button if "export" in b.key]


def test_every_file_of_the_list_can_be_made(store):
    from engine.exports import EXPORTS, export, missing

    run = exported.a_run(store)
    assert missing(store, run) == {}
    for format in EXPORTS:
        assert len(export(store, run, format)) > 500, format


def test_the_curves_of_a_finished_run_can_be_saved(store):
    at = opened(run=a_run(store))
    keys = [b.key for b in at.download_button]
    assert "csv-accuracy" in keys and "csv-loss" in keys
    at = opened(run=a_run(store, "running", "Distilling."))
    assert "csv-loss" not in [b.key for b in at.download_button], "a curve that grows is not saved"


def test_an_imported_run_is_shown_as_imported(store, tmp_path):
    from engine.exports import export
    from engine.runs.imports import import_zip

    path = tmp_path / "run.zip"
    path.write_bytes(export(store, exported.a_run(store), "run"))
    run, _ = import_zip(store, build_spec("import", path=str(path)), "")
    at = opened(run=run)
    assert at.metric[0].value == "82.0 ± 0.8 %"
    said = " ".join(c.value for c in at.caption)
    assert "Gradient matching, on a CPU; imported, made on" in said and "measured elsewhere" in said
    assert "Change the settings" not in labels(at.button)


@pytest.mark.parametrize(
    "status, button", [("running", "Pause"), ("paused", "Resume"), ("interrupted", "Resume"), ("failed", "Try again")]
)
def test_every_state_offers_what_it_allows(store, status, button):
    at = opened(run=a_run(store, status, "A sentence about it."))
    assert button in labels(at.button)


def test_pausing_reaches_the_store(store):
    run = a_run(store, "running", "Distilling.")
    at = opened(run=run)
    by_label(at.button, "Pause").click().run()
    assert store.pending(run) == ["pause"]


def test_a_diverged_run_offers_half_the_learning_rate(store):
    at = opened(run=a_run(store, "stopped", "The images diverged.", halved={"lr_img": 0.05}))
    by_label(at.button, "Run again with learning rate 0.05").click().run()
    assert not at.exception
    assert store.runs()[0].spec["parameters"]["lr_img"] == 0.05


def test_the_queue_says_how_many_come_first(store):
    for _ in range(2):
        store.submit("distill", build_spec("distill", steps=5))
    run = store.submit("distill", build_spec("distill", steps=5))
    assert store.queue_position(run) == 2
    at = opened(run=run)
    assert "Stop" in labels(at.button)


@pytest.mark.parametrize("run", ["nosuchrun-12345", "../../etc/passwd", "x"])
def test_an_unknown_run_is_said_and_the_form_is_there(store, run):
    at = opened(run=run)
    assert "no such run" in at.error[0].value
    assert at.title[0].value == "Distil"


def test_recent_runs_open(store):
    run = a_run(store)
    (link,) = (e.proto.body for e in opened(reveal="0").get("html") if 'class="thumbnail"' in e.proto.body)
    assert f'<a href="/distil?run={run}&amp;reveal=0"' in link and store.run(run).title in link


# ---- inside a run ---------------------------------------------------------------------------------------------------


def test_the_map_of_feature_space_is_drawn_of_what_the_probe_answered(store):
    run, desk, digits = a_run(store), Desk(store.home), list("0123456789")
    spots = [{"kind": "real", "class": c, "image": i, "step": None, "x": i, "y": 1.0} for i, c in enumerate(digits)]
    spots += [{**spot, "kind": "synthetic", "step": step, "y": step} for spot in spots[:10] for step in (0, 10)]
    facts = {"classes": digits, "network": "a random ConvNet", "share": 0.5}
    folder = desk.root / desk.ask("feature-map", FeatureMapSpec(run=run))
    write_json(folder / "answer.json", asdict(Answer({"points": spots}, facts)))
    at = opened(run=run)
    next(t for t in at.toggle if t.label.startswith("Show where the images lie")).set_value(True).run()
    assert not at.exception and not at.error
    assert any("The plane holds 50 %" in c.value for c in at.caption)
