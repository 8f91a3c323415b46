"""A set as one .npz or .safetensors: the same set comes back, and nothing that is none."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from engine.errors import Refused
from engine.exports import setfile
from engine.runs.imports import read_set
from engine.runs.validate import needs_dataset
from engine.synthetic import Start, fit_zca
from tests.exports.runs import a_set

MAKE = {".npz": setfile.npz, ".safetensors": setfile.safetensors}


def variants():
    whitened = fit_zca(torch.randn(50, 1, 16, 16))
    start = Start("fixed", "lenet", 8, 3, weights={"head.weight": torch.randn(10, 84)})
    yield "hard", a_set()
    yield "soft", a_set(labels=torch.rand(20, 10), factor=2, provenance={"steps": 3})
    yield "whitened", a_set(zca=whitened)
    yield "steps", a_set(step_sizes=torch.rand(6), turns=2, start=start, protocol="dd")


@pytest.mark.parametrize("suffix", MAKE)
@pytest.mark.parametrize(("what", "ours"), list(variants()))
def test_the_same_set_comes_back(tmp_path, suffix, what, ours):
    path = tmp_path / f"set{suffix}"
    path.write_bytes(MAKE[suffix](ours.save(tmp_path / "saved")))
    assert not needs_dataset(path), "it says itself what it stands for"
    back = read_set(path)
    assert torch.equal(back.images, ours.images) and torch.equal(back.labels, ours.labels)
    for name in ("dataset", "classes", "mean", "std", "kind", "protocol", "turns", "factor", "provenance"):
        assert getattr(back, name) == getattr(ours, name), name
    if ours.zca:
        for part in ("components", "gains", "centre"):
            assert torch.equal(getattr(back.zca, part), getattr(ours.zca, part)), part
        assert back.zca.base == ours.zca.base
        grey = torch.full((1, 1, 16, 16), 90)  # some processors' products differ in the last bit with where tensors lie
        assert torch.allclose(back.prepare(grey), ours.prepare(grey), rtol=1e-5, atol=1e-5)
    if ours.start:
        assert torch.equal(back.start.weights["head.weight"], ours.start.weights["head.weight"])
        assert torch.equal(back.step_sizes, ours.step_sizes)


def test_plain_numpy_and_plain_safetensors_read_them(tmp_path):
    folder = a_set().save(tmp_path / "saved")
    (tmp_path / "set.npz").write_bytes(setfile.npz(folder))
    (tmp_path / "set.safetensors").write_bytes(setfile.safetensors(folder))
    arrays = np.load(tmp_path / "set.npz")  # allow_pickle is off
    assert arrays["images"].shape == (20, 1, 16, 16) and arrays["labels"].tolist() == a_set().labels.tolist()
    assert json.loads(str(arrays["about"]))["classes"] == list("0123456789")
    assert torch.equal(load_file(tmp_path / "set.safetensors")["images"], a_set().images)


def test_making_them_needs_no_torch(tmp_path):
    folder = a_set().save(tmp_path)
    code = f"""
import sys; from pathlib import Path; from engine.exports import setfile
folder = Path({str(folder)!r})
assert setfile.npz(folder)[:2] == b"PK" and len(setfile.safetensors(folder)) > 1000
print('torch' in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_where_there_is_no_set(tmp_path):
    with pytest.raises(Refused, match="no synthetic set"):
        setfile.npz(tmp_path)
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(Refused, match="cannot be read"):
        setfile.safetensors(tmp_path)


class Bomb:
    """What would run code when unpickled: it opens a file."""

    path = ""

    def __reduce__(self):
        return (open, (self.path, "w"))


def hostile(tmp_path):
    Bomb.path = str(tmp_path / "was-here")
    about = json.loads((a_set().save(tmp_path / "good") / "synthetic.json").read_text())
    images, labels = a_set().images.numpy(), a_set().labels.numpy()

    def npz(name, **arrays):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    text = np.array(json.dumps(about))
    yield npz("pickle.npz", images=np.array([Bomb()], object), labels=labels, about=text)
    yield npz("pickled-about.npz", images=images, labels=labels, about=np.array([Bomb()], object))
    yield npz("no-labels.npz", images=images, about=text)
    yield npz("no-json.npz", images=images, labels=labels, about=np.array("{"))
    yield npz("a-number.npz", images=images, labels=labels, about=np.array(7))
    yield npz("deep.npz", images=images, labels=labels, about=np.array("[" * 100_000))
    yield npz("letters.npz", images=np.array(["a"]), labels=labels, about=text)
    yield npz("wrong.npz", images=images, labels=labels + 50, about=text)
    yield npz("nan.npz", images=images * np.nan, labels=labels, about=text)
    yield npz("kind.npz", images=images, labels=labels, about=np.array(json.dumps({**about, "kind": "evil"})))
    for name, metadata in (("none", None), ("other", {"x": "y"}), ("broken", {"about": "{"})):
        save_file({"images": images, "labels": labels}, tmp_path / f"{name}.safetensors", metadata=metadata)
        yield tmp_path / f"{name}.safetensors"
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 100)
    yield tmp_path / "junk.safetensors"
    (tmp_path / "empty.safetensors").write_bytes(b"")
    yield tmp_path / "empty.safetensors"


def test_what_is_no_set_is_refused_with_a_sentence(tmp_path):
    for path in hostile(tmp_path):
        with pytest.raises(Refused) as refusal:
            read_set(path)
        assert str(refusal.value).endswith("."), path.name
    assert not Path(Bomb.path).exists()


def test_what_unpacks_to_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(setfile, "MAX_BYTES", 1_000_000)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros(5_000_000, np.uint8), about=np.array("{}"))
    assert (tmp_path / "bomb.npz").stat().st_size < 50_000
    with pytest.raises(Refused, match="more than a set can"):
        read_set(tmp_path / "bomb.npz")
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("about.npy", b"x" * 2_000_000)
    with pytest.raises(Refused, match="larger than"):
        read_set(tmp_path / "liar.npz")
