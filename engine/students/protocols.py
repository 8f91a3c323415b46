"""How students are trained: the named evaluation protocols of the papers (torch-free).

Numbers of different protocols are never comparable; every ``Evaluation`` carries the name of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Protocol:
    """Network, optimiser, schedule, loss and augmentation of a student.

    ``epochs`` or, where it is None, ``steps``: pairs (images in the set, optimiser steps), log-log interpolated and
    constant beyond both ends.

    ``schedule``: ``step`` runs the first ``epochs // 2 + 1`` epochs (or steps, likewise) at ``rate`` and the others at
    a tenth of it with the momentum reset, because the reference code makes a new optimiser there; ``cosine`` warms up
    linearly for ``warmup`` steps (half of them all, where they are fewer than twice as many) and then falls to zero;
    ``constant`` stays at ``rate``.

    ``learned_rate``: the set's learned step size takes the place of ``rate`` where it has one (the mean of several).

    ``own_steps``: the set itself says how it is to be trained on (``engine.students.course``): from which initial
    weights, in how many steps of which sizes, on which images. The numbers here then only stand in for it.

    ``loss``: ``cross-entropy`` takes hard labels or probabilities. Learned labels that are not probabilities (negative
    entries, or rows that do not sum to one, as FRePo's) have no cross-entropy: they are trained on with the squared
    error also there. ``squared`` is half the mean squared error; hard labels become (one-hot - 1/K) / sqrt(K/10).

    ``augment``: the family of operations, one drawn for each batch, with parameters of each image's own; ``light``
    instead moves every image by up to an eighth of its side (a sixteenth where images are characters) and mirrors half
    of them where a mirrored image keeps its class.
    """

    name: str
    title: str
    description: str
    network: str
    width: int = 128
    epochs: int | None = None
    steps: tuple[tuple[int, int], ...] = ()
    optimiser: Literal["sgd", "adam"] = "sgd"
    rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine", "constant"] = "step"
    warmup: int = 0
    batch: int = 256
    loss: Literal["cross-entropy", "squared"] = "cross-entropy"
    augment: Literal["dsa", "frepo", "dc", "light"] | None = None
    learned_rate: bool = False
    own_steps: bool = False

    def step_count(self, images: int) -> int:
        """Optimiser steps of one student on a set of ``images`` images."""
        if self.epochs is not None:
            return self.epochs * math.ceil(images / self.batch)
        below = [p for p in self.steps if p[0] <= images]
        above = [p for p in self.steps if p[0] >= images]
        if not below or not above:
            return (below or above)[-1 if below else 0][1]
        (x0, y0), (x1, y1) = below[-1], above[0]
        if x0 == x1:
            return y0
        return round(y0 * (y1 / y0) ** (math.log(images / x0) / math.log(x1 / x0)))

    def rates(self, images: int) -> list[float]:
        """The learning rate of every step."""
        total = self.step_count(images)
        if self.schedule == "step":
            restart = self.restart(images)
            return [self.rate if restart is None or step < restart else self.rate / 10 for step in range(total)]
        if self.schedule == "constant":
            return [self.rate] * total
        warm = min(self.warmup, total // 2)
        rates = [self.rate * (step + 1) / warm for step in range(warm)]
        return rates + [self.rate * (1 + math.cos(math.pi * s / (total - warm))) / 2 for s in range(total - warm)]

    def restart(self, images: int) -> int | None:
        """The step (from 0) before which the optimiser is made anew; None for never."""
        if self.schedule != "step":
            return None
        if self.epochs is None:
            return self.step_count(images) // 2 + 1
        return (self.epochs // 2 + 1) * math.ceil(images / self.batch)


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "quick",
            "Quick",
            "A narrow ConvNet (of FRePo's kind where labels are learned) trained for seconds: follows a run while it "
            "works, and compares runs roughly.",
            "convnet",
            width=32,
            steps=((10, 40), (100, 80), (1000, 160)),
            rate=0.05,
            batch=64,
        ),
        Protocol(
            "dc",
            "DC",
            "ConvNet-3 of width 128, 300 epochs without augmentation; on handwritten characters 1,000 epochs with "
            "random crops, scales and rotations. SGD 0.01, momentum 0.9, weight decay 5e-4, a tenth of the rate after "
            "half (Zhao, Mopuri & Bilen 2021).",
            "convnet",
            epochs=300,
        ),
        Protocol(
            "dsa",
            "DSA",
            "As DC, but 1,000 epochs with one random augmentation for each batch (Zhao & Bilen 2021).",
            "convnet",
            epochs=1000,
            augment="dsa",
        ),
        Protocol(
            "frepo",
            "FRePo",
            "A ConvNet of 128, 256 and 512 channels without normalisation, squared error on the learned labels, Adam "
            "3e-4 with warm-up and cosine, 1,000 to 5,000 steps, light augmentation (Zhou, Nezhadarya & Ba 2022).",
            "convnet-wide",
            steps=((10, 1000), (100, 2000), (500, 5000)),
            optimiser="adam",
            rate=3e-4,
            weight_decay=0.0,
            schedule="cosine",
            warmup=500,
            batch=500,
            loss="squared",
            augment="frepo",
        ),
        Protocol(
            "mtt",
            "MTT",
            "As DSA, but at the learning rate that the set has learned; at 0.01 where it has none (Cazenavette et al. "
            "2022).",
            "convnet",
            epochs=1000,
            augment="dsa",
            learned_rate=True,
        ),
        Protocol(
            "dd",
            "DD",
            "The very steps that the set was distilled for: from its initial weights, or freshly initialised ones "
            "where it was made for any, plain gradient descent with the learned step sizes (Wang et al. 2018).",
            "lenet",
            steps=((1, 30),),
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
            own_steps=True,
        ),
        Protocol(
            "rat",
            "RaT",
            "ConvNet-3 of width 128, 300 epochs of Adam at 1e-3 without augmentation (Feng, Vedantam & Kempe 2024, who "
            "report the best of 300 to 3,000).",
            "convnet",
            epochs=300,
            optimiser="adam",
            rate=1e-3,
            weight_decay=0.0,
            schedule="constant",
        ),
    )
}


# For real images by the thousand; never a protocol to compare synthetic sets under
FULL = Protocol(
    "full",
    "Full",
    "For all training images, sized for a CPU: 300 to 4,000 steps of 128 images (3 epochs of MNIST, 10 of CIFAR-10), "
    "SGD with momentum 0.9, the rate warmed up to 0.05 (0.02 in VGG11 and networks without normalisation) and let down "
    "to zero along a cosine, small shifts, and mirroring where it keeps the class.",
    "convnet",
    steps=((100, 300), (1000, 600), (10_000, 1600), (50_000, 3910)),
    rate=0.05,
    schedule="cosine",
    warmup=400,
    batch=128,
    augment="light",
)
TRAINING = {**PROTOCOLS, "full": FULL}  # everything a student may be trained under

CHARACTERS = ("mnist", "digits", "kmnist", "usps")


def protocol_for(
    name: str, dataset: str, network: str | None = None, learned: bool = False, rate: float | None = None
) -> Protocol:
    """The protocol ``name`` as it runs on ``dataset`` with ``network`` (its own unless given); ``learned``: the set's
    labels are learned and no probabilities; ``rate``: the learning rate that the set has learned, if any.

    The DC paper's code augments its students on MNIST, for more epochs, and nowhere else; so does ``dc`` here, on MNIST
    and its like. Where a protocol says SGD, the transformer is trained with Adam at 1e-3 and without weight decay,
    because SGD hardly trains transformers, and edge-popup at ten times the rate, because scores move by the gradient
    times a small weight (Ramanujan et al. 2020 train them at 0.1). Learned labels mean little to a network unlike the
    one they were learned with, so ``quick`` trains a narrow network of FRePo's kind on them, as its paper does: with
    Adam, warm-up and a cosine.
    """
    protocol = TRAINING[name]
    if protocol.learned_rate and rate is not None:
        protocol = replace(protocol, rate=rate)
    if name == "quick" and learned:
        adam = replace(protocol, optimiser="adam", rate=2e-3, weight_decay=0.0, schedule="cosine", warmup=20)
        return replace(adam, network="convnet-wide", batch=128)
    if name == "dc" and dataset in CHARACTERS:
        protocol = replace(protocol, epochs=1000, augment="dc")
    if name == "full" and dataset in CHARACTERS:
        protocol = replace(protocol, steps=((100, 300), (1000, 500), (60_000, 1407)), warmup=200)
    if name == "full" and network in ("convnet-wide", "lenet", "mlp", "alexnet", "vgg11"):
        protocol = replace(protocol, rate=0.02)
    if protocol.optimiser == "sgd" and network == "vit":
        protocol = replace(protocol, optimiser="adam", rate=1e-3, weight_decay=0.0)
    if protocol.optimiser == "sgd" and network == "edge-popup":
        protocol = replace(protocol, rate=10 * protocol.rate)
    return protocol
