"""The thing in the middle: a small set of images with everything that is needed to train on it.

Every distiller, baseline and import makes a ``SyntheticSet``; every student, probe, export and gallery card reads one.
On disk it is a folder with ``synthetic.safetensors`` (tensors) and ``synthetic.json`` (the rest): readable without
this program, and never a pickle.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.data.folder_check import printable
from engine.errors import Refused
from engine.formation import compose, decode
from engine.home import aside
from engine.spec import PROTOCOLS

FORMAT = 1
MAX_IMAGES = 20_000
MAX_SIDE = 256
MAX_CLASSES = 1000
MAX_STEPS = 1000
MAX_JSON = 5_000_000  # bytes of the file beside the tensors
MAX_LEVELS = 50  # of objects in objects in it
FACTORS = (1, 2, 3)
KINDS = ("distilled", "random", "selected", "summarised", "imported")
INITIALS = ("fixed", "random", "fixed-pretrained", "random-pretrained")


@dataclass(frozen=True, eq=False)
class ZCA:
    """Regularised ZCA whitening of normalised images, W = a I + U diag(b) U^T, and its exact inverse.

    ``components`` U (D, k) float32 holds the leading eigenvectors of the covariance, ``gains`` b (k,); the smaller
    eigenvalues are replaced by their mean, which the regulariser dwarfs, so that W is stored in D·k numbers, not D².
    ``centre`` (D,) is subtracted first.
    """

    components: Tensor
    gains: Tensor
    base: float
    centre: Tensor

    def fits(self, values: int) -> bool:
        """Whether it whitens images of so many values, and its inverse exists."""
        parts = (self.components, self.gains, self.centre)
        shapes = [tuple(part.shape) for part in parts]
        shaped = shapes == [(values, self.gains.numel()), (self.gains.numel(),), (values,)]
        sound = all(part.dtype == torch.float32 and bool(torch.isfinite(part).all()) for part in parts)
        return shaped and sound and 0 < self.base < math.inf and bool((self.base + self.gains > 0).all())

    def whiten(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) into whitened space, same shape."""
        flat = images.flatten(1) - self.centre.to(images)
        return self._apply(flat, self.gains.to(images), self.base).view(images.shape)

    def unwhiten(self, images: Tensor) -> Tensor:
        """The exact inverse of ``whiten``."""
        gains = (1 / (self.base + self.gains) - 1 / self.base).to(images)
        flat = self._apply(images.flatten(1), gains, 1 / self.base) + self.centre.to(images)
        return flat.view(images.shape)

    def _apply(self, flat: Tensor, gains: Tensor, base: float) -> Tensor:
        basis = self.components.to(flat)
        return base * flat + (flat @ basis * gains) @ basis.T


def fit_zca(images: Tensor, ratio: float = 0.1, rank: int = 512) -> ZCA:
    """Fit ZCA whitening to normalised images (N, C, H, W).

    The regulariser is ``ratio`` times the mean eigenvalue of the covariance, so that it means the same for every
    dataset; 0.1 in FRePo's code (Zhou et al. 2022). ``rank`` bounds the components kept; beyond it, and where the
    images have more than 2·``rank`` values, the leading ones come from a randomised decomposition, which takes a tenth
    of the time.
    """
    flat = images.flatten(1)
    centre = flat.mean(0)
    flat = flat - centre
    covariance = flat.T @ flat / len(flat)
    size = len(covariance)
    if size > 2 * rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vectors, values, _ = torch.svd_lowrank(covariance, q=rank, niter=2)
    else:
        values, vectors = torch.linalg.eigh(covariance.double())
        values, vectors = values.clamp_min(0).flip(0)[:rank].float(), vectors.flip(1)[:, :rank].float()
    trace = covariance.diagonal().sum()
    epsilon = ratio * trace / size
    tail = (trace - values.sum()).clamp_min(0) / max(size - len(values), 1)
    base = float((tail + epsilon).rsqrt())
    return ZCA(vectors.contiguous(), (values + epsilon).rsqrt() - base, base, centre)


