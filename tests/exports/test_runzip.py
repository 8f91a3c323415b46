"""A whole run as a zip: another Limbeck shows the same run, and believes nothing in the zip that it has not checked."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.errors import Refused
from engine.exports import export, runzip
from engine.exports.facts import story
from engine.runs import imports
from engine.runs.film import encode
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from engine.synthetic import load_synthetic
from tests.exports.runs import DIGITS, a_run, a_set, evaluation, pixels
from tests.runs import fakes

LABELS = [[[place % 10, 0.9], [place % 9, -0.1]] for place in range(20)]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "here")


@pytest.fixture
def other(tmp_path, monkeypatch) -> Store:
    """Another machine."""
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "there"))
    fakes.install(monkeypatch)
    return Store(tmp_path / "there")


@pytest.fixture
def packed(store, tmp_path) -> Path:
    id = a_run(store, title="A run of mine", seed=5, evaluations=(evaluation("dc"), evaluation("quick", [0.5])))
    store.write_beside(id, "mean.webp", encode(pixels(3, 2, 16, 1)))
    store.write_beside(id, "nearest.webp", encode(pixels(4, 2, 16, 1)))
    store.write_beside(id, "cells.json", json.dumps({"labels": LABELS, "nearest": [0] * 20}).encode())
    path = tmp_path / "run.zip"
    path.write_bytes(export(store, id, "run"))
    return path


def parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, members: dict[str, bytes | str], around: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(around + name, content)
    return path


def imported(other: Store, path: Path, title: str = "") -> str:
    return imports.import_zip(other, build_spec("import", path=str(path)), title)[0]


# ---- there and back -------------------------------------------------------------------------------------------------


def test_another_machine_shows_the_same_run_as_imported(store, other, packed):
    (mine,) = store.runs()
    id = imported(other, packed)
    run = other.run(id)
    assert id != mine.id and (run.kind, run.status, run.title) == ("import", "done", "A run of mine, imported")
    assert (run.dataset, run.step, run.seconds) == ("digits", 20, 10.0) and "2 evaluations" in run.message
    assert other.frames(id) == store.frames(mine.id) == [0, 1, 5, 20]
    for step in other.frames(id):
        images = [Image.open(where.frame_path(run, step)) for where, run in ((store, mine.id), (other, id))]
        assert (np.asarray(images[0]) == np.asarray(images[1])).all(), "pixel for pixel"
    for kind in ("layout", "frame", "metric", "accuracy", "reference"):
        here, there = (
            [(e.step, e.data) for e in where.events(run, kinds=(kind,))]
            for where, run in ((store, mine.id), (other, id))
        )
        assert here == there and here, kind
    images = [Image.open(where.beside(run, "mean.webp")) for where, run in ((store, mine.id), (other, id))]
    assert (np.asarray(images[0]) == np.asarray(images[1])).all()
    assert json.loads(other.beside(id, "cells.json").read_bytes()) == {"labels": LABELS}
    assert other.beside(id, "nearest.webp") is None, "real images stay where they are"
    found = other.evaluations([id])
    assert [(e["protocol"], e["accuracies"]) for e in found] == [("dc", [0.81, 0.83, 0.82]), ("quick", [0.5])]
    assert all(e["imported"] is True and e["run"] == id for e in found)
    result = load_synthetic(other.result_folder(id))
    assert torch.equal(result.images, a_set().images) and result.kind == "imported"
    assert result.provenance["imported_from"] == "run.zip" and (other.result_folder(id) / "papers.pt").exists()
    told = story(other, id)
    assert told.kind == "distill" and told.spec["seed"] == 5 and told.what == story(store, mine.id).what


def test_an_imported_run_can_be_exported_in_every_way_and_once_more(other, packed, tmp_path):
    id = imported(other, packed)
    assert b"imported from another Limbeck" in export(other, id, "html")
    for format in ("gif", "webp", "sheet", "zip", "npz", "safetensors", "pt"):
        assert export(other, id, format)
    again = tmp_path / "again.zip"
    again.write_bytes(export(other, id, "run"))
    second = imported(other, again)
    assert story(other, second).spec == story(other, id).spec and other.run(second).title == "A run of mine, imported"
    assert len(other.evaluations([second])) == 2


def test_a_baseline_and_an_imported_set_travel_too(store, other, tmp_path):
    for number, (kind, values) in enumerate((("baseline", {"kind": "kmeans"}), ("import", {"path": "x.pt"}))):
        id = store.submit(kind, build_spec(kind, dataset="digits", **values), pid=os.getpid())
        imports.publish(store, id, a_set(), "a CPU")
        store.announce(id, "done", "Done.")
        path = tmp_path / f"{number}.zip"
        path.write_bytes(export(store, id, "run"))
        there = imported(other, path)
        assert other.frames(there) == [0] and story(other, there).kind == kind
        assert export(other, there, "html")


def test_a_folder_around_everything_and_strange_neighbours_do_not_matter(other, packed, tmp_path):
    members = {f"my run/{name}": content for name, content in parts(packed).items()}
    strange = {
        "../../escape.txt": b"x",
        "__MACOSX/my run/._run.json": b"x",
        "my run/frames/../../../up.webp": b"x",
        "my run/evil.py": b"x",
    }
    id = imported(other, zipped(tmp_path / "around.zip", {**members, **strange}))
    assert other.run(id).status == "done"
    assert (
        not list(tmp_path.rglob("escape.txt"))
        and not list(tmp_path.rglob("up.webp"))
        and not list(tmp_path.rglob("evil.py"))
    )


def test_an_upload_becomes_a_run_and_is_removed(other, packed):
    folder = other.home / "uploads" / "0123456789abcdef"
    folder.mkdir(parents=True)
    path = packed.rename(folder / "run.zip")
    id = other.submit("import", build_spec("import", path=str(path)), title="run, imported")
    run_job(other, other.claim(os.getpid()))
    run = other.run(id)
    assert (run.status, run.title, run.dataset) == ("done", "A run of mine, imported", "digits")
    assert other.frames(id) == [0, 1, 5, 20] and not folder.exists()


def test_a_run_without_a_result_is_not_exported(store):
    id = store.submit("distill", build_spec("distill", steps=3), pid=os.getpid())
    with pytest.raises(Refused, match="no result"):
        export(store, id, "run")


def test_a_set_alone_is_still_a_set(store, tmp_path, other):
    path = tmp_path / "set.zip"
    path.write_bytes(export(store, a_run(store), "zip"))
    assert not runzip.is_run(path) and torch.equal(imports.read_set(path).images, a_set().images)


# ---- hostile --------------------------------------------------------------------------------------------------------


def webp(size=(160, 32), mode="L", **options) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 7).save(out, "WEBP", lossless=True, **options)
    return out.getvalue()


def png() -> bytes:
    out = io.BytesIO()
    Image.new("L", (160, 32)).save(out, "PNG")
    return out.getvalue()


def changed(name: str, **values):
    """Replace values of a part that is an object."""
    return lambda members: {**members, name: json.dumps({**json.loads(members[name]), **values})}


def event(at: int, **values):
    """Replace values of one event's data, or of the event itself."""

    def act(members):
        events = json.loads(members["events.json"])
        for key, value in values.items():
            if key in ("kind", "step", "data"):
                events[at][key] = value
            else:
                events[at]["data"][key] = value
        return {**members, "events.json": json.dumps(events)}

    return act


