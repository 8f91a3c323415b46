"""The gallery: zips that come with the program become runs once, and a bad one breaks nothing."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import gallery
from engine.exports import EXPORTS, export
from engine.exports.facts import story
from engine.runs import imports
from engine.runs.store import Store
from engine.spec import build_spec
from tests.exports.runs import a_run, evaluation

ROOT = Path(__file__).parents[1]
ID = "gallery-digits-dc-2"


@pytest.fixture
def elsewhere(tmp_path) -> Store:
    """Where the runs of the gallery were made."""
    return Store(tmp_path / "elsewhere")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIMBECK_GALLERY", str(tmp_path / "gallery"))
    (tmp_path / "gallery").mkdir()
    return tmp_path / "gallery"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "home")


def put(elsewhere: Store, folder: Path, id: str = ID, **values) -> str:
    """Make a run and put it into the gallery; its id there."""
    run = a_run(elsewhere, **values)
    (folder / f"{id}.zip").write_bytes(export(elsewhere, run, "run"))
    return run


# ---- taken in -------------------------------------------------------------------------------------------------------


def test_a_zip_becomes_the_run_that_it_was(elsewhere, folder, store):
    made = elsewhere.run(put(elsewhere, folder, title="Ten digits", seed=7))
    assert gallery.take_in(store) == [ID]
    run = store.run(ID)
    assert (run.kind, run.status, run.title, run.dataset) == ("distill", "done", "Ten digits, gallery", "digits")
    assert (run.step, run.seconds, run.spec["seed"], run.progress) == (20, 10.0, 7, 1.0) and run.gallery
    assert run.created == made.finished, "it is as old as it is, so that one's own runs are newer"
    assert store.frames(ID) == [0, 1, 5, 20]
    for step in store.frames(ID):
        here, there = (Image.open(where.frame_path(id, step)) for where, id in ((store, ID), (elsewhere, made.id)))
        assert (np.asarray(here) == np.asarray(there)).all()
    for kind in ("layout", "frame", "metric", "accuracy", "reference"):
        here, there = (
            [(e.step, e.data) for e in where.events(id, kinds=(kind,))]
            for where, id in ((store, ID), (elsewhere, made.id))
        )
        assert here == there and here, kind
    (found,) = store.evaluations([ID])
    assert found["accuracies"] == [0.81, 0.83, 0.82] and found["imported"] is True
    told = story(store, ID)
    assert told.what == "Gradient matching on Digits, 2 images per class" and told.machine == "a CPU"
    assert json.loads((store.folder(ID) / "spec.json").read_text())["seed"] == 7
    assert [path.name for path in (store.home / "runs").iterdir()] == [ID], "nothing is left over"


def test_every_file_can_be_made_of_it_once_a_worker_has_seen_it(elsewhere, folder, store):
    put(elsewhere, folder)
    gallery.take_in(store)
    imports.complete(store)
    for format in EXPORTS:
        assert export(store, ID, format), format
    before = (store.result_folder(ID) / "papers.pt").stat().st_mtime_ns
    imports.complete(store)
    assert (store.result_folder(ID) / "papers.pt").stat().st_mtime_ns == before


def test_it_is_taken_in_once_and_stays_deleted_until_the_zip_changes(elsewhere, folder, store):
    put(elsewhere, folder)
    assert gallery.take_in(store) == [ID] and gallery.take_in(store) == []
    events = len(store.events(ID))
    store.delete(ID)
    assert gallery.take_in(store) == [] and store.run(ID) is None and store.frames(ID) == []
    put(elsewhere, folder, steps=(0, 30))
    assert gallery.take_in(store) == [ID]
    assert store.frames(ID) == [0, 30] and 0 < len(store.events(ID)) < events


def test_a_changed_zip_replaces_its_run_unless_somebody_has_worked_with_it(elsewhere, folder, store):
    put(elsewhere, folder)
    gallery.take_in(store)
    put(elsewhere, folder, steps=(0, 30))
    assert gallery.take_in(store) == [ID] and store.frames(ID) == [0, 30]
    student = store.submit("student", build_spec("student", source=ID), pid=os.getpid())
    put(elsewhere, folder, steps=(0, 40))
    assert gallery.take_in(store) == [] and store.frames(ID) == [0, 30], "a student was trained on it"
    store.announce(student, "done", "Done.")
    store.delete(student)
    store.add_evaluation(ID, evaluation("quick", [0.5]))
    assert gallery.take_in(store) == [] and store.frames(ID) == [0, 30], "it was evaluated here"
    assert len(store.evaluations([ID])) == 2
    store.delete(ID)
    assert gallery.take_in(store) == [ID] and store.frames(ID) == [0, 40]


def test_servers_that_start_at_once_make_one_run(elsewhere, folder, store, monkeypatch):
    put(elsewhere, folder)
    together, made, read = threading.Barrier(4), [], gallery.read_run

    def wait(*found):
        carried = read(*found)
        together.wait(20)  # each of them has found the run missing, and read the zip
        return carried

    def serve() -> None:
        made.extend(gallery.take_in(Store(store.home)))

    monkeypatch.setattr(gallery, "read_run", wait)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [ID] and len(store.runs()) == 1
    assert len(store.events(ID, kinds=("layout",))) == 1 and len(store.evaluations([ID])) == 1
    assert [path.name for path in (store.home / "runs").iterdir()] == [ID]


def test_the_server_needs_no_torch_for_it(elsewhere, folder, store):
    put(elsewhere, folder)
    code = (
        "import sys; from engine import gallery; from engine.runs.store import Store\n"
        f"assert gallery.take_in(Store()) == ['{ID}']; assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "LIMBECK_HOME": str(store.home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


# ---- left out -------------------------------------------------------------------------------------------------------


def rewritten(path: Path, part: str, change) -> None:
    """Change a JSON member of a zip."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[part] = json.dumps(change(json.loads(members[part])))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


