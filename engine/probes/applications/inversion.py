"""Probe ``inversion``: an image is recovered from the gradient that it causes.

Gradient matching (Zhao, Mopuri & Bilen 2021) moves synthetic images until they pull at a network as real ones do. With
one real image and a gradient that was shared, the same objective is an attack: the image x' and the label y' with the
smallest ‖∇θ ℓ(f(x'), y') - g‖² (Zhu, Liu & Han 2019, "Deep leakage from gradients"). The label need not be searched
for: of the gradient of cross-entropy at the last layer's bias, softmax(z) - onehot(y), the entry of the true class
alone is negative (Zhao, Mopuri & Bilen 2020, "iDLG: improved deep leakage from gradients").

Where the gradient is the mean over several images of a class, what is found is no one's image any more, but one that
stands for all of them at this network, as gradient matching with one image per class looks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.accel import seeded
from engine.data import load
from engine.data.base import Dataset
from engine.errors import Refused
from engine.intervals import wilson
from engine.networks import make_network
from engine.probes.answerer import Work
from engine.probes.applications.specs import InversionSpec
from engine.probes.attribution.pictures import enlarged
from engine.probes.desk import Answer
from engine.probes.robustness.common import sheet, t_interval

MOMENTS = 10  # of the recovery in the picture
LABELS = 200  # test images whose label is read off their gradient
FITS = 1e-6  # squared distance, as a share of the gradient's squared norm, below which no other start is tried
EXACT = 1e-7  # below which an attempt ends
PATIENCE = 3  # steps without a hundredth less, after which it ends, too
ALIKE = 0.8  # SSIM from which an image counts as recovered


def answer(spec: InversionSpec, work: Work) -> Answer:
    """See ``InversionSpec``. Tables ``images`` (a row for each that is sought: labels, SSIM in [-1, 1], mean squared
    error of pixels in [0, 1]) and ``curve`` (of the first one's recovery, step by step)."""
    work.tell(0.0, f"Loading {spec.dataset}.")
    data = load(spec.dataset)
    if spec.image >= len(data.test_images):
        raise Refused(f"{data.title} has test images 0 to {len(data.test_images) - 1:,}; there is no {spec.image:,}.")
    network = victim(spec.network, data.channels, data.size, len(data.classes), spec.seed).double()
    mean, std = scale_of(data)

    def shared_of(index: int, seed: int) -> tuple[list[Tensor], Tensor, int]:
        """The gradient that is shared of a test image, the pixels behind it, and their class."""
        pixels, label = _behind(data, index, spec.behind)
        gradient = gradient_of(network, (pixels - mean) / std, label.expand(len(pixels)))
        return noisy(gradient, spec.noise, seed) if spec.noise else gradient, pixels, int(label)

    labels = range(spec.image, min(spec.image + LABELS, len(data.test_images)))
    right = 0
    for number, index in enumerate(labels):
        work.tell(0.05 * number / len(labels), "Reading labels.")
        gradient, _, label = shared_of(index, spec.seed + index)
        right += label_of(gradient) == label
    read_of = len(labels)

    rows: list[dict[str, Any]] = []
    originals, recovered, first = [], [], None
    sought = range(spec.image, min(spec.image + spec.images, len(data.test_images)))
    for number, index in enumerate(sought):
        shared, pixels, label = shared_of(index, spec.seed + index)
        read = label_of(shared)

        def tell(fraction: float, distance: float, number: int = number) -> None:
            said = f"Image {number + 1} of {len(sought)}: {100 * distance**0.5:.2g} % of the gradient is not explained."
            work.tell(0.05 + 0.95 * (number + fraction) / len(sought), said)

        found, starts = _best(network, shared, (mean, std), pixels[:1].shape, read, spec, len(data.classes), tell)
        likeness = [float(ssim(found.images[-1], one[None])) for one in pixels]
        nearest = max(range(len(pixels)), key=likeness.__getitem__)
        rows.append(
            {
                "image": index,
                "label": data.classes[label],
                "read": data.classes[read],
                "fitted": data.classes[found.label],
                "ssim": likeness[nearest],
                "error": float((found.images[-1] - pixels[nearest]).square().mean()),
                "distance": found.distances[-1],
                "starts": starts,
            }
        )
        originals.append(pixels[nearest])
        recovered.append(found.images[-1][0])
        first = first or (found, pixels)
    assert first is not None
    found, pixels = first
    curve = [
        {"step": step, "distance": distance, "ssim": max(float(ssim(x, one[None])) for one in pixels)}
        for step, distance, x in zip(found.steps, found.distances, found.images, strict=True)
    ]
    at = sorted({round(i * (len(found.images) - 1) / (MOMENTS - 1)) for i in range(MOMENTS)})
    scale = enlarged(data.size, 64)
    images = {
        "recovered": work.picture("recovered", sheet([originals, recovered]), scale),
        "course": work.picture("course", sheet([[found.images[i][0] for i in at]]), scale),
    }
    alike = sum(row["ssim"] >= ALIKE for row in rows)
    low, high = wilson(right, read_of)
    facts: dict[str, Any] = {
        "labels_right": right,
        "labels": read_of,
        "labels_low": low,
        "labels_high": high,
        "alike": alike,
        "alike_from": ALIKE,
        "moments": [found.steps[i] for i in at],
        "indices": [row["image"] for row in rows],
        "values": sum(g.numel() for g in shared),
        "behind": spec.behind,
        "headline": _headline(spec, rows, right, read_of),
    }
    return Answer({"images": rows, "curve": curve}, facts, images, tuple(_notes(spec)))


def _headline(spec: InversionSpec, rows: list[dict[str, Any]], right: int, read_of: int) -> str:
    low, high = (100 * (bound or 0) for bound in wilson(right, read_of))
    labels = f"The gradient gives the label of {right} of {read_of} test images away (95 %: {low:.1f} to {high:.1f} %)"
    if len(rows) == 1:
        return f"{labels}; this image is recovered with an SSIM of {rows[0]['ssim']:.2f}, 1 being the image itself."
    alike = sum(row["ssim"] >= ALIKE for row in rows)
    mean, low_mean, high_mean = t_interval([row["ssim"] for row in rows])
    low, high = (100 * (bound or 0) for bound in wilson(alike, len(rows)))
    span = "" if low_mean is None or high_mean is None else f", 95 %: {low_mean:.2f} to {min(1.0, high_mean):.2f}"
    return (
        f"{labels}, and {alike} of {len(rows)} images (95 %: {low:.0f} to {high:.0f} %) with an SSIM of at least "
        f"{ALIKE:g} (mean {mean:.2f}{span})."
    )


def _notes(spec: InversionSpec) -> list[str]:
    notes = [
        "The network has its initial weights, and the gradient is that of a single step: later in training, with "
        "larger batches or with noise, an image is harder to recover."
    ]
    if spec.behind > 1:
        notes.append(
            f"The gradient is the mean over {spec.behind} images of one class, as many as there are. SSIM is that to "
            "the most similar of them: images of a class are alike, so that what is found may resemble one of them "
            "without being any."
        )
    return notes


# ---- what is shared -------------------------------------------------------------------------------------------------


def scale_of(data: Dataset) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, 1, 1) of the dataset's pixels in [0, 1], in double precision."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (data.mean, data.std))
    return mean, std


