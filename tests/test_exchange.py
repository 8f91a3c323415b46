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

from engine import exchange
from engine.bundle import export_zip
from engine.data.base import Dataset
from engine.errors import Refused
from engine.exchange import export_pt, import_pt
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
def test_out_and_in_again(tmp_path, data, whitened, soft):
    zca = fit_zca(data.normalise(data.train_images)) if whitened else None
    labels = torch.rand(8, 4) if soft else LABELS
    images = zca.whiten(normal()) if zca else normal()
    ours = SyntheticSet(images, labels, "cifar10", data.classes, data.mean, data.std, zca=zca)
    export_pt(ours, tmp_path / "out.pt")
    theirs = torch.load(tmp_path / "out.pt", weights_only=True)
    assert isinstance(theirs, tuple) and len(theirs) == 2
    back = import_pt(tmp_path / "out.pt", dataset=data)
    assert torch.allclose(back.images, normal(), atol=1e-3) and torch.equal(back.labels, labels)
    assert [p.name for p in tmp_path.iterdir()] == ["out.pt"]


def test_export_where_nothing_can_be_written(tmp_path, data):
    ours = SyntheticSet(normal(), LABELS, "cifar10", data.classes, data.mean, data.std)
    with pytest.raises(Refused, match="cannot be written"):
        export_pt(ours, tmp_path / "missing" / "out.pt")


# ---- what is refused ------------------------------------------------------------------------------------------------


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: (normal(), t), lambda t: {"images": normal(), "labels": t}])
@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_file_is_not_run(tmp_path, data, wrap, new):
    torch.save(wrap(Trap(tmp_path / "sprung")), tmp_path / "evil.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(Refused, match="could run code"):
        import_pt(tmp_path / "evil.pt", dataset=data)
    assert not (tmp_path / "sprung").exists()


def test_code_in_an_npz_is_not_run(tmp_path, data):
    np.savez(tmp_path / "evil.npz", images=np.array([Trap(tmp_path / "sprung")], dtype=object))
    with pytest.raises(Refused, match="plain arrays"):
        import_pt(tmp_path / "evil.npz", dataset=data)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("content", "options", "pattern"),
    [
        ("hello", {}, "holds a str"),
        ({}, {}, "needs “images”"),
        ({"weights": normal()}, {}, "dictionary of weights"),
        ([], {}, "needs images"),
        (normal(), {}, "no labels: give a second file"),
        (normal(), {"per_class": 3}, "3 images of each of 4 classes make 12, not 8"),
        ((normal(), LABELS), {"per_class": 2}, "brings its own labels"),
        ((normal()[0], LABELS), {}, "shaped 3×16×16"),
        ((normal()[:, :1], LABELS), {}, "are 1×16×16, but those of Little CIFAR are 3×16×16"),
        ((normal().permute(0, 2, 3, 1), LABELS), {}, "channels are last"),
        ((normal()[..., :8, :8], LABELS), {}, "are 3×8×8"),
        ((torch.full_like(normal(), torch.nan), LABELS), {}, "not finite"),
        ((torch.zeros(1).expand(20_001, 3, 16, 16), torch.zeros(20_001).long()), {}, "1 to 20,000"),
        ((normal() * 1000, LABELS), {}, "neither pixels in"),
        ((normal(), LABELS), {"space": "unit"}, "no pixels in"),
        ((normal(), LABELS), {"space": "lab"}, "auto, unit or normalised"),
        ((normal(), LABELS[:7]), {}, "8 images, but labels shaped 7"),
        ((normal(), LABELS + 1), {}, "reach from 1 to 4"),
        ((normal(), LABELS - 1), {}, "reach from -1 to 2"),
        ((normal(), LABELS + 0.5), {}, "whole numbers from 0 to 3"),
        ((normal(), torch.rand(8, 3)), {}, "shaped 8×4; these are 8×3"),
        ((normal(), torch.full((8, 4), torch.inf)), {}, "not finite"),
        ((normal().to_sparse(), LABELS), {}, "no dense tensor"),
        ((normal().to(torch.complex64), LABELS), {}, "no dense tensor"),
        ((normal().to("meta"), LABELS), {}, "no dense tensor"),
        ((normal(), LABELS.to("meta")), {}, "labels are no dense tensor"),
        ([[[[[[[[normal()]]]]]]]], {}, "lists in lists"),
        ({"two\nlines": 1}, {}, "dictionary of two"),
    ],
)
def test_what_is_no_set(write, data, content, options, pattern):
    with pytest.raises(Refused, match=pattern) as refusal:
        import_pt(write(content), dataset=data, **options)
    assert "\n" not in str(refusal.value)


