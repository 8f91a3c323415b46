"""The gallery page: what its tiles say, where their links lead, and what it offers where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from engine import gallery
from engine.exports import export
from engine.runs.store import Store
from engine.spec import RunSpec
from pages.components import tiles
from tests.exports.runs import a_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LIMBECK_GALLERY", str(tmp_path / "gallery"))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    (tmp_path / "gallery").mkdir()
    return Store(tmp_path / "home")


@pytest.fixture
def some(store, tmp_path) -> list[str]:
    """A gallery of one run of built-in data and one of data that is not here."""
    made = Store(tmp_path / "made")
    runs = {
        "gallery-digits-dc-2": a_run(made, title="Digits, two each", seed=4, lr_img=0.25),
        "gallery-mnist-dm-1": a_run(made, ipc=1, evaluations=(), dataset="mnist", method="dm", result=None),
    }
    for id, run in runs.items():
        content = export(made, run, "run")
        (tmp_path / "gallery" / f"{id}.zip").write_bytes(content)
    rename(tmp_path / "gallery" / "gallery-mnist-dm-1.zip", "digits", "mnist")
    assert set(gallery.take_in(store)) == set(runs)
    return list(runs)


def rename(path: Path, old: str, new: str) -> None:
    """The set in a zip stands for another dataset."""
    from tests.test_gallery import rewritten

    rewritten(path, "result/synthetic.json", lambda meta: {**meta, "dataset": new})


def opened(page: str = "", **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    if page:
        at.switch_page(f"pages/{page}.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception, at.exception[0].value
    return at


def shown(monkeypatch) -> dict[str, dict]:
    """What the page hands to the browser, by run."""
    seen = {}

    def mount(*, key, data):
        seen.update({tile["id"]: tile for tile in json.loads(json.dumps(data))["tiles"]})

    monkeypatch.setattr(tiles, "_mount", mount)
    return seen


def follow(tile: dict, to: str) -> AppTest:
    """Open what a link of a tile leads to."""
    address = urlsplit(next(link["href"] for link in tile["links"] if link["to"] == to))
    return opened(address.path.removeprefix("/"), **dict(parse_qsl(address.query)))


# ---- tiles ----------------------------------------------------------------------------------------------------------


def test_a_tile_says_what_a_number_needs_to_be_believed(store, some, monkeypatch):
    seen = shown(monkeypatch)
    assert opened().title[0].value == "Gallery"
    tile = seen["gallery-digits-dc-2"]
    assert tile["title"] == "Digits, two each" and tile["number"] == "82.0 ± 0.8 %"
    assert tile["measured"] == "test accuracy, DC protocol, ConvNet, 3 students"
    assert tile["facts"] == ["Digits, gradient matching, 2 per class", "10 s of distilling, a CPU"]
    assert tile["layout"] == {"columns": 10, "rows": 2, "size": 16}
    assert [step for step, _ in tile["frames"]] == [0, 1, 5, 20]
    events = {event.step: event.id for event in store.events("gallery-digits-dc-2", kinds=("frame",))}
    assert all(events[step] == event for step, event in tile["frames"]), "a frame made anew has another address"
    assert "Gradient matching on Digits" in tile["alt"] and "0, 1, 2" in tile["alt"]
    other = seen["gallery-mnist-dm-1"]
    assert (other["number"], other["measured"]) == ("", "Not evaluated.")


def test_a_long_film_is_shown_by_a_few_frames_from_the_first_to_the_last(store, tmp_path, monkeypatch):
    made = Store(tmp_path / "made")
    path = tmp_path / "gallery" / "gallery-long.zip"
    path.write_bytes(export(made, a_run(made, tuple(range(50))), "run"))
    gallery.take_in(store)
    seen = shown(monkeypatch)
    opened()
    steps = [step for step, _ in seen["gallery-long"]["frames"]]
    assert len(steps) == tiles.MANY and (steps[0], steps[-1]) == (0, 49)
    monkeypatch.setattr(tiles, "BYTES", 100)
    opened()
    steps = [step for step, _ in seen["gallery-long"]["frames"]]
    assert len(steps) == tiles.FEW and (steps[0], steps[-1]) == (0, 49)


def test_the_links_of_a_tile_lead_to_the_run_a_student_and_the_form(store, some, monkeypatch):
    seen = shown(monkeypatch)
    opened()
    tile = seen[some[0]]
    at = follow(tile, "Open")
    assert any("from the gallery, made on" in c.value for c in at.caption) and at.metric[0].value == "82.0 ± 0.8 %"
    assert "Change the settings" in [b.label for b in at.button]
    at = follow(tile, "What if …")
    assert at.title[0].value == "Distil"
    assert at.session_state.form == RunSpec.model_validate(store.run(some[0]).spec).flat() and not at.warning
    at = follow(tile, "Train a student")
    assert at.title[0].value == "Students" and at.selectbox(key="student_source").value == some[0]
    assert len(store.runs()) == 2, "nothing is started"


# ---- around them ----------------------------------------------------------------------------------------------------


def offered(at: AppTest) -> str:
    """The runs that are offered where others need a download."""
    return next((e.proto.body for e in at.get("html") if "Without a network" in e.proto.body), "")


def test_what_is_not_on_this_machine_is_said_and_what_needs_nothing_offered(store, some):
    at = opened()
    assert "MNIST is not on this machine" in " ".join(c.value for c in at.caption)
    assert "/students?src=gallery-digits-dc-2" in offered(at) and "mnist" not in offered(at)
    at = opened("students", src="gallery-mnist-dm-1")
    assert at.selectbox(key="student_source").value == "gallery-mnist-dm-1"
    said = " ".join(c.value for c in at.caption)
    assert "MNIST is not on this machine; it is downloaded at first use (12 MB)" in said
    assert "/students?src=gallery-digits-dc-2" in offered(at)
    assert not offered(opened("students", src="gallery-digits-dc-2"))


def test_an_empty_gallery_still_shows_a_way_on(store):
    at = opened()
    assert at.title[0].value == "Gallery" and "Distil the digits now" in [b.label for b in at.button]
    at.button(key="start").click().run()
    assert not at.exception
    (run,) = store.runs()
    assert (run.status, run.dataset) == ("queued", "digits") and at.title[0].value == "Digits, 1 per class"


def test_runs_of_the_gallery_do_not_crowd_ones_own(store, some):
    own = a_run(store, title="My own")
    assert store.runs()[0].id == own, "the gallery's are older"
    compare = opened("compare", dataset="digits")
    assert compare.multiselect(key="compare_runs").value == [own]
    assert len(compare.multiselect(key="compare_runs").options) == 2, "but they can be chosen"
    store.delete(own)
    assert opened("compare", dataset="digits").multiselect(key="compare_runs").value == [some[0]]
    assert "Recent runs" not in [s.value for s in opened().subheader]


def test_distil_replays_the_run_most_like_what_its_form_shows(store, some, monkeypatch):
    from pages.components import player

    seen = []
    monkeypatch.setattr(player, "_mount", lambda *, data, **_: seen.extend(run["id"] for run in data["runs"]))
    opened("distil", v="1", d="mnist", m="dm", ipc="1")
    opened("distil", v="1", d="digits", m="dc", ipc="1")
    own = a_run(store, ipc=2)
    opened("distil", v="1", d="digits", m="dc", ipc="2")
    assert seen == ["gallery-mnist-dm-1", "gallery-digits-dc-2", own]


def test_a_run_is_compared_with_the_one_whose_settings_it_may_have_changed(store, some):
    links = opened("distil", run=a_run(store, ipc=1)).get("page_link")
    (query,) = (link.proto.query_string for link in links if link.proto.label == "Compare")
    assert query.endswith("gallery-digits-dc-2") and "mnist" not in query
    links = opened("distil", run="gallery-digits-dc-2").get("page_link")
    (query,) = (link.proto.query_string for link in links if link.proto.label == "Compare")
    assert query.count("gallery-digits-dc-2") == 1