BROKEN = {
    "no zip": (lambda path: path.write_bytes(b"PK but no more"), "not a zip"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-2000]), "not a zip"),
    "another set": (
        lambda path: rewritten(path, "result/synthetic.json", lambda meta: {**meta, "dataset": "mnist"}),
        "not that of its run",
    ),
    "somebody's folder": (
        lambda path: rewritten(
            path,
            "run.json",
            lambda a: {**a, "dataset": "folder:/cats", "spec": {**a["spec"], "dataset": "folder:/cats"}},
        ),
        "images in a folder",
    ),
    "an import": (
        lambda path: rewritten(path, "run.json", lambda about: {**about, "kind": "import", "spec": {}}),
        "neither distilled nor selected",
    ),
    "an old name": (lambda path: path.rename(path.with_name("Mnist 1.zip")), "is not named gallery-"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_zip_is_left_out_with_a_sentence_and_the_others_are_not(elsewhere, folder, store, caplog, case):
    damage, says = BROKEN[case]
    put(elsewhere, folder, "gallery-a")
    put(elsewhere, folder, "gallery-z")
    damage(folder / "gallery-a.zip")
    with caplog.at_level(logging.WARNING, "limbeck.gallery"):
        assert gallery.take_in(store) == ["gallery-z"]
    (said,) = caplog.messages
    assert says in said and said.endswith(".") and "Traceback" not in caplog.text
    assert [run.id for run in store.runs()] == ["gallery-z"]
    assert [path.name for path in (store.home / "runs").iterdir()] == ["gallery-z"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), sqlite3.OperationalError("readonly database")]
)
def test_a_home_that_takes_nothing_is_told_in_a_sentence(elsewhere, folder, store, caplog, monkeypatch, error):
    put(elsewhere, folder)
    put(elsewhere, folder, "gallery-other")

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store, "install", refuse)
    with caplog.at_level(logging.WARNING, "limbeck.gallery"):
        assert gallery.take_in(store) == []
    (said,) = caplog.messages
    assert "cannot be kept" in said and ("space" in said or "readonly" in said)
    assert store.runs() == [] and list((store.home / "runs").iterdir()) == []


def test_what_fails_at_the_last_moment_leaves_the_run_that_was_there(elsewhere, folder, store, monkeypatch):
    put(elsewhere, folder)
    gallery.take_in(store)
    put(elsewhere, folder, steps=(0, 30))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(13, "Permission denied")))
    assert gallery.take_in(store) == []
    monkeypatch.undo()
    assert store.frames(ID) == [0, 1, 5, 20] and [e.step for e in store.events(ID, kinds=("frame",))] == [0, 1, 5, 20]


# ---- shown ----------------------------------------------------------------------------------------------------------


def test_runs_with_a_card_come_first_and_others_under_their_own_title(elsewhere, folder, store):
    second, first = list(gallery.CARDS)[1::-1]
    for id in ("gallery-a", second, first):
        put(elsewhere, folder, id, title="Of their own")
    gallery.take_in(store)
    runs = gallery.shown(store)
    assert [run.id for run in runs] == [first, second, "gallery-a"]
    assert [gallery.card(run).title for run in runs] == [
        gallery.CARDS[first].title,
        gallery.CARDS[second].title,
        "Of their own",
    ]
    (folder / "gallery-a.zip").unlink()
    assert [run.id for run in gallery.shown(store)] == [first, second]


@pytest.mark.parametrize("path", sorted(gallery.HERE.glob("*.zip")), ids=lambda path: path.stem)
def test_what_comes_with_the_program_can_be_taken_in(path, monkeypatch, tmp_path, store):
    monkeypatch.setenv("LIMBECK_GALLERY", str(tmp_path))
    (tmp_path / path.name).write_bytes(path.read_bytes())
    assert gallery.take_in(store) == [path.stem]
    assert path.stem in gallery.CARDS, "it says what there is to see"
    assert story(store, path.stem).headline, "its accuracy was measured"
    assert store.beside(path.stem, "mean.webp"), "the player can show the difference from the real images' means"
    assert store.beside(path.stem, "nearest.webp") is None, "no image of a dataset is given away"
    told = json.loads(store.beside(path.stem, "cells.json").read_bytes())
    assert ("labels" in told) == ("frepo" in path.stem)
    imports.complete(store)
    assert (store.result_folder(path.stem) / "papers.pt").is_file()
