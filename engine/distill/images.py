"""What the methods share: initial images, the space they live in, real batches, labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.data.base import Dataset
from engine.errors import Refused
from engine.formation import compose
from engine.home import aside, cache_folder
from engine.methods import METHODS
from engine.spec import RunSpec
from engine.synthetic import ZCA, SyntheticSet, fit_zca


def initial_images(spec: RunSpec, data: Dataset, zca: ZCA | None = None) -> tuple[Tensor, Tensor]:
    """Starting images (K·ipc, C, H, W) float32 in model space, class after class, and their classes (K·ipc,) int64.

    With a factor, each is composed of so many times so many pictures. ``real``, ``mean`` and ``kmeans`` are the
    baselines of that name; ``noise`` is standard normal. Raises ``Refused`` when a class has fewer images than needed.
    """
    from engine.baselines import make_baseline

    factor = factor_of(spec)
    pictures = spec.ipc * factor**2
    smallest = min(len(members) for members in data.by_class)
    if pictures > smallest and spec.init != "noise":
        grids = f", of {factor**2} pictures each," if factor > 1 else ""
        raise Refused(
            f"{spec.ipc} images per class{grids} cannot start from {data.title}: its smallest class has {smallest} "
            "images to start from. Choose fewer images per class, or noise as the initial images."
        )
    classes = torch.arange(len(data.classes)).repeat_interleave(spec.ipc)
    if spec.init == "noise":
        generator = torch.Generator().manual_seed(spec.seed)
        return torch.randn(len(classes), data.channels, data.size, data.size, generator=generator), classes
    kind = {"real": "random", "mean": "average", "kmeans": "kmeans"}[spec.init]
    made = make_baseline(kind, data, pictures, seed=spec.seed, accel=None)
    images = made.images[torch.argsort(made.hard_labels, stable=True)]
    return compose(zca.whiten(images) if zca else images, factor), classes


def factor_of(spec: RunSpec) -> int:
    """How many times how many pictures each image of a run holds: 1 for methods that have no such choice."""
    return getattr(spec.parameters, "factor", 1)


def whitening(data: Dataset, method: str) -> ZCA:
    """ZCA as the method's code regularises it, fitted to the training images that methods may use; kept on disk, for
    the covariance takes seconds."""
    ratio = METHODS[method].whitening
    images = data.train_images[data.distil_indices]
    images = data.normalise(images[torch.linspace(0, len(images) - 1, min(len(images), 10_000)).long()])
    path = cache_folder("zca") / f"{data.digest}-{len(images)}-{ratio:g}.safetensors"
    if path.exists():
        kept = load_file(path)
        return ZCA(kept["components"], kept["gains"], float(kept["base"]), kept["centre"])
    zca = fit_zca(images, ratio)
    kept = {"components": zca.components, "gains": zca.gains, "base": torch.tensor(zca.base), "centre": zca.centre}
    with aside(path) as part:
        save_file(kept, part)
    return zca


_watching: list[list[Tensor]] = []


@contextlib.contextmanager
def watched() -> Iterator[list[Tensor]]:
    """Within it, the indices of the real images that methods look at gather in the list it gives."""
    seen: list[Tensor] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def looked_at(indices: Tensor) -> None:
    """Tell those who watch that a method looks at these real images."""
    for seen in _watching:
        seen.append(indices)


def to_space(data: Dataset, indices: Tensor, zca: ZCA | None = None) -> Tensor:
    """Real training images ``indices`` as float32 in model space: normalised, and whitened where ``zca`` is given."""
    looked_at(indices)
    images = data.normalise(data.train_images[indices])
    return zca.whiten(images) if zca else images


def centred_labels(classes: Tensor, count: int) -> Tensor:
    """FRePo's targets for hard labels (N,): (one-hot - 1/K) / sqrt(K / 10), shape (N, K) float32."""
    onehot = torch.nn.functional.one_hot(classes, count).float()
    return (onehot - 1 / count) / (count / 10) ** 0.5


def finished(
    spec: RunSpec, data: Dataset, images: Tensor, labels: Tensor, zca: ZCA | None, steps: int, **more: Any
) -> SyntheticSet:
    """The synthetic set of a distiller: a copy of its images and labels with where they came from."""
    return SyntheticSet(
        images=images.detach().float().cpu().clone(),
        labels=labels.detach().cpu().clone(),
        dataset=data.name,
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        kind="distilled",
        protocol=spec.final_protocol,
        zca=zca,
        factor=factor_of(spec),
        provenance={"spec": spec.model_dump(), "steps": steps, "torch": torch.__version__, **more},
    )


def class_batch(data: Dataset, c: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` random training images of class ``c`` (all of them, shuffled, where it has fewer)."""
    members = data.by_class[c]
    return members[torch.randperm(len(members), generator=generator)[:count]]


def new_seed(generator: torch.Generator) -> int:
    """A seed for something that takes one, drawn from ``generator``."""
    return int(torch.randint(2**31 - 1, (1,), generator=generator))


def network_key(spec: RunSpec, data: Dataset) -> tuple[str, int, int, int, int, int]:
    """The arguments of ``make_network``, less the seed, for the network that ``spec`` distils with."""
    return spec.network, data.channels, data.size, len(data.classes), spec.width, spec.depth