def _behind(data: Dataset, index: int, count: int) -> tuple[Tensor, Tensor]:
    """Pixels (N, C, H, W) in [0, 1] of a test image and of the next ones of its class, and that class."""
    label = data.test_labels[index]
    others = torch.nonzero(data.test_labels == label).flatten()
    order = torch.cat([others[others >= index], others[others < index]])[:count]
    return data.test_images[order].double() / 255, label


def victim(name: str, channels: int, size: int, classes: int, seed: int) -> nn.Module:
    """The network whose gradient is shared, freshly initialised and smooth enough to be attacked."""
    if name != "lenet-sigmoid":
        return make_network(name, channels, size, classes, width=32, seed=seed)
    with seeded(seed):
        side = math.ceil(math.ceil(size / 2) / 2)
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
    return [g + strength * size * torch.randn(g.shape, generator=generator).to(g) for g in gradient]


# ---- what is read and found -----------------------------------------------------------------------------------------


def label_of(gradient: list[Tensor]) -> int:
    """The class of the one image behind a gradient, whose last entry is that of the last layer's bias (iDLG)."""
    return int(gradient[-1].argmin())


@dataclass(frozen=True)
class Recovery:
    """The course of one attempt: step by step the images (1, C, H, W) in [0, 1] and the squared distance of the
    gradients as a share of the shared one's squared norm; ``label`` at the end."""

    steps: list[int]
    images: list[Tensor]
    distances: list[float]
    label: int


