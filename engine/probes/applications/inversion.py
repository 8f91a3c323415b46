"""Probe ``inversion``: an image is recovered from the gradient that it causes.

Gradient matching moves synthetic images until they pull at a network as real ones do. With one real image and a shared
gradient the same objective is an attack: min over x' of ‖∇θ ℓ(f(x'), y') − g‖² (Zhu, Liu & Han 2019, "Deep leakage from
gradients", equation 4). The label need not be searched for: of the gradient of cross-entropy at the last layer's bias,
softmax(z) − onehot(y), the entry of the true class alone is negative (Zhao, Mopuri & Bilen 2020, "iDLG", equation 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.accel import seeded
from engine.data import load
from engine.errors import Refused
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.applications.specs import InversionSpec
from engine.probes.attribution.pictures import enlarged
from engine.probes.desk import Answer
from engine.probes.robustness.common import sheet

SHOWN = 10  # moments of the recovery in the picture
FITS = 1e-6  # squared distance, as a share of the gradient's squared norm, below which no other start is tried


def answer(spec: InversionSpec, work: Work) -> Answer:
    """See ``InversionSpec``. Facts: both labels, SSIM in [-1, 1] and mean squared error of pixels in [0, 1]."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    if spec.image >= len(data.test_images):
        raise Refused(f"{data.title} has test images 0 to {len(data.test_images) - 1:,}; there is no {spec.image:,}.")
    image, label = data.test_images[spec.image : spec.image + 1], int(data.test_labels[spec.image])
    pixels = image.float() / 255
    network = victim(spec.network, data.channels, data.size, len(data.classes), spec.seed)
    shared = gradient_of(network, data.normalise(image), torch.tensor([label]))
    if spec.noise:
        shared = noisy(shared, spec.noise, spec.seed)
    read = label_of(shared)

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))

    def prepare(x: Tensor) -> Tensor:
        return (x - mean) / std

    def tell(start: int, fraction: float, distance: float) -> None:
        said = f"Start {start + 1} of {spec.starts}: distance {distance:.2g} of the gradient."
        work.tell((start + fraction) / spec.starts, said)

    best: Recovery | None = None
    for start in range(spec.starts):
        found = invert(
            network, shared, prepare, pixels.shape, len(data.classes),
            label=read if spec.label == "read" else None, steps=spec.steps, seed=1000 * spec.seed + start,
            tell=lambda fraction, distance, start=start: tell(start, fraction, distance),
        )  # fmt: skip
        if best is None or found.distances[-1] < best.distances[-1]:
            best = found
        if best.distances[-1] < FITS:
            break
    assert best is not None
    recovered = best.images[-1]
    likeness, error = float(ssim(recovered, pixels)), float((recovered - pixels).square().mean())
    at = sorted({round(i * (len(best.images) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
    facts: dict[str, Any] = {
        "label": data.classes[label],
        "read": data.classes[read],
        "fitted": data.classes[best.label],
        "ssim": likeness,
        "error": error,
        "moments": [best.steps[i] for i in at],
        "starts": start + 1,
        "parameters": sum(g.numel() for g in shared),
    }
    curve = [
        {
            "step": step,
            "distance": distance,
            "error": float((x - pixels).square().mean()),
            "ssim": float(ssim(x, pixels)),
        }
        for step, distance, x in zip(best.steps, best.distances, best.images, strict=True)
    ]
    scale = enlarged(data.size, 96)
    images = {
        "original": work.picture("original", sheet([[pixels[0]]]), scale),
        "recovered": work.picture("recovered", sheet([[recovered[0]]]), scale),
        "course": work.picture("course", sheet([[best.images[i][0] for i in at]]), scale),
    }
    return Answer({"curve": curve}, facts, images)


@dataclass(frozen=True)
class Recovery:
    """The course of one attempt: step by step the images (1, C, H, W) in [0, 1] and the squared distance of the
    gradients as a share of the shared one's squared norm; ``label`` at the end."""

    steps: list[int]
    images: list[Tensor]
    distances: list[float]
    label: int


def victim(name: str, channels: int, size: int, classes: int, seed: int) -> nn.Module:
    """The network whose gradient is shared, freshly initialised and smooth enough to be attacked."""
    if name != "lenet-sigmoid":
        return make_network(name, channels, size, classes, width=32, seed=seed)
    with seeded(seed):
        side = -(-size // 4)
        network = nn.Sequential(
            nn.Conv2d(channels, 12, 5, padding=2, stride=2), nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, padding=2, stride=2), nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, padding=2), nn.Sigmoid(),
            nn.Flatten(), nn.Linear(12 * side * side, classes),
        )  # fmt: skip
        for parameter in network.parameters():  # as the attack's authors have it: sigmoids shall not saturate
            nn.init.uniform_(parameter, -0.5, 0.5)
    return network


def gradient_of(network: nn.Module, images: Tensor, targets: Tensor, graph: bool = False) -> list[Tensor]:
    """The gradient of cross-entropy by every parameter; ``targets``: classes (N,) or probabilities (N, K)."""
    loss = F.cross_entropy(network(images), targets)
    return list(torch.autograd.grad(loss, list(network.parameters()), create_graph=graph))


def noisy(gradient: list[Tensor], strength: float, seed: int) -> list[Tensor]:
    """The gradient with noise of ``strength`` times its root mean square."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.cat([g.flatten() for g in gradient]).square().mean().sqrt()
    return [g + strength * size * torch.randn(g.shape, generator=generator) for g in gradient]


def label_of(gradient: list[Tensor]) -> int:
    """The class of the one image behind a gradient, whose last entry is that of the last layer's bias (iDLG)."""
    return int(gradient[-1].argmin())


def invert(
    network: nn.Module,
    shared: list[Tensor],
    prepare: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    classes: int,
    *,
    label: int | None,
    steps: int,
    seed: int,
    tell: Callable[[float, float], None] = lambda fraction, distance: None,
) -> Recovery:
    """An image (1, C, H, W) in [0, 1] whose gradient is the shared one, from a random start, by L-BFGS.

    ``prepare`` brings pixels in [0, 1] into the network's space. ``label`` None: fitted as well, as the softmax of
    free numbers. Ends early where the objective is no number any more, with what was best until then.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).requires_grad_()
    free = torch.randn((1, classes), generator=generator).requires_grad_()
    whole = sum(g.square().sum() for g in shared)
    fixed = None if label is None else torch.tensor([label])
    optimiser = torch.optim.LBFGS([x] if fixed is not None else [x, free], lr=1.0)

    def objective() -> Tensor:
        targets = fixed if fixed is not None else free.softmax(1)
        ours = gradient_of(network, prepare(x), targets, graph=True)
        return sum(((a - b).square().sum() for a, b in zip(ours, shared, strict=True)), torch.zeros(())) / whole

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    seen: list[tuple[int, Tensor, float]] = []
    lowest = float("inf")
    for step in range(steps + 1):
        distance = float(objective().detach())
        if not distance < float("inf"):
            break
        if distance < lowest or step == 0:
            lowest = distance
            seen.append((step, x.detach().clamp(0, 1).clone(), distance))
        tell(step / steps, lowest)
        if lowest < FITS / 1000:
            break
        optimiser.step(closure)
    if not seen:
        raise Refused("The gradient of this network is no number; choose another seed.")
    steps_seen, images, distances = (list(part) for part in zip(*seen, strict=True))
    return Recovery(steps_seen, images, distances, int(free.argmax()) if fixed is None else int(fixed))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity in [-1, 1] of images (N, C, H, W) in [0, 1], averaged over everything.

    Wang, Bovik, Sheikh & Simoncelli 2004, equation 13, with their Gaussian window of 11 pixels and sigma 1.5.
    """
    reach = torch.arange(11.0) - 5
    line = torch.exp(-(reach**2) / (2 * 1.5**2))
    window = (line[:, None] * line[None, :] / line.sum() ** 2).to(a)
    window = window.expand(a.shape[1], 1, 11, 11)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=x.shape[1])

    one, two = 0.01**2, 0.03**2
    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    return (((2 * ma * mb + one) * (2 * both + two)) / ((ma**2 + mb**2 + one) * (va + vb + two))).mean()
