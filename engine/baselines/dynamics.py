"""How single images fare while a network learns them: what ``ccs``, ``forgetting`` and ``el2n`` share.

Three narrow ConvNets, each from a seed of its own, see every image that methods may use once an epoch, without
augmentation. What an image scores is read from the very forward pass that trains on it, before the update, as Toneva et
al. (ICLR 2019, algorithm 1) do, and costs nothing extra. No gradient with respect to an image is ever taken. Kept on
disk: whichever of the three comes second finds it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad

from engine.accel import Accel
from engine.baselines import keeping
from engine.data.base import Dataset
from engine.networks import make_network

VERSION = 1  # raise it when anything below changes the numbers
NETWORKS, EPOCHS, MOST_EPOCHS, MIN_STEPS = 3, 5, 20, 200  # small sets take more epochs, to be learned at all
WIDTH, BATCH, RATE, MOMENTUM, DECAY = 32, 128, 0.05, 0.9, 5e-4


@dataclass(frozen=True, eq=False)
class Dynamics:
    """``margins`` and ``errors``: (networks, epochs, N) float32, of the images of ``Dataset.by_class``, in that order.

    A margin is p_y - max_{j≠y} p_j of the softmax p, in [-1, 1] and above zero where the answer was right; an error is
    ‖p - onehot(y)‖₂, in [0, √2]. ``notes``: where they come from.
    """

    margins: Tensor
    errors: Tensor
    notes: dict[str, Any]


def measures(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Margins and errors (N,) of logits (N, K) for classes (N,); see ``Dynamics``."""
    p = logits.softmax(1)
    own = p.gather(1, labels[:, None]).squeeze(1)
    others = p.scatter(1, labels[:, None], -1.0).amax(1)
    return own - others, (p - F.one_hot(labels, p.shape[1])).norm(dim=1)


def training_dynamics(data: Dataset, seed: int, accel: Accel, progress: Callable[[float], None]) -> Dynamics:
    """The dynamics of ``data`` from ``seed``; ``progress`` hears of a fraction."""
    indices = torch.cat(data.by_class)
    a_pass = math.ceil(len(indices) / BATCH)
    epochs = min(max(EPOCHS, math.ceil(MIN_STEPS / a_pass)), MOST_EPOCHS)
    notes = {
        "scores": f"{NETWORKS} convnets of width {WIDTH}, trained for {epochs} epochs",
        "networks": NETWORKS,
        "epochs": epochs,
    }
    path = keeping.place("dynamics", data, accel, NETWORKS, epochs, WIDTH, seed, f"v{VERSION}")
    found = keeping.kept(path)
    if found is None or set(found) != {"margins", "errors"}:
        found = {name: torch.zeros(NETWORKS, epochs, len(indices)) for name in ("margins", "errors")}
        for run in range(NETWORKS):
            each = _train(data, indices, NETWORKS * seed + run, epochs, accel, _part(progress, run))
            found["margins"][run], found["errors"][run] = each
        keeping.keep(found, path)
    return Dynamics(found["margins"], found["errors"], notes)


def _part(progress: Callable[[float], None], run: int) -> Callable[[float], None]:
    return lambda fraction: progress((run + fraction) / NETWORKS)


def _train(
    data: Dataset, indices: Tensor, seed: int, epochs: int, accel: Accel, progress: Callable[[float], None]
) -> tuple[Tensor, Tensor]:
    """Margins and errors (epochs, N) of the training images ``indices`` while one network learns them."""
    shape = (data.channels, data.size, len(data.classes), WIDTH)

    def build() -> Callable[..., Any]:
        network = make_network("convnet", *shape)

        def loss(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            with accel.autocast():
                logits = functional_call(network, parameters, (images,))
            return F.cross_entropy(logits.float(), labels), logits.float()

        return grad(loss, has_aux=True)

    eager = build()
    fast = accel.compiled(build(), meanwhile=eager)
    generator = torch.Generator().manual_seed(seed)
    start = make_network("convnet", *shape, seed=seed).to(accel.device)
    parameters = {name: p.detach().clone() for name, p in start.named_parameters()}
    optimiser = torch.optim.SGD(parameters.values(), RATE, MOMENTUM, weight_decay=DECAY)
    margins, errors = torch.zeros(2, epochs, len(indices))
    for epoch in range(epochs):
        batches = torch.randperm(len(indices), generator=generator).split(BATCH)
        for i, batch in enumerate(batches):
            images = data.normalise(data.train_images[indices[batch]].to(accel.device))
            labels = data.train_labels[indices[batch]].to(accel.device)
            # A short last batch is not worth a compilation of its own.
            gradients, logits = (fast if len(batch) == BATCH else eager)(parameters, images, labels)
            margin, error = measures(logits, labels)
            margins[epoch, batch], errors[epoch, batch] = margin.cpu(), error.cpu()
            for name, parameter in parameters.items():
                parameter.grad = gradients[name]
            optimiser.step()
            progress((epoch + (i + 1) / len(batches)) / epochs)
    return margins, errors


def top_of_each_class(data: Dataset, scores: Tensor, ipc: int, generator: torch.Generator) -> Tensor:
    """Indices (K·ipc,) of the training images with the highest scores of their class, best first; ties by lot.

    ``scores``: (N,), in the order of ``Dynamics``.
    """
    picked = []
    for members, own in zip(data.by_class, scores.split([len(m) for m in data.by_class]), strict=True):
        lot = torch.randperm(len(members), generator=generator)
        picked.append(members[lot[own[lot].argsort(descending=True, stable=True)[:ipc]]])
    return torch.cat(picked)