def _best(
    network: nn.Module, shared: list[Tensor], scale: tuple[Tensor, Tensor], shape: tuple[int, ...], read: int,
    spec: InversionSpec, classes: int, tell: Callable[[float, float], None],
) -> tuple[Recovery, int]:  # fmt: skip
    """The attempt that comes closest to the shared gradient, and how many there were."""
    best: Recovery | None = None
    for start in range(spec.starts):

        def told(fraction: float, distance: float, start: int = start) -> None:
            tell((start + fraction) / spec.starts, distance)

        found = invert(
            network, shared, scale, shape, classes, label=read if spec.label == "read" else None, steps=spec.steps,
            seed=1000 * spec.seed + start, tell=told,
        )  # fmt: skip
        if best is None or found.distances[-1] < best.distances[-1]:
            best = found
        if best.distances[-1] < FITS:
            break
    assert best is not None
    return best, start + 1


def invert(
    network: nn.Module,
    shared: list[Tensor],
    scale: tuple[Tensor, Tensor],
    shape: tuple[int, ...],
    classes: int,
    *,
    label: int | None,
    steps: int,
    seed: int,
    tell: Callable[[float, float], None] = lambda fraction, distance: None,
) -> Recovery:
    """An image (1, C, H, W) in [0, 1] whose gradient is the shared one, from a random start, by L-BFGS.

    ``scale``: mean and deviation of pixels; images of that scale are sought, from normal noise. ``label`` None: fitted
    as well, as the softmax of free numbers. Ends early where nothing changes any more or the objective is no number,
    with what was best until then. Raises ``Refused`` where it never was one.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).to(shared[0]).requires_grad_()
    free = torch.randn((1, classes), generator=generator).to(shared[0]).requires_grad_()
    whole = sum(g.square().sum() for g in shared)
    fixed = None if label is None else torch.tensor([label])
    # In units of the gradient's norm the slope is small near the end: the attempt itself says when it has come there.
    optimiser = torch.optim.LBFGS(
        [x] if fixed is not None else [x, free], lr=1.0, tolerance_grad=0.0, tolerance_change=0.0
    )

    def objective() -> Tensor:
        targets = fixed if fixed is not None else free.softmax(1)
        ours = gradient_of(network, x, targets, graph=True)
        return sum(((a - b).square().sum() for a, b in zip(ours, shared, strict=True)), torch.zeros(())) / whole

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    seen: list[tuple[int, Tensor, float]] = []
    lowest, stuck = float("inf"), 0
    mean, std = scale
    for step in range(steps + 1):
        distance = float(objective().detach())
        if not distance < float("inf"):
            break
        stuck = 0 if distance < 0.99 * lowest else stuck + 1
        if distance < lowest:
            lowest = distance
            seen.append((step, (x.detach() * std + mean).clamp(0, 1), distance))
        tell(step / steps, lowest)
        if lowest < EXACT or step == steps or stuck == PATIENCE:
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
