"""Synthetic sets to and from the ``.pt`` files of the papers' code, and from ``.npz``.

A file from somebody else is hostile until it has been looked at: ``torch.load`` reads tensors and plain containers
only (``weights_only=True``), and only what names nothing else; NumPy no objects (``allow_pickle=False``); and sizes are
limited before anything is read.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from engine.data.base import Dataset
from engine.data.folder_check import MAX_RATIO, RATIO_FROM, open_zip, read_member
from engine.errors import Refused
from engine.exports.setzip import export_zip
from engine.home import aside
from engine.synthetic import MAX_IMAGES, SyntheticSet

__all__ = ["export_pt", "export_zip", "import_pt"]

MAX_BYTES = 500_000_000
MAX_MEMBERS = 10_000  # of a .pt or .npz, which are zips
MAX_PICKLE = 200_000  # bytes that say how the tensors of a .pt belong together
MAX_DEPTH = 5  # of lists in lists; a list in a file may even hold itself
LABELS_MAX_BYTES = 50_000_000
IMAGE_KEYS = ("images", "image", "x", "data", "syn_images", "image_syn")
LABEL_KEYS = ("labels", "label", "y", "targets", "syn_labels", "label_syn")
LARGEST = 100.0  # of a normalised value: far beyond any image, and far below where float32 gets into trouble
# What a .pt may name. torch's own list is longer: one of its entries fills as much memory as a file of 50 bytes says.
KNOWN = re.compile(
    r"collections OrderedDict|torch (Size|device|bool|[a-z]+\d+\w*|\w+Storage)|torch\.storage UntypedStorage|"
    r"torch\.serialization _get_layout|"
    r"torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|sparse_tensor|meta_tensor_no_storage)"
)
ROUNDING = 0.02  # beyond [0, 1] that images with values in [0, 1] may have

NO_NPZ = "{} cannot be read as an .npz of plain arrays; save numbers, not objects."

Space = Literal["auto", "unit", "normalised"]


def import_pt(
    path: Path,
    *,
    dataset: Dataset,
    labels: Path | None = None,
    per_class: int | None = None,
    space: Space = "auto",
) -> SyntheticSet:
    """A set from a ``.pt`` or ``.npz`` file that stands for ``dataset``.

    Understood are: a tensor (N, C, H, W); a tuple or list (images, labels); a dictionary with images and labels; and
    the DC code's ``{"data": [[images, labels], …]}``, of which the last entry, the last experiment's result, is taken.
    Labels, unless they are there, come from a second file ``labels``, or from ``per_class``: that many images of each
    class, in class order. Hard labels are (N,) whole numbers, soft ones (N, K).

    ``space``: ``unit`` for pixels in [0, 1], ``normalised`` for pixels less the dataset's mean over its standard
    deviation. ``auto`` decides by the values: none below 0 or above 1 means ``unit``. ``provenance`` says which it was.
    Raises ``Refused`` with one sentence when anything is wrong.
    """
    if space not in ("auto", "unit", "normalised"):
        raise Refused(f"The values' space was “{space}”, but must be auto, unit or normalised.")
    images, found = _split(_read(path, MAX_BYTES), path.name)
    images = _check_images(images, dataset, path.name)
    if labels is not None:
        second = _read(labels, LABELS_MAX_BYTES)
        found = second if isinstance(second, Tensor) else _by_key(second, LABEL_KEYS)
        if found is None:
            raise Refused(f"{labels.name} holds no labels: give a tensor of {len(images)} whole numbers.")
    if found is None:
        found = _in_order(len(images), per_class, len(dataset.classes), path.name)
    elif per_class is not None and labels is None:
        raise Refused(f"{path.name} brings its own labels; leave the number of images per class out.")
    classes = _check_labels(found, len(images), dataset)

    low, high = float(images.min()), float(images.max())
    chosen = space
    if space == "auto":
        chosen = "unit" if low >= 0 and high <= 1 else "normalised"
    if chosen == "unit":
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise Refused(
                f"{path.name} holds values from {low:.3g} to {high:.3g}, which are no pixels in [0, 1]; import them as "
                "normalised, or divide pixels in 0 to 255 by 255."
            )
        mean, std = (torch.tensor(t).view(-1, 1, 1) for t in (dataset.mean, dataset.std))
        images = (images.clamp(0, 1) - mean) / std
    elif max(-low, high) > LARGEST:
        raise Refused(
            f"{path.name} holds values from {low:.3g} to {high:.3g}: neither pixels in [0, 1] nor normalised ones. "
            "Divide pixels in 0 to 255 by 255."
        )
    how = "given" if space != "auto" else "recognised by the values"
    return SyntheticSet(
        images=images,
        labels=classes,
        dataset=dataset.name,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        kind="imported",
        protocol="dc",
        provenance={"imported_from": path.name, "space": chosen, "space_was": how, "values": [low, high]},
    )


def export_pt(synthetic: SyntheticSet, path: Path) -> None:
    """Write the tuple (images, labels) that the papers' code trains on, readable with ``weights_only=True``.

    Images (N, C, H, W) float32, normalised by the set's mean and standard deviation; those of a whitened set are
    un-whitened first, those that hold several pictures decoded. Labels as they are. Raises ``Refused`` when the file
    cannot be written.
    """
    synthetic = synthetic.decoded()
    images = synthetic.zca.unwhiten(synthetic.images) if synthetic.zca else synthetic.images
    try:
        with aside(path) as part, part.open("wb") as file:
            torch.save((images.detach().cpu().contiguous().clone(), synthetic.labels.detach().cpu().clone()), file)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else error.__context__  # what stopped torch's writer
        if not isinstance(reason, OSError):
            raise
        raise Refused(f"{path.name} cannot be written ({reason.strerror}); choose another place.") from error


# ---- reading --------------------------------------------------------------------------------------------------------


def _read(path: Path, limit: int) -> Any:
    """What a file holds: tensors and plain containers, nothing that was executed."""
    try:
        there = path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        there = False
    if not there:
        raise Refused(f"There is no file {path.name[:80]}.")
    if path.suffix.lower() not in (".pt", ".pth", ".npz"):
        raise Refused(f"{path.name} is neither a .pt nor an .npz file.")
    if path.suffix.lower() == ".npz":
        return _read_npz(path, limit)
    try:
        packed = _check_pt(path, limit)
        # Of a mapped file a tensor never gets more than there is, whatever it claims.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=packed)
    except Refused:
        raise
    except Exception:  # pickle, zip, storage: many kinds, and none that means anything to a reader
        raise Refused(
            f"{path.name} cannot be read as a .pt of tensors: it is damaged, or holds objects that could run code. "
            "Save a tuple (images, labels) of tensors with torch.save."
        ) from None


def _check_pt(path: Path, limit: int) -> bool:
    """Whether a .pt is a zip, as torch writes them today. Raises ``Refused``, or anything, for what shall not be."""
    with path.open("rb") as file:
        start = io.BytesIO(file.read(MAX_PICKLE))
    _check_size(path, path.stat().st_size, limit)
    if not start.getvalue().startswith(b"PK\3\4"):
        for _ in range(5):  # a magic number, two versions, the content, and the names of what comes behind
            _check_pickle(start)
        return False
    with open_zip(path, MAX_MEMBERS) as archive:
        members = archive.infolist()
        _check_size(path, sum(m.file_size for m in members), limit)
        if min(m.header_offset for m in members) or any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise ValueError  # torch would find other members in it than we do
        for m in members:
            if m.filename.lower().endswith(".pkl"):
                if m.file_size > MAX_PICKLE:
                    raise ValueError
                _check_pickle(io.BytesIO(read_member(archive, m, path.name)))
    return True


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise Refused(f"{path.name} holds {size / 1e6:,.0f} MB; at most {limit // 1_000_000} MB are read.")


def _check_pickle(file: io.BytesIO) -> None:
    """Go through one pickle without doing what it says. Raises what it likes when that names anything unknown."""
    for step, argument, _ in pickletools.genops(file):
        if step.name == "GLOBAL" and not KNOWN.fullmatch(str(argument)):
            raise ValueError(argument)


def _read_npz(path: Path, limit: int) -> dict[str, Tensor]:
    size = path.stat().st_size
    try:
        with open_zip(path, MAX_MEMBERS) as archive:
            members = archive.infolist()
            unpacked = sum(m.file_size for m in members)
            if any(m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for m in members):
                raise ValueError
    except ValueError:  # Refused among them, whose sentence is about zips of images
        raise Refused(NO_NPZ.format(path.name)) from None
    _check_size(path, max(size, unpacked), limit)
    if unpacked > RATIO_FROM and unpacked > MAX_RATIO * size:
        raise Refused(f"{path.name} unpacks to more than {MAX_RATIO} times its size; it is not read.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {str(key): torch.from_numpy(np.ascontiguousarray(arrays[key])) for key in list(arrays)[:10]}
    except Exception:  # zip, header, array, memory: as many kinds, and as little use to a reader
        raise Refused(NO_NPZ.format(path.name)) from None


def _split(content: Any, name: str, depth: int = 0) -> tuple[Tensor, Tensor | None]:
    """Images and, where they are there, labels."""
    if depth > MAX_DEPTH:
        raise Refused(f"{name} holds lists in lists in lists; it needs a tuple (images, labels) of tensors.")
    if isinstance(content, Mapping):
        data = content.get("data")
        if isinstance(data, list | tuple) and data:  # the DC code: one entry per experiment
            return _split(data[-1] if isinstance(data[-1], list | tuple) else data, name, depth + 1)
        images = _by_key(content, IMAGE_KEYS)
        if images is not None:
            return images, _by_key(content, LABEL_KEYS)
        keys = ", ".join(ascii(key).strip("'")[:20] for key in list(content)[:5]) or "nothing"
        raise Refused(f"{name} is a dictionary of {keys}; it needs “images” (and “labels”).")
    if isinstance(content, Tensor):
        return content, None
    if isinstance(content, list | tuple) and len(content) >= 2 and all(isinstance(t, Tensor) for t in content[:2]):
        return content[0], content[1]
    if isinstance(content, list | tuple) and len(content) == 1:
        return (content[0], None) if isinstance(content[0], Tensor) else _split(content[0], name, depth + 1)
    raise Refused(
        f"{name} holds {_kind(content)}; it needs images as a tensor, or a tuple (images, labels) of tensors."
    )


def _by_key(content: Any, keys: tuple[str, ...]) -> Tensor | None:
    if not isinstance(content, Mapping):
        return None
    return next((content[key] for key in keys if isinstance(content.get(key), Tensor)), None)


def _kind(content: Any) -> str:
    return f"a {type(content).__name__}" + (f" of {len(content)} items" if hasattr(content, "__len__") else "")


# ---- checking -------------------------------------------------------------------------------------------------------


def _check_images(images: Tensor, dataset: Dataset, name: str) -> Tensor:
    """Images as float32 (N, C, H, W) of the dataset's channels and size, finite; bytes become pixels in [0, 1]."""
    if not _plain(images) or images.dtype == torch.bool:
        raise Refused(f"The images in {name} are no dense tensor of real numbers.")
    if images.ndim != 4 or not 0 < len(images) <= MAX_IMAGES:
        raise Refused(f"The images in {name} are shaped {_shape(images)}; needed are 1 to {MAX_IMAGES:,} as N×C×H×W.")
    wanted = (dataset.channels, dataset.size, dataset.size)
    if tuple(images.shape[1:]) != wanted:
        hint = (
            " (its channels are last; move them first)" if tuple(images.shape[1:]) == (*wanted[1:], wanted[0]) else ""
        )
        raise Refused(
            f"The images in {name} are {_shape(images[0])}{hint}, but those of {dataset.title} are "
            f"{'×'.join(map(str, wanted))}; choose the dataset that they stand for."
        )
    if images.numel() * 4 > MAX_BYTES:
        size = f"{images.numel() * 4 / 1e6:,.0f} MB"
        raise Refused(f"The images in {name} take {size}; at most {MAX_BYTES // 1_000_000} MB are read.")
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    # A copy: a file may hold a few numbers and claim, by strides, that they are many.
    images = images.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True).div_(scale)
    if not torch.isfinite(images).all():
        raise Refused(f"The images in {name} hold values that are not finite (NaN or infinity).")
    return images


