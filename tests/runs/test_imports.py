"""Sets from files: what is read, and what is refused."""

import json
import os
import zipfile

import pytest
import torch

from engine.errors import Refused
from engine.runs.imports import read_set
from engine.runs.store import Store
from engine.runs.worker import run_job
from engine.spec import build_spec
from tests.runs import fakes


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_HOME", str(tmp_path / "home"))
    fakes.install(monkeypatch)
    return Store(tmp_path / "home")


@pytest.fixture
def saved(tmp_path):
    return fakes.make_set(torch.randn(20, 1, 28, 28)).save(tmp_path / "saved")


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_read_whatever_folder_its_files_are_in(saved, tmp_path):
    members = {f"some/folder/{p.name}": p.read_bytes() for p in saved.iterdir()}
    path = zipped(tmp_path / "set.zip", {**members, "../../escape.txt": "x", "notes.txt": "x"})
    assert torch.equal(read_set(path).images, read_set(saved).images)
    assert not (tmp_path.parent / "escape.txt").exists()


def test_bad_files_are_refused_with_a_sentence(saved, tmp_path, monkeypatch):
    tensors = (saved / "synthetic.safetensors").read_bytes()
    meta = (saved / "synthetic.json").read_text()
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 not really")
    half = json.dumps({**json.loads(meta), "classes": ["only one"]})
    bad = {
        "no zip": tmp_path / "broken.zip",
        "a part missing": zipped(tmp_path / "a.zip", {"synthetic.json": meta}),
        "no safetensors": zipped(tmp_path / "b.zip", {"synthetic.json": meta, "synthetic.safetensors": b"junk"}),
        "no json": zipped(tmp_path / "c.zip", {"synthetic.json": "{", "synthetic.safetensors": tensors}),
        "labels out of range": zipped(tmp_path / "d.zip", {"synthetic.json": half, "synthetic.safetensors": tensors}),
        "another type": tmp_path / "picture.png",
        "nothing": tmp_path / "nothing.zip",
    }
    (tmp_path / "picture.png").write_bytes(b"x")
    for what, path in bad.items():
        with pytest.raises(Refused) as refusal:
            read_set(path)
        assert str(refusal.value).endswith(".") and "Traceback" not in str(refusal.value), what


def test_a_zip_that_unpacks_to_too_much_is_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.runs.imports.PARTS", {"synthetic.json": 10**6, "synthetic.safetensors": 10**6})
    members = {"synthetic.json": (saved / "synthetic.json").read_bytes(), "synthetic.safetensors": b"\0" * (3 * 10**6)}
    with pytest.raises(Refused, match="unpacks to more than"):
        read_set(zipped(tmp_path / "bomb.zip", members))


def test_an_upload_becomes_a_finished_run_and_is_removed(store, saved):
    folder = store.home / "uploads" / "0123456789abcdef"
    folder.mkdir(parents=True)
    path = zipped(folder / "set.zip", {p.name: p.read_bytes() for p in saved.iterdir()})
    id = store.submit("import", build_spec("import", path=str(path), dataset="digits"), title="mine")
    run_job(store, store.claim(os.getpid()))
    run = store.run(id)
    assert (run.status, run.title, run.dataset) == ("done", "mine", "digits") and "20 images" in run.message
    assert store.frames(id) == [0] and store.result_folder(id)
    assert not folder.exists() and saved.exists()


def test_a_bad_upload_fails_with_a_sentence_and_is_removed(store):
    folder = store.home / "uploads" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "set.zip").write_bytes(b"x")
    id = store.submit("import", build_spec("import", path=str(folder / "set.zip"), dataset="digits"))
    run_job(store, store.claim(os.getpid()))
    assert store.run(id).status == "failed" and "not a zip" in store.run(id).message
    assert not folder.exists()


def test_a_set_of_an_unknown_dataset_is_refused(store, saved):
    meta = json.loads((saved / "synthetic.json").read_text())
    (saved / "synthetic.json").write_text(json.dumps({**meta, "dataset": "nonesuch"}))
    id = store.submit("import", build_spec("import", path=str(saved), dataset="digits"))
    run_job(store, store.claim(os.getpid()))
    assert store.run(id).status == "failed" and "nonesuch" in store.run(id).message


def test_a_pt_is_read_with_its_dataset(store, tmp_path):
    path = tmp_path / "theirs.pt"
    torch.save(torch.rand(20, 1, 28, 28), path)
    spec = build_spec("import", path=str(path), dataset="digits", per_class=2, space="unit")
    id = store.submit("import", spec)
    run_job(store, store.claim(os.getpid()))
    assert store.run(id).status == "done", store.run(id).message
    result = read_set(store.result_folder(id))
    assert result.kind == "imported" and result.labels.tolist() == [c for c in range(10) for _ in range(2)]
    assert (store.result_folder(id) / "papers.pt").exists()


def test_a_file_that_is_not_an_upload_is_never_removed(store, saved):
    store.submit("import", build_spec("import", path=str(saved), dataset="digits"))
    run_job(store, store.claim(os.getpid()))
    assert (saved / "synthetic.json").exists()
