import subprocess
import sys

import pytest

from engine.data import load
from engine.data.catalogue import DATASETS, availability, default_dataset
from engine.errors import Refused

MNIST = [f"{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")]


@pytest.fixture
def bare(home, monkeypatch):
    """A machine without any data."""
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    return home


def test_importable_without_torch():
    code = "import sys, engine.data.catalogue; print('torch' in sys.modules or 'sklearn' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_bare_machine_offers_digits_and_shapes(bare):
    assert default_dataset() == "digits"
    assert [name for name in DATASETS if availability(name).ready] == ["digits", "shapes"]
    mnist = availability("mnist")
    assert mnist.how == "download" and "MB" in mnist.sentence


def test_local_mnist_becomes_the_default(bare, tmp_path, monkeypatch):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path / "data"))
    for name in MNIST[:3]:
        (raw / name).touch()
    assert default_dataset() == "digits"  # one file short
    (raw / MNIST[3]).touch()
    assert default_dataset() == "mnist" and availability("mnist").how == "local"


def test_missing_folders_and_unknown_names(bare, tmp_path):
    assert availability(f"folder:{tmp_path}").ready
    assert availability("folder:/no/such/place").how == "missing"
    assert availability("imagenet").how == "missing"
    for name in ("folder:/a\x1b[31m\0\udcff", "b\udcff\n"):
        assert availability(name).sentence.isprintable()
    with pytest.raises(Refused, match="imagenet.*digits, shapes, mnist"):
        load("imagenet")


def test_classes_are_named():
    assert DATASETS["cifar10"].classes[0] == "airplane" and DATASETS["cifar10"].classes[9] == "truck"
    assert {len(info.classes) for info in DATASETS.values()} == {10, 100}
    for info in DATASETS.values():
        assert len(set(info.classes)) == len(info.classes)