def _plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, real and has values at all, which one on torch's meta device has not."""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)


def _check_labels(labels: Tensor, count: int, dataset: Dataset) -> Tensor:
    """Labels as (N,) int64 or (N, K) float32."""
    classes = len(dataset.classes)
    labels = labels.detach()
    if not _plain(labels):
        raise Refused("The labels are no dense tensor of numbers.")
    if labels.ndim == 2 and labels.shape[1] == 1 and classes > 1:
        labels = labels.squeeze(1)
    if labels.ndim == 2:
        if labels.shape != (count, classes):
            raise Refused(f"Soft labels must be shaped {count}×{classes}; these are {_shape(labels)}.")
        labels = labels.to(torch.float32, copy=True).contiguous()
        if not torch.isfinite(labels).all():
            raise Refused("The soft labels hold values that are not finite (NaN or infinity).")
        return labels
    if labels.ndim != 1 or len(labels) != count:
        raise Refused(f"There are {count} images, but labels shaped {_shape(labels)}; one label per image is needed.")
    whole = labels.to(torch.float64)
    if not torch.isfinite(whole).all() or not bool((whole == whole.round()).all()):
        raise Refused(f"Labels must be whole numbers from 0 to {classes - 1}.")
    if not (0 <= float(whole.min()) and float(whole.max()) < classes):
        raise Refused(
            f"The labels reach from {int(whole.min())} to {int(whole.max())}, but {dataset.title} has classes 0 to "
            f"{classes - 1}."
        )
    return whole.long()


def _in_order(count: int, per_class: int | None, classes: int, name: str) -> Tensor:
    """Labels of images that come class by class."""
    if per_class is None:
        raise Refused(
            f"{name} holds no labels: give a second file with them, or say how many images per class come in class "
            "order."
        )
    if per_class * classes != count:
        raise Refused(f"{per_class} images of each of {classes} classes make {per_class * classes}, not {count}.")
    return torch.arange(classes).repeat_interleave(per_class)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
