import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load

from engine.data import load as load_data
from engine.data.base import Dataset
from engine.errors import Refused
from engine.exchange import export_pt, import_pt
from engine.exports.setzip import export_zip
from engine.synthetic import SyntheticSet, fit_zca


@pytest.fixture(scope="module")
def data() -> Dataset:
    images = torch.randint(0, 256, (40, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    labels = torch.arange(40) % 4
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    return Dataset("cifar10", "Little CIFAR", tuple("abcd"), images, labels, images[:8], labels[:8], mean, std)


@pytest.fixture
def write(tmp_path):
    def save(content, name="set.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def unit(n=8):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def normal(n=8):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


LABELS = torch.arange(4).repeat_interleave(2)


# ---- what is understood ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        (normal(), LABELS),
        [normal(), LABELS],
        {"images": normal(), "labels": LABELS},
        {"x": normal(), "y": LABELS.int()},
        {"data": [[unit(), LABELS.flip(0)], [normal(), LABELS]], "accs_all_exps": {"ConvNet": [0.5]}},
        {"data": [normal(), LABELS]},
        (normal(), LABELS.float()),
        (normal().double(), LABELS),
        (normal().requires_grad_(), LABELS),
    ],
)
def test_layouts(write, data, content):
    found = import_pt(write(content), dataset=data)
    assert torch.allclose(found.images, normal()) and torch.equal(found.labels, LABELS)
    assert found.kind == "imported" and found.classes == data.classes and found.mean == data.mean
    assert not found.images.requires_grad and found.provenance["imported_from"] == "set.pt"


def test_labels_from_a_second_file_or_by_order(write, data):
    path = write(normal())
    assert torch.equal(import_pt(path, dataset=data, labels=write(LABELS, "labels.pt")).labels, LABELS)
    assert torch.equal(import_pt(path, dataset=data, per_class=2).labels, LABELS)
    soft = torch.rand(8, 4)
    assert torch.equal(import_pt(path, dataset=data, labels=write({"labels": soft}, "soft.pt")).labels, soft)


def test_values_in_zero_to_one_are_normalised(write, data):
    found = import_pt(write((unit(), LABELS)), dataset=data)
    assert found.provenance["space"] == "unit" and torch.allclose(found.pixels(), unit(), atol=1e-6)
    found = import_pt(write(((unit() * 255).byte(), LABELS)), dataset=data)
    assert found.provenance["space"] == "unit" and torch.allclose(found.pixels(), unit(), atol=1 / 255)
    found = import_pt(write((normal(), LABELS)), dataset=data)
    assert found.provenance["space"] == "normalised" and torch.equal(found.images, normal())
    found = import_pt(write((unit(), LABELS)), dataset=data, space="normalised")
    assert torch.equal(found.images, unit())


def test_npz(tmp_path, data):
    np.savez(tmp_path / "set.npz", images=normal().numpy(), labels=LABELS.numpy())
    assert torch.equal(import_pt(tmp_path / "set.npz", dataset=data).images, normal())


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_the_readme_of_a_zip_works(tmp_path, whitened, soft):
    """Unpack it somewhere else and run the lines it tells people to run."""
    digits = load_data("digits")
    images, hard = digits.normalise(digits.train_images[:30]), digits.train_labels[:30]
    zca = fit_zca(digits.normalise(digits.train_images)) if whitened else None
    images, labels = zca.whiten(images) if zca else images, torch.rand(30, 10) if soft else hard
    ours = SyntheticSet(images, labels, "digits", digits.classes, digits.mean, digits.std, protocol="quick", zca=zca)
    content = export_zip(ours.save(tmp_path / "set"))
    assert content == export_zip(tmp_path / "set")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["README.txt", "synthetic.json", "synthetic.safetensors"]
        archive.extractall(tmp_path / "away")
    assert torch.equal(load((tmp_path / "away" / "synthetic.safetensors").read_bytes())["images"], images)
    assert json.loads((tmp_path / "away" / "synthetic.json").read_text())["classes"] == list(digits.classes)
    readme = (tmp_path / "away" / "README.txt").read_text()
    assert ("whitened" in readme) == whitened and "30 images that stand for Digits" in readme
    code = "\n".join(line[4:] for line in readme.splitlines() if line.startswith("    "))
    here, was = {}, os.getcwd()
    os.chdir(tmp_path / "away")
    try:
        exec(code, here)
    finally:
        os.chdir(was)
    assert here["net"](here["x"][:3]).shape == (3, 10) and torch.equal(here["images"], images)
    assert torch.allclose(here["x"], ours.prepare(digits.test_images), atol=1e-4)


def test_a_zip_brings_the_file_for_the_papers_code(tmp_path, data):
    ours = SyntheticSet(normal(), LABELS, "cifar10", data.classes, data.mean, data.std)
    export_pt(ours, ours.save(tmp_path) / "papers.pt")
    with zipfile.ZipFile(io.BytesIO(export_zip(tmp_path))) as archive:
        images, labels = torch.load(io.BytesIO(archive.read("papers.pt")), weights_only=True)
        assert "papers.pt" in archive.read("README.txt").decode()
    assert torch.equal(images, normal()) and torch.equal(labels, LABELS)


def test_a_zip_of_nothing(tmp_path):
    with pytest.raises(Refused, match="no synthetic set to download"):
        export_zip(tmp_path)
    (tmp_path / "synthetic.json").write_text("{}")
    (tmp_path / "synthetic.safetensors").write_bytes(b"broken")
    with pytest.raises(Refused, match="cannot be read"):
        export_zip(tmp_path)
    for header in (b"[]", b'{"labels": {"shape": [2]}}', b'{"labels": {"shape": [2]}, "images": {"shape": []}}'):
        (tmp_path / "synthetic.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(Refused, match="cannot be read"):
            export_zip(tmp_path)


def test_zipping_needs_no_torch():
    code = "import sys, engine.exports.setzip; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