@dataclass(frozen=True, eq=False)
class Start:
    """The initial network, or the kind of them, that a set's learned steps begin at.

    ``initial``: one of ``INITIALS``. ``network``, ``width`` and ``depth`` as ``make_network`` takes them. Pre-trained
    networks have learned the dataset ``source`` for ``source_steps`` steps. ``weights``, by parameter, of the kinds
    that are fixed: such a set is worth something from these very weights only.
    """

    initial: str
    network: str
    width: int
    depth: int
    source: str = ""
    source_steps: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = ((self.width, 1, 512), (self.depth, 1, 5), (self.source_steps, 0, 100_000))
        inside = all(type(n) is int and low <= n <= high for n, low, high in limits)
        if self.initial not in INITIALS or not inside or not _is_text(self.network) or not isinstance(self.source, str):
            raise Refused("The synthetic set does not say properly which initial network it was made for.")
        if self.fixed != bool(self.weights) or not all(bool(torch.isfinite(w).all()) for w in self.weights.values()):
            raise Refused("The synthetic set needs the finite weights of the initial network that it was made for.")

    @property
    def fixed(self) -> bool:
        """Whether it is one network, with the same weights each time."""
        return self.initial.startswith("fixed")


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """Images with labels, and what is needed to train on them.

    Shapes: ``images`` (N, C, H, W) float32 in the space students see (normalised by ``mean``/``std``, then whitened
    where ``zca`` is set); ``labels`` (N,) int64 for hard labels, or (N, K) float32 for soft ones, which need not sum
    to one; ``step_sizes`` (T,) float32 where the set was distilled for T steps of plain gradient descent, which begin
    at ``start`` and take the images in ``turns``: step t sees the images n with n = t modulo ``turns``.

    With a ``factor`` of 2 or 3 each image is a grid of so many times so many smaller ones, all with its label;
    ``decoded`` is the set that students train on (see ``engine.formation``).

    ``dataset``: id of the dataset it stands for. ``kind``: one of ``KINDS``. ``protocol``: the protocol it was made
    for. ``provenance``: free-form JSON (spec, steps, seconds, versions, source file).
    """

    images: Tensor
    labels: Tensor
    dataset: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: str = "distilled"
    protocol: str = "dc"
    zca: ZCA | None = None
    step_sizes: Tensor | None = None
    turns: int = 1
    start: Start | None = None
    factor: int = 1
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, k = len(self.images), len(self.classes)
        if self.images.ndim != 4 or self.images.dtype != torch.float32 or not 0 < n <= MAX_IMAGES:
            raise Refused(f"A synthetic set needs 1 to {MAX_IMAGES} float32 images shaped N×C×H×W.")
        channels, height, width = self.images.shape[1:]
        if channels not in (1, 3) or height != width or not 1 <= height <= MAX_SIDE:
            raise Refused(
                f"The images of a synthetic set are square, at most {MAX_SIDE} pixels wide, and grey or of three "
                f"channels; these are {channels}×{height}×{width}."
            )
        if not 1 <= k <= MAX_CLASSES:
            raise Refused(f"A synthetic set stands for 1 to {MAX_CLASSES:,} classes, not {k:,}.")
        if not torch.isfinite(self.images).all() or not torch.isfinite(self.labels).all():
            raise Refused("The synthetic set holds values that are not finite (NaN or infinity).")
        hard = self.labels.ndim == 1 and self.labels.dtype == torch.int64 and len(self.labels) == n
        soft = self.labels.dtype == torch.float32 and self.labels.shape == (n, k)
        if not hard and not soft:
            raise Refused(f"Labels must be {n} whole numbers, or float32 of shape {n}×{k}.")
        if hard and not (0 <= int(self.labels.min()) and int(self.labels.max()) < k):
            raise Refused(f"Hard labels must lie between 0 and {k - 1}.")
        numbers = (*self.mean, *self.std)
        if {len(self.mean), len(self.std)} != {channels} or min(self.std) <= 0 or not all(map(math.isfinite, numbers)):
            raise Refused("Mean and standard deviation need one number per channel, the latter above zero.")
        sizes = self.step_sizes
        if sizes is not None:
            shaped = sizes.dtype == torch.float32 and sizes.ndim == 1 and 0 < len(sizes) <= MAX_STEPS
            if not shaped or not bool(torch.isfinite(sizes).all()):
                raise Refused(f"Step sizes must be 1 to {MAX_STEPS} finite float32 numbers.")
        if type(self.turns) is not int or self.turns < 1 or n % self.turns:
            raise Refused(f"The images cannot be taken in {self.turns} turns: {n} is no multiple of that.")
        if type(self.factor) is not int or self.factor not in FACTORS or n * self.factor**2 > MAX_IMAGES:
            raise Refused(f"The images of a set hold 1, 4 or 9 smaller ones each, at most {MAX_IMAGES:,} in all.")
        if self.factor > 1 and (self.step_sizes is not None or height < 8):
            raise Refused("Only square images of at least 8 pixels, without step sizes of their own, hold several.")
        if self.kind not in KINDS or self.protocol not in PROTOCOLS:
            raise Refused(
                f"A synthetic set's kind must be one of {', '.join(KINDS)}, its protocol one of {', '.join(PROTOCOLS)}."
            )
        if self.zca is not None and not self.zca.fits(channels * height * width):
            raise Refused("The whitening of the synthetic set does not fit its images, or cannot be undone.")

    @property
    def hard_labels(self) -> Tensor:
        """(N,) int64: the labels, or the class of the largest soft label."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)

    def prepare(self, images: Tensor) -> Tensor:
        """Real uint8 images (N, C, H, W) into the space of this set's images."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        out = (images.float() / 255 - mean) / std
        return self.zca.whiten(out) if self.zca else out

    def decoded(self) -> SyntheticSet:
        """The set as students train on it: every image with one picture, every label as often as its pictures."""
        if self.factor == 1:
            return self
        labels = self.labels.repeat_interleave(self.factor**2, 0)
        return replace(self, images=decode(self.images, self.factor), labels=labels, factor=1)

    def pixels(self) -> Tensor:
        """The images as they are stored, as float32 in [0, 1] (un-whitened, de-normalised, clamped), (N, C, H, W)."""
        images = self.images
        if self.zca:  # whitening is of whole pictures
            images = compose(self.zca.unwhiten(decode(images, self.factor)), self.factor)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images * std + mean).clamp(0, 1)

    def to_display(self) -> Tensor:
        """The images as people see them: uint8 (N, C, H, W)."""
        return (self.pixels() * 255).round().byte()

    # ---- files ----

    def save(self, folder: Path) -> Path:
        """Write ``synthetic.safetensors`` and ``synthetic.json`` into ``folder``, each aside and then renamed."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"images": self.images, "labels": self.labels}
        meta: dict[str, Any] = {
            "format": FORMAT,
            "dataset": self.dataset,
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "kind": self.kind,
            "protocol": self.protocol,
            "factor": self.factor,
            "provenance": self.provenance,
        }
        if self.step_sizes is not None:
            tensors["step_sizes"] = self.step_sizes
            meta["turns"] = self.turns
        if self.start is not None:
            tensors |= {f"start.{name}": weight for name, weight in self.start.weights.items()}
            meta["start"] = {k: v for k, v in vars(self.start).items() if k != "weights"}
        if self.zca is not None:
            tensors |= {
                "zca.components": self.zca.components,
                "zca.gains": self.zca.gains,
                "zca.centre": self.zca.centre,
            }
            meta["zca_base"] = self.zca.base
        with aside(folder / "synthetic.safetensors") as part:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part)
        with aside(folder / "synthetic.json") as part:
            part.write_text(json.dumps(meta, indent=1))
        return folder


def load_synthetic(folder: Path) -> SyntheticSet:
    """Read a set that ``SyntheticSet.save`` wrote. ``folder`` may also name one of its two files.

    Raises ``Refused`` when the files are missing, malformed or hold anything out of range.
    """
    folder = folder.parent if folder.name in ("synthetic.json", "synthetic.safetensors") else folder
    about, data = folder / "synthetic.json", folder / "synthetic.safetensors"
    try:
        if not (about.is_file() and data.is_file()):  # a pipe would be waited for
            raise FileNotFoundError
        if about.stat().st_size > MAX_JSON:
            raise Refused(f"synthetic.json is larger than {MAX_JSON // 1_000_000} MB.")
        meta = json.loads(about.read_text())
        if not _shallow(meta) or not all(map(_is_text, (meta["dataset"], *meta["classes"]))):
            raise Refused("synthetic.json must name dataset and classes, each in a line of text, on few levels.")
        tensors = load_file(data)
        zca = None
        if "zca_base" in meta:
            zca = ZCA(tensors["zca.components"], tensors["zca.gains"], float(meta["zca_base"]), tensors["zca.centre"])
        start = None
        if "start" in meta:
            weights = {k.removeprefix("start."): w for k, w in tensors.items() if k.startswith("start.")}
            start = Start(**meta["start"], weights=weights)
        return SyntheticSet(
            images=tensors["images"],
            labels=tensors["labels"],
            dataset=meta["dataset"],
            classes=tuple(meta["classes"]),
            mean=tuple(float(m) for m in meta["mean"]),
            std=tuple(float(s) for s in meta["std"]),
            kind=meta["kind"],
            protocol=meta["protocol"],
            zca=zca,
            step_sizes=tensors.get("step_sizes"),
            turns=meta.get("turns", 1),
            start=start,
            factor=meta.get("factor", 1),
            provenance=dict(meta.get("provenance", {})),
        )
    except FileNotFoundError:
        raise Refused(
            f"No synthetic set in {folder.name or folder}: it needs synthetic.safetensors and synthetic.json."
        ) from None
    except (KeyError, TypeError, ValueError, OSError, RecursionError, SafetensorError) as error:
        if isinstance(error, Refused):
            raise
        reason = type(error).__name__
        raise Refused(f"The synthetic set in {folder.name or folder} cannot be read ({reason}).") from None


def _is_text(value: Any) -> bool:
    """Whether a value of a file can stand for a name: a line, and not a long one."""
    return isinstance(value, str) and 0 < len(value) <= 500 and printable(value)


def _shallow(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether so few levels of lists and objects lie in each other that they can be written again."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_shallow(v, levels - 1) for v in inside)