def accuracy(**values):
    def act(members):
        first, *rest = json.loads(members["evaluations.json"])
        return {**members, "evaluations.json": json.dumps([{**first, **values}, *rest])}

    return act


def put(name: str, content: bytes | str | None):
    def act(members):
        members = {k: v for k, v in members.items() if k != name}
        return members if content is None else {**members, name: content}

    return act


def labels(*first):
    return put("beside/cells.json", json.dumps({"labels": [list(first), *LABELS[1:]]}))


LAYOUT, FRAME, METRIC = 0, 1, 2  # where these events are in the list
FIRST = "frames/000000.webp"
HOSTILE = {
    "no run.json": (put("run.json", None), "run.json is missing"),
    "no events": (put("events.json", None), "events.json is missing"),
    "no tensors": (put("result/synthetic.safetensors", None), "safetensors is missing"),
    "not json": (put("run.json", "{"), "not JSON"),
    "not text": (put("run.json", b"\xff\xfe\x00"), "not JSON"),
    "nan": (put("run.json", '{"limbeck_run": NaN}'), "not JSON"),
    "deep": (put("events.json", "[" * 200_000), "not JSON|not a list"),
    "a list": (put("run.json", "[]"), "run.json"),
    "another format": (changed("run.json", limbeck_run=2), "limbeck_run"),
    "an unknown field": (changed("run.json", extra=1), "extra"),
    "an unknown kind": (changed("run.json", kind="student"), "kind"),
    "a number for a title": (changed("run.json", title=7), "title"),
    "a title of two lines": (changed("run.json", title="a\nb"), "title"),
    "a title that turns around": (changed("run.json", title="a\u202eb"), "title"),
    "a long title": (changed("run.json", title="a" * 201), "title"),
    "a step below zero": (changed("run.json", step=-1), "step"),
    "a step that is a text": (changed("run.json", step="5"), "step"),
    "no number of seconds": (changed("run.json", seconds=True), "seconds"),
    "endless seconds": (changed("run.json", seconds=1e300), "seconds"),
    "an unknown dataset": (changed("run.json", dataset="nonesuch"), "two datasets"),
    "an unknown method": (
        lambda m: changed("run.json", spec={**json.loads(m["run.json"])["spec"], "method": "evil"})(m),
        "settings",
    ),
    "a setting out of range": (
        lambda m: changed("run.json", spec={**json.loads(m["run.json"])["spec"], "ipc": 10**9})(m),
        "settings",
    ),
    "events that are none": (put("events.json", "{}"), "not a list"),
    "an event of another kind": (event(FRAME, kind="status"), "event 2"),
    "an event without data": (event(FRAME, data=None), "event 2"),
    "an event at no step": (event(FRAME, step=1.5), "event 2"),
    "a layout without room": (event(LAYOUT, columns=0), "columns"),
    "a layout too large": (event(LAYOUT, size=10**6), "size"),
    "a layout of other classes": (event(LAYOUT, classes=["a"]), "class of every column"),
    "a class that is no text": (event(LAYOUT, classes=[1] * 10), "classes"),
    "another class": (event(LAYOUT, classes=[*"012345678", "x"]), "not that of its run"),
    "two layouts": (
        event(
            FRAME, kind="layout", data={"columns": 10, "rows": 2, "size": 16, "channels": 1, "classes": list(DIGITS)}
        ),
        "one layout|layout",
    ),
    "other colours": (event(LAYOUT, channels=3), "colours"),
    "a loss that is a text": (event(METRIC, loss="<script>"), "loss"),
    "a measure with a strange name": (event(METRIC, **{"<b>": 1.0}), "event 3"),
    "a metric at no time": (event(METRIC, data={"loss": 1.0}), "after how many seconds"),
    "an accuracy above one": (event(3, accuracy=1.5), "accuracy"),
    "an unknown protocol": (event(3, protocol="evil"), "protocol"),
    "a reference of another kind": (
        event(-1, kind="reference", data={"label": "x", "kind": "distilled", "accuracy": 0.5}),
        "kind",
    ),
    "evaluations that are none": (put("evaluations.json", "7"), "not a list"),
    "an accuracy of nobody": (accuracy(accuracies=[]), "accuracies"),
    "an impossible accuracy": (accuracy(accuracies=[2.0]), "accuracies"),
    "a network that is markup": (accuracy(network="<img>"), "network"),
    "a split that is none": (accuracy(split="train"), "split"),
    "seeds too many": (accuracy(seeds=[1]), "a seed for each"),
    "a frame too few": (put(FIRST, None), "events speak of"),
    "a frame too many": (put("frames/000099.webp", webp()), "events speak of"),
    "a picture of another size": (put(FIRST, webp((160, 33))), "one picture of 160×32"),
    "an enormous picture": (put(FIRST, webp((16_000, 16_000))), "one picture|no WebP"),
    "a moving picture": (put(FIRST, webp(save_all=True, append_images=[Image.new("L", (160, 32), 90)])), "one picture"),
    "a PNG": (put(FIRST, png()), "no WebP"),
    "markup": (put(FIRST, b"<svg onload=alert(1)>"), "no WebP"),
    "half a picture": (put(FIRST, webp()[:30]), "no WebP"),
    "a mean of another size": (put("beside/mean.webp", webp((160, 33))), "one picture of 160×32"),
    "a mean that is markup": (put("beside/mean.webp", b"<svg/>"), "no WebP"),
    "cells that are none": (put("beside/cells.json", "[]"), "cells.json"),
    "cells with more": (put("beside/cells.json", '{"labels": [], "nearest": [0]}'), "nearest"),
    "labels of other cells": (put("beside/cells.json", '{"labels": [[[0, 1.0]]]}'), "other cells"),
    "a label of another class": (labels([10, 1.0]), "other cells or classes"),
    "a label below all classes": (labels([-1, 1.0]), "labels"),
    "a label that is a text": (labels([0, "<b>"]), "labels"),
    "a label that is true": (labels([True, 1.0]), "labels"),
    "a label of one number": (labels([0]), "labels"),
    "a label without end": (labels(*[[0, 1.0]] * 11), "labels"),
    "another set": (put("result/synthetic.json", "{}"), "cannot be read"),
    "no tensors but junk": (put("result/synthetic.safetensors", b"junk"), "cannot be read"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_not_as_it_should_be_is_refused_and_leaves_nothing(other, packed, tmp_path, what):
    act, words = HOSTILE[what]
    path = zipped(tmp_path / "bad.zip", act(parts(packed)))
    with pytest.raises(Refused, match=words) as refusal:
        imported(other, path)
    said = str(refusal.value)
    assert said.endswith(".") and len(said) < 400 and "Traceback" not in said and said.isprintable()
    assert other.runs() == [] and not list((other.home / "runs").iterdir())
    assert not list(Path(tmp_path).rglob("frames/000099.webp"))


def test_a_bad_upload_fails_with_a_sentence_and_leaves_no_pictures(other, packed):
    folder = other.home / "uploads" / "0123456789abcdef"
    folder.mkdir(parents=True)
    zipped(folder / "run.zip", put(FIRST, b"x")(parts(packed)))
    id = other.submit("import", build_spec("import", path=str(folder / "run.zip")))
    run_job(other, other.claim(os.getpid()))
    run = other.run(id)
    assert run.status == "failed" and "no WebP" in run.message
    assert other.frames(id) == [] and other.result_folder(id) is None and not folder.exists()
    assert [e.kind for e in other.events(id) if e.kind != "status"] == []


@pytest.mark.parametrize("name", ["run.json", "events.json", FIRST, "result/synthetic.json"])
def test_a_part_that_unpacks_to_too_much_is_refused(other, packed, tmp_path, monkeypatch, name):
    monkeypatch.setattr(runzip, "JSON_LIMITS", dict.fromkeys(runzip.JSON_LIMITS, 20_000))
    monkeypatch.setattr(runzip, "SET_LIMITS", {**runzip.SET_LIMITS, "synthetic.json": 20_000})
    path = zipped(tmp_path / "bomb.zip", put(name, b" " * 5_000_000)(parts(packed)))
    assert path.stat().st_size < 100_000
    with pytest.raises(Refused, match="unpacks to more"):
        imported(other, path)


def test_a_zip_that_is_none_or_locked_or_double_is_refused(other, packed, tmp_path):
    (tmp_path / "none.zip").write_bytes(b"PK\3\4 not really")
    assert not runzip.is_run(tmp_path / "none.zip") and not runzip.is_run(tmp_path / "nowhere.zip")
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("run.json", "{}")
    with pytest.raises(Refused, match="twice"):
        imported(other, packed)
    content = bytearray(
        zipped(
            tmp_path / "locked.zip",
            {
                "run.json": "{}",
                **{
                    k: b""
                    for k in (
                        "events.json",
                        "evaluations.json",
                        "result/synthetic.json",
                        "result/synthetic.safetensors",
                    )
                },
            },
        ).read_bytes()
    )
    at = content.find(b"PK\1\2")
    content[at + 8] |= 1  # says that its first member is encrypted
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(Refused, match="encrypted"):
        imported(other, tmp_path / "locked.zip")


def test_settings_of_an_older_version_get_the_defaults_of_this_one(other, packed, tmp_path):
    old = changed("run.json", spec={"dataset": "digits", "method": "dc", "ipc": 2, "steps": 20})(parts(packed))
    told = story(other, imported(other, zipped(tmp_path / "old.zip", old)))
    assert told.spec["parameters"]["lr_img"] == 0.1 and told.spec["network"] == "convnet" and told.spec["steps"] == 20


def test_only_the_pixels_of_a_picture_are_kept(other, packed, tmp_path):
    noisy = webp(exif=b"Exif\0\0secret") + b"trailing <script>"
    id = imported(other, zipped(tmp_path / "noisy.zip", put(FIRST, noisy)(parts(packed))))
    kept = other.frame_path(id, 0).read_bytes()
    assert (
        b"secret" not in kept and b"script" not in kept and Image.open(io.BytesIO(kept)).getpixel((3, 3)) == (7, 7, 7)
    )


def test_means_are_those_of_the_accuracies_whatever_the_file_says(other, packed, tmp_path):
    id = imported(other, zipped(tmp_path / "boast.zip", accuracy(mean=0.99, std=0.0)(parts(packed))))
    first = other.evaluations([id])[0]
    assert first["mean"] == pytest.approx(0.82) and first["std"] > 0.005
