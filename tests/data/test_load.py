import bz2
import gzip
import hashlib
import os
import pickle
import struct
import tarfile
import time
import urllib.error
import zipfile
from io import BytesIO

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from engine import data as package
from engine.data import downloads, load
from engine.data.assemble import split_by_class, statistics
from engine.data.catalogue import DATASETS
from engine.errors import Refused

needs_data = pytest.mark.skipif(not os.environ.get("LIMBECK_DATA"), reason="LIMBECK_DATA is not set")


@pytest.fixture(autouse=True)
def nothing_kept(home):
    package._loaded.clear()
    yield
    package._loaded.clear()


def test_digits():
    digits = load("digits")
    assert digits.train_images.shape == (1437, 1, 16, 16) and digits.test_images.shape == (360, 1, 16, 16)
    assert digits.train_images.dtype == torch.uint8 and int(digits.train_images.max()) > 240
    assert int(digits.test_labels.bincount().min()) >= 34
    assert not digits.flips and load("digits") is digits
    normal = digits.normalise(digits.train_images)
    assert abs(float(normal.mean())) < 1e-4 and abs(float(normal.std()) - 1) < 1e-3


def test_held_out_images_are_apart():
    digits = load("digits")
    kept = torch.cat(digits.by_class)
    assert not set(kept.tolist()) & set(digits.held_out.tolist())
    assert len(kept) + len(digits.held_out) == len(digits.train_labels)


def test_statistics_match_a_plain_computation():
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = statistics(images)
    plain = images.double() / 255
    assert torch.allclose(torch.tensor(mean).double(), plain.mean((0, 2, 3)))
    assert torch.allclose(torch.tensor(std).double(), plain.std((0, 2, 3), correction=0))
    assert statistics(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))[1] == (1.0,)


def test_split_keeps_every_class_on_both_sides():
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 10)
    train, test = split_by_class(labels, 0.2, seed=0)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(63))
    assert labels[test].bincount().tolist() == [10, 1, 2]


# ---- MNIST's format, USPS, downloads --------------------------------------------------------------------------------


MNIST_FILE = "train-images-idx3-ubyte"


def write_idx(folder, count=20):
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, n in (("train", count), ("t10k", 10)):
        images = generator.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())


@pytest.fixture
def datadir(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LIMBECK_DATA", str(folder))
    return folder


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_the_format_of_mnist(datadir, name, folder):
    write_idx(datadir / folder / "raw")
    found = load(name)
    assert found.train_images.shape == (20, 1, 28, 28) and found.test_images.shape == (10, 1, 28, 28)
    assert found.train_labels.tolist()[:3] == [0, 1, 2]
    assert (found.mean == (0.1307,)) == (name == "mnist")


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08\x03nothing", b"\xff" * 100, struct.pack(">II", 2049, 20) + b"\x63" * 20]
)
@pytest.mark.parametrize("file", ["images-idx3", "labels-idx1"])
def test_damaged_files_are_said_to_be(datadir, file, content):
    write_idx(datadir / "MNIST" / "raw")
    (datadir / "MNIST" / "raw" / f"train-{file}-ubyte").write_bytes(content)
    with pytest.raises(Refused, match="damaged or incomplete.*Available now: digits, shapes"):
        load("mnist")


def test_usps(datadir):
    generator = np.random.default_rng(0)
    for file, n in (("usps.bz2", 20), ("usps.t.bz2", 10)):
        rows = [
            f"{i % 10 + 1} " + " ".join(f"{j + 1}:{v:.3f}" for j, v in enumerate(generator.uniform(-1, 1, 256)))
            for i in range(n)
        ]
        (datadir / file).write_bytes(bz2.compress("\n".join(rows).encode()))
    usps = load("usps")
    assert usps.train_images.shape == (20, 1, 16, 16) and usps.train_labels.tolist()[:2] == [0, 1]


def test_a_forged_pickle_is_never_opened(datadir, tmp_path):
    folder = datadir / "cifar-10-batches-py"
    folder.mkdir()
    trap = tmp_path / "sprung"
    evil = b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR."
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(evil)
    with pytest.raises(Refused, match="damaged or incomplete"):
        load("cifar10")
    assert not trap.exists()


def test_no_network_says_what_can_be_done(home, monkeypatch):
    monkeypatch.delenv("LIMBECK_DATA", raising=False)

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(Refused, match="no route to host.*LIMBECK_DATA.*Available now: digits, shapes") as refusal:
        load("mnist")
    assert str(home) not in str(refusal.value)
    assert not list(home.rglob(".*"))  # nothing half-fetched is left


def test_download_with_progress(home, monkeypatch, tmp_path):
    """A mirror that serves four small files: fetched, checked, unpacked, loaded; the second time from the disk."""
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    write_idx(tmp_path / "served")
    served = {f"{file.name}.gz": gzip.compress(file.read_bytes()) for file in (tmp_path / "served").iterdir()}
    asked, heard = [], []

    class Response(BytesIO):
        def __init__(self, content):
            super().__init__(content)
            self.headers = {"Content-Length": str(len(content))}

    def urlopen(request, timeout):
        asked.append(request.full_url)
        return Response(served[request.full_url.rsplit("/", 1)[1]])

    sums = [(name, md5(served[name])) for name, _ in downloads.SOURCES["mnist"].resources]
    monkeypatch.setattr(downloads.SOURCES["mnist"], "resources", sums)
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert load("mnist", progress=lambda part, what: heard.append((part, what))).train_images.shape[0] == 20
    assert len(asked) == 4 and any("file 2 of 4" in what for _, what in heard) and max(p for p, _ in heard) == 1.0
    package._loaded.clear()
    load("mnist")
    assert len(asked) == 4