def test_a_list_that_holds_itself(write, data):
    for key in (None, "data"):
        loop = []
        loop.append(loop)
        with pytest.raises(Refused, match="lists in lists"):
            import_pt(write({key: loop} if key else loop), dataset=data)


def test_an_npz_that_claims_more_than_it_holds(tmp_path, data):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**7)})
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(Refused, match="set.npz cannot be read"):
        import_pt(tmp_path / "set.npz", dataset=data)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and so on", bytes(1000)])
@pytest.mark.parametrize("name", ["set.pt", "set.npz"])
def test_damaged_files(tmp_path, data, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=name):
        import_pt(tmp_path / name, dataset=data)


def test_sizes_names_and_missing_files(write, tmp_path, data, monkeypatch):
    path = write((normal(), LABELS))
    with pytest.raises(Refused, match="no file none.pt"):
        import_pt(tmp_path / "none.pt", dataset=data)
    with pytest.raises(Refused, match="no file aaaa"):
        import_pt(tmp_path / ("a" * 300 + ".pt"), dataset=data)
    with pytest.raises(Refused, match="neither a .pt nor"):
        import_pt(path.rename(tmp_path / "set.pkl"), dataset=data)
    path = write((normal(), LABELS))
    monkeypatch.setattr(exchange, "MAX_BYTES", 1000)
    with pytest.raises(Refused, match="at most 0 MB"):
        import_pt(path, dataset=data)


def test_a_compressed_file_is_measured_unpacked(tmp_path, data, monkeypatch):
    monkeypatch.setattr(exchange, "MAX_BYTES", 5_000_000)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros(6_000_000, np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 50_000
    with pytest.raises(Refused, match="6 MB; at most 5 MB"):
        import_pt(tmp_path / "bomb.npz", dataset=data)


# ---- the zip to take away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_the_readme_of_a_zip_works(tmp_path, data, whitened, soft):
    """Unpack it somewhere else and run the lines it tells people to run."""
    zca = fit_zca(data.normalise(data.train_images)) if whitened else None
    labels = torch.rand(8, 4) if soft else LABELS
    ours = SyntheticSet(normal(), labels, "cifar10", data.classes, data.mean, data.std, zca=zca)
    content = export_zip(ours.save(tmp_path / "set"))
    assert content == export_zip(tmp_path / "set")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["README.txt", "synthetic.json", "synthetic.safetensors"]
        archive.extractall(tmp_path / "away")
    assert torch.equal(load((tmp_path / "away" / "synthetic.safetensors").read_bytes())["images"], normal())
    assert json.loads((tmp_path / "away" / "synthetic.json").read_text())["classes"] == list("abcd")
    readme = (tmp_path / "away" / "README.txt").read_text()
    code = "\n".join(line[4:] for line in readme.splitlines() if line.startswith("    ")).replace("300", "3")
    here = {"x": normal()}
    was = os.getcwd()
    os.chdir(tmp_path / "away")
    try:
        if whitened:
            code = code.replace("\nflat =", "\nx = given\nflat =")
            here["given"] = normal()
        exec(code, here)
    finally:
        os.chdir(was)
    assert here["net"](here["images"]).shape == (8, 4)
    if whitened:
        assert torch.allclose(here["x"], zca.whiten(normal()), atol=1e-5)


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
    code = "import sys, engine.bundle; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
