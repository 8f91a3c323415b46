"""Datasets by way of torchvision: from ``LIMBECK_DATA``, from an earlier download, or downloaded now."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import os
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from engine.data.assemble import assemble
from engine.data.base import Dataset
from engine.data.catalogue import CIFAR10_ZIP, DATASETS, Progress, availability, download_folder, locate
from engine.data.folder_check import open_zip, read_member, safe_members
from engine.errors import Refused
from engine.home import aside, cache_folder

Split = tuple[Tensor, Tensor]  # images (N, C, H, W) uint8 and labels (N,)

SOURCES: dict[str, Any] = {
    "mnist": datasets.MNIST,
    "fashion-mnist": datasets.FashionMNIST,
    "kmnist": datasets.KMNIST,
    "usps": datasets.USPS,
    "svhn": datasets.SVHN,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}


def load(name: str, progress: Progress | None = None) -> Dataset:
    """A dataset of ``SOURCES``. Raises ``Refused`` when it is neither here nor to be had, or its files are damaged."""
    if locate(name) is None:
        download(name, progress)
    found = locate(name)
    if found is None:
        raise Refused(f"{DATASETS[name].title} was downloaded, but its files are not what they should be. {_there()}")
    folder, layout = found
    if layout == (CIFAR10_ZIP,):
        return assemble("cifar10", *_cifar10_zip(folder / CIFAR10_ZIP, progress))
    return assemble(name, _read(name, folder, True), _read(name, folder, False))


def _read(name: str, folder: Path, train: bool) -> Split:
    """One split as torchvision reads it: images (N, C, H, W) uint8 and labels.

    The CIFAR archives hold pickles. torchvision unpickles a file only when its MD5 sum is that of the official one
    (a second file with a given MD5 sum cannot be made today), so no other pickle is ever executed.
    """
    split = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
    info = DATASETS[name]
    damaged = Refused(
        f"The files of {info.title} in {folder.name} are damaged or incomplete. Delete them, and they are fetched "
        f"again. {_there()}"
    )
    try:
        source = SOURCES[name](folder, **split)
    except (RuntimeError, ValueError, OSError, EOFError, LookupError, AssertionError):
        raise damaged from None
    images = torch.as_tensor(source.data)
    labels = torch.as_tensor(source.labels if name == "svhn" else source.targets)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    fits = images.shape == (len(labels), info.channels, info.size, info.size) and images.dtype == torch.uint8
    if not fits or not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < len(info.classes):
        raise damaged
    return images, labels


# ---- the zip of CIFAR-10 as JPEGs by class --------------------------------------------------------------------------


def _splits(kept: dict[str, Tensor]) -> tuple[Split, Split]:
    train, test = ((kept[f"{split}.images"], kept[f"{split}.labels"]) for split in ("train", "test"))
    return train, test


def _cifar10_zip(path: Path, progress: Progress | None) -> tuple[Split, Split]:
    """Training and test of ``cifar10-imagefolder.zip``, decoded once and then kept in the cache.

    Images are in the order of class and name, so that an index means the same image on every machine.
    """
    stat = path.stat()
    cache = cache_folder("data") / f"cifar10-{stat.st_size}-{stat.st_mtime_ns}.safetensors"
    splits = ("train", "test")
    with contextlib.suppress(FileNotFoundError, SafetensorError, KeyError):
        return _splits(load_file(cache))
    classes = DATASETS["cifar10"].classes
    with open_zip(path) as archive:
        names: dict[str, list[tuple[int, str]]] = {split: [] for split in splits}
        for _, member in safe_members(archive, path.name):
            parts = member.filename.split("/")
            if len(parts) >= 3 and parts[-3] in names and parts[-2] in classes:
                names[parts[-3]].append((classes.index(parts[-2]), member.filename))
        if any({c for c, _ in found} != set(range(10)) for found in names.values()):
            raise Refused(
                f"{path.name} does not hold CIFAR-10: it needs train/<class>/… and test/<class>/… with the ten classes "
                f"{', '.join(classes)}."
            )
        total, done = sum(map(len, names.values())), 0
        out = {}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for split, found in names.items():
                found.sort()
                shares = [[name for _, name in found[start : start + 500]] for start in range(0, len(found), 500)]
                decoded = []
                # Closing cancels what is left when ``progress`` raises because somebody stopped the run.
                with contextlib.closing(pool.map(lambda part: _decode(archive, part), shares)) as results:  # type: ignore[type-var]
                    for part in results:
                        decoded.append(part)
                        done += len(part)
                        if progress:
                            progress(done / total, "Decoding CIFAR-10.")
                out[f"{split}.images"] = torch.from_numpy(np.concatenate(decoded)).permute(0, 3, 1, 2).contiguous()
                out[f"{split}.labels"] = torch.tensor([c for c, _ in found])
    with aside(cache) as fresh:
        save_file(out, fresh)
    return _splits(out)


def _decode(archive: zipfile.ZipFile, names: list[str]) -> np.ndarray:
    """JPEGs of a zip as (N, 32, 32, 3) uint8. The size in the header is looked at before a pixel is decoded."""
    out = np.empty((len(names), 32, 32, 3), np.uint8)
    for at, name in enumerate(names):
        content = read_member(archive, archive.getinfo(name), CIFAR10_ZIP)
        try:
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
                if image.size != (32, 32):
                    raise Refused(f"{name} in {CIFAR10_ZIP} is {image.width}×{image.height} pixels, not 32×32.")
                out[at] = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            reason = type(error).__name__
            raise Refused(f"{name} in {CIFAR10_ZIP} cannot be read ({reason}); get the file again.") from None
    return out


# ---- downloads ------------------------------------------------------------------------------------------------------


def download(name: str, progress: Progress | None = None) -> None:
    """Fetch a dataset's archives and unpack them into ``LIMBECK_HOME/data``, where ``locate`` finds them.

    The archives are fetched here, with progress and time limits; torchvision then finds them complete, checks their MD5
    sums and unpacks them. All of that happens in a folder aside, and only whole files are moved from there: whatever
    interrupts it leaves no dataset that looks complete and is not. Raises ``Refused`` when it does not work out.
    """
    info, target = DATASETS[name], download_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".incoming-") as stage:
            files = list(_archives(name, Path(stage)))
            for number, (path, urls, md5) in enumerate(files):
                of = f", file {number + 1} of {len(files)}" if len(files) > 1 else ""

                def fetched(part: float, of: str = of) -> None:
                    if progress:
                        progress(part, f"Downloading {info.title}{of}.")

                _fetch_any(urls, path, md5, fetched)
            if progress:
                progress(1.0, f"Unpacking {info.title}.")
            for train in (True, False):
                split = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
                SOURCES[name](stage, download=True, **split)
            _move_files(Path(stage), target, leave={path for path, _, _ in files if path.suffix == ".gz"})
    except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        reason = str(getattr(error, "reason", "") or error).strip()[:120] or type(error).__name__
        needs = " or ".join(", ".join(layout) for layout in info.layouts)
        raise Refused(
            f"{info.title} is not on this machine and could not be downloaded ({reason}). Connect to the internet and "
            f"try again, or put its files ({needs}) into a folder and set LIMBECK_DATA to it. {_there()}"
        ) from None


def _move_files(stage: Path, target: Path, leave: set[Path]) -> None:
    """Move all files under ``stage`` but ``leave`` to the same place under ``target``."""
    for path in sorted(p for p in stage.rglob("*") if p.is_file() and p not in leave):
        place = target / path.relative_to(stage)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)


def _there() -> str:
    """Which datasets can be used instead."""
    return f"Available now: {', '.join(name for name in DATASETS if availability(name).ready)}."


def _archives(name: str, folder: Path) -> Iterator[tuple[Path, list[str], str]]:
    """Where torchvision expects each archive of a dataset, from where it comes, and its MD5 sum."""
    source = SOURCES[name]
    if hasattr(source, "resources"):  # MNIST and its kin
        for file, md5 in source.resources:
            yield folder / source.__name__ / "raw" / file, [f"{mirror}{file}" for mirror in source.mirrors], md5
    elif hasattr(source, "split_list"):  # USPS, SVHN
        for split in ("train", "test"):
            url, file, md5 = source.split_list[split]
            yield folder / file, [url], md5
    else:  # the CIFARs
        yield folder / source.filename, [source.url], source.tgz_md5


def _fetch_any(urls: list[str], path: Path, md5: str, progress: Callable[[float], None]) -> None:
    """Fetch a file from the first address that has it, whole."""
    for last, url in zip(itertools.chain(itertools.repeat(False, len(urls) - 1), (True,)), urls, strict=True):
        try:
            return _fetch(url, path, md5, progress)
        except (OSError, http.client.HTTPException):
            if last:
                raise


def _fetch(url: str, path: Path, md5: str, progress: Callable[[float], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "limbeck"})
    with urllib.request.urlopen(request, timeout=20) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        while block := response.read(1 << 18):
            file.write(block)
            progress(min(file.tell() / total, 1.0) if total else 0.0)
    if not check_integrity(path, md5):
        raise OSError(f"{path.name} arrived damaged")