class Served(BytesIO):
    headers = {}


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize(("name", "count"), [("cifar10", 10), ("cifar100", 100)])
def test_the_archives_of_cifar(home, monkeypatch, name, count):
    """An archive in the official layout, whose sums are made the expected ones: fetched, unpacked, read."""
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    source, key = downloads.SOURCES[name], "labels" if name == "cifar10" else "fine_labels"
    packed = BytesIO()
    sums = {}
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:

        def add(file, content):
            content = pickle.dumps(content)
            info = tarfile.TarInfo(f"{source.base_folder}/{file}")
            info.size, sums[file] = len(content), md5(content)
            tar.addfile(info, BytesIO(content))

        pixels = np.zeros((count, 3, 32, 32), np.uint8)
        pixels[:, 2, 5, 9] = 255  # blue, sixth row, tenth column
        for file, _ in source.train_list + source.test_list:
            add(file, {"data": pixels.reshape(count, -1), key: list(range(count))})
        add(source.meta["filename"], {source.meta["key"]: list(DATASETS[name].classes)})
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(source, part, [[file, sums[file]] for file, _ in getattr(source, part)])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": sums[source.meta["filename"]]})
    monkeypatch.setattr(source, "tgz_md5", md5(packed.getvalue()))
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: Served(packed.getvalue()))
    found = load(name)
    assert found.test_images.shape == (count, 3, 32, 32) and found.test_labels.tolist() == list(range(count))
    assert found.test_images[0].nonzero().tolist() == [[2, 5, 9]]
    assert not list(home.rglob("*.gz")) and not list(home.rglob(".incoming*"))


def test_svhn(datadir, monkeypatch):
    lists = {}
    for split, n in (("train", 20), ("test", 10)):
        pixels = np.zeros((32, 32, 3, n), np.uint8)
        pixels[5, 9, 2] = 255
        file = datadir / f"{split}_32x32.mat"
        scipy.io.savemat(file, {"X": pixels, "y": (np.arange(n) % 10 + 1)[:, None]})  # 10 stands for zero
        lists[split] = ["", file.name, md5(file.read_bytes())]
    monkeypatch.setattr(downloads.SOURCES["svhn"], "split_list", lists)
    svhn = load("svhn")
    assert svhn.train_images.shape == (20, 3, 32, 32) and svhn.test_images[0].nonzero().tolist() == [[2, 5, 9]]
    assert svhn.test_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] and not svhn.flips


def test_a_download_that_is_interrupted_leaves_nothing(home, monkeypatch, tmp_path):
    """Killed or stopped while it unpacks, there is no dataset afterwards that only looks complete."""
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    mnist = downloads.SOURCES["mnist"]
    monkeypatch.setattr(mnist, "resources", [])

    def half_done(self):
        write_idx(tmp_path / "half")
        os.makedirs(self.raw_folder)
        (tmp_path / "half" / MNIST_FILE).rename(os.path.join(self.raw_folder, MNIST_FILE))
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "download", half_done)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert not [file for file in home.rglob("*") if file.is_file()]


def test_a_file_that_arrives_damaged_is_refused(home, monkeypatch):
    monkeypatch.delenv("LIMBECK_DATA", raising=False)

    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: Served(b"not what was asked for"))
    with pytest.raises(Refused, match="arrived damaged"):
        load("usps")
    assert not [file for file in home.rglob("*") if file.is_file()]


# ---- the zip of CIFAR-10 --------------------------------------------------------------------------------------------


def cifar_zip(path, per_class=2, top="cifar10/", side=32, classes=DATASETS["cifar10"].classes):
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "test"):
            for name in reversed(classes):
                for i in reversed(range(per_class)):
                    out = BytesIO()
                    pixels = np.full((side, side, 3), generator.integers(0, 256, 3), np.uint8)
                    Image.fromarray(pixels).save(out, "JPEG")
                    archive.writestr(f"{top}{split}/{name}/{i:04}.jpg", out.getvalue())


@pytest.mark.parametrize("top", ["", "cifar10/"])
def test_cifar_zip(datadir, top):
    cifar_zip(datadir / "cifar10-imagefolder.zip", top=top)
    heard = []
    first = load("cifar10", progress=lambda part, what: heard.append(part))
    assert first.train_images.shape == (20, 3, 32, 32) and first.train_labels.tolist() == sorted(list(range(10)) * 2)
    assert heard[-1] == 1.0 and first.flips and first.std == (0.2023, 0.1994, 0.2010)
    package._loaded.clear()
    heard.clear()
    second = load("cifar10", progress=lambda part, what: heard.append(part))
    assert not heard and torch.equal(first.train_images, second.train_images)


@pytest.mark.parametrize("trouble", ["size", "classes", "truncated", "not a zip"])
def test_cifar_zip_that_is_none(datadir, trouble):
    path = datadir / "cifar10-imagefolder.zip"
    cifar_zip(
        path,
        1,
        side=40 if trouble == "size" else 32,
        classes=("cat", "dog") if trouble == "classes" else DATASETS["cifar10"].classes,
    )
    if trouble == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    if trouble == "not a zip":
        path.write_bytes(b"hello")
    with pytest.raises(Refused):
        load("cifar10")


@needs_data
@pytest.mark.skipif(not os.path.exists(f"{os.environ.get('LIMBECK_DATA')}/MNIST"), reason="MNIST is not there")
def test_real_mnist():
    began = time.perf_counter()
    mnist = load("mnist")
    assert time.perf_counter() - began < 30
    assert mnist.train_images.shape == (60_000, 1, 28, 28) and mnist.test_images.shape == (10_000, 1, 28, 28)
    assert mnist.train_labels.tolist()[:5] == [5, 0, 4, 1, 9] and len(mnist.held_out) == 5000
    assert abs(statistics(mnist.train_images)[0][0] - 0.1307) < 1e-3
