"""Small training sets made of real images without any distillation: what a distilled set has to beat.

Each way is one file. All of them see only the training images that methods see (``Dataset.by_class``): neither the
held-out images nor the test images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engine.accel import Accel, pick_accel
from engine.baselines import average, ccs, el2n, forgetting, herding, kcenter, kmeans, optimised, random
from engine.baselines.pick import Picked
from engine.data.base import Dataset
from engine.errors import Refused
from engine.synthetic import SyntheticSet

__all__ = ["BASELINES", "Baseline", "make_baseline"]


@dataclass(frozen=True)
class Baseline:
    """A way to pick or summarise real images. ``kind`` is the kind of the ``SyntheticSet`` it makes."""

    id: str
    name: str
    kind: str
    how: str
    make: Callable[..., Picked]


BASELINES: dict[str, Baseline] = {
    b.id: b
    for b in (
        Baseline("random", "Random real images", "random", "Drawn at random from each class.", random.make),
        Baseline(
            "optimised",
            "Best of many random sets",
            "selected",
            "The best of many random sets, judged by a small student trained on each and tried on training images "
            "(Wang et al., Dataset Distillation, 2018).",
            optimised.make,
        ),
        Baseline("kmeans", "k-means centres", "summarised", "Centres of k-means on the pixels.", kmeans.centres),
        Baseline(
            "kmeans-real",
            "Images nearest to k-means centres",
            "selected",
            "The real images nearest to the centres of k-means on the features of a trained network "
            "(Cui et al., DC-BENCH, NeurIPS 2022).",
            kmeans.nearest,
        ),
        Baseline("average", "Class averages", "summarised", "Means of equal random parts of each class.", average.make),
        Baseline(
            "herding",
            "Herding",
            "selected",
            "Images added one by one so that their mean feature stays closest to that of the class "
            "(Welling, Herding Dynamical Weights, ICML 2009).",
            herding.make,
        ),
        Baseline(
            "kcenter",
            "k-center",
            "selected",
            "Images added one by one, each the farthest from those already there "
            "(Sener & Savarese, Active Learning for CNNs: A Core-Set Approach, ICLR 2018).",
            kcenter.make,
        ),
        Baseline(
            "ccs",
            "Coverage-centric (CCS)",
            "selected",
            "The hardest images left out, then equally many of every difficulty, told by the margins with which three "
            "small networks learn them (Zheng et al., Coverage-centric Coreset Selection, ICLR 2023).",
            ccs.make,
        ),
        Baseline(
            "forgetting",
            "Most forgotten",
            "selected",
            "The images that networks in training get right and then wrong again most often, after some of those they "
            "never get right (Toneva et al., Example Forgetting, ICLR 2019).",
            forgetting.make,
        ),
        Baseline(
            "el2n",
            "Largest early errors (EL2N)",
            "selected",
            "The images on which three networks err most, early in training: as published, hard on a small budget "
            "(Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021).",
            el2n.make,
        ),
    )
}


def make_baseline(
    kind: str,
    data: Dataset,
    ipc: int,
    *,
    seed: int = 0,
    accel: Accel | None = None,
    progress: Callable[[float], None] | None = None,
    never_learned: forgetting.NeverLearned = "share",
) -> SyntheticSet:
    """``ipc`` images of each class, class after class, by the baseline ``kind`` (one of ``BASELINES``), from ``seed``.

    Labels are hard; ``provenance`` says how the set was made, in how many seconds, and, for real images, by their
    ``indices`` into the training images. ``accel`` is the CPU unless given. ``progress`` hears of a fraction in
    [0, 1]. ``never_learned`` matters to ``forgetting`` alone. Raises ``Refused`` when there is no such baseline or a
    class has fewer than ``ipc`` images.
    """
    if kind not in BASELINES:
        raise Refused(f"There is no baseline “{kind[:80]}”; choose one of {', '.join(BASELINES)}.")
    sizes = [len(members) for members in data.by_class]
    if not 1 <= ipc <= min(sizes):
        name = data.classes[sizes.index(min(sizes))]
        raise Refused(
            f"{ipc} images per class cannot be taken from {data.title}: its smallest class, {name}, has {min(sizes)} "
            f"images to choose from. Choose 1 to {min(sizes)}."
        )
    baseline, began = BASELINES[kind], time.perf_counter()
    options = {"never_learned": never_learned} if kind == "forgetting" else {}
    accel, progress = accel or pick_accel("cpu"), progress or (lambda fraction: None)
    picked = baseline.make(data, ipc, seed, accel, progress, **options)
    provenance: dict[str, Any] = {
        "baseline": kind,
        "how": baseline.how,
        "ipc": ipc,
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 3),
        "torch": torch.__version__,
        **picked.notes,
    }
    if picked.images is not None:
        images = picked.images
    else:
        images = data.normalise(data.train_images[picked.indices])
        assert picked.indices is not None  # a pick has images or indices
        provenance["indices"] = picked.indices.tolist()
    return SyntheticSet(
        images=images.float().contiguous(),
        labels=torch.arange(len(data.classes)).repeat_interleave(ipc),
        dataset=data.name,
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        kind=baseline.kind,
        protocol="dc",
        provenance=provenance,
    )
