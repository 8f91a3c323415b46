"""What adaptation and poisoning share: a few learned steps of gradient descent on pre-trained networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.data.base import Dataset
from engine.distill.dd import Method
from engine.synthetic import SyntheticSet

HELD_OUT = 500_000_000  # seeds of pre-trained networks that no set was distilled with


def distil(distiller: Method, steps: int, tell: Callable[[float, str], None]) -> SyntheticSet:
    """Take so many steps of a distiller that is set up; the set that comes of it."""
    for step in range(steps):
        distiller.progress = step / steps
        report = distiller.step()
        tell((step + 1) / steps, f"step {step + 1:,} of {steps:,}, loss {report.loss:.3f}.")
    return distiller.synthetic()


def descend(network: nn.Module, images: Tensor, labels: Tensor, rates: list[float], turns: int = 1) -> nn.Module:
    """Plain gradient descent in place: step t of size ``rates[t]`` on the images n with n = t modulo ``turns``."""
    for t, rate in enumerate(rates):
        loss = F.cross_entropy(network(images[t % turns :: turns]), labels[t % turns :: turns])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= rate * gradient
    return network


def said(network: nn.Module, data: Dataset, images: Tensor) -> Tensor:
    """Predicted classes (N,) of uint8 images."""
    with torch.no_grad():
        return torch.cat([network(data.normalise(part)).argmax(1) for part in images.split(500)])
