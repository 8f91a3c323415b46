"""Training students: seeds one after another on CPUs, as one batched ensemble on CUDA.

A grouped convolution of several seeds costs a CPU as much as, or several times more than, one network at a time; a GPU
needs the ensemble to be busy. Either way the result of a seed depends on that seed alone: its initial weights, the
order of its batches and its augmentations are drawn from it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from engine import augment
from engine.accel import Accel, pick_accel
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import make_network
from engine.students.protocols import PROTOCOLS, Protocol, protocol_for
from engine.synthetic import SyntheticSet

Parameters = dict[str, Tensor]

# Compiling takes 5 to 30 s of a core and makes a CPU's steps about twice as fast: it pays when the eager speed, as
# measured on the first steps, leaves more than this many seconds to go. The quick protocol never gets there.
COMPILE_FROM = 45.0


@dataclass(frozen=True)
class Program:
    """The two functions of a network that are worth compiling, eager and compiled.

    ``step(parameters, images, targets)`` gives (gradients, loss), ``logits(parameters, images)`` what it says; with an
    ensemble, parameters, the step's images and targets, and the logits have a leading dimension of seeds. The compiled
    ones have a network object of their own, because ``functional_call`` swaps parameters inside it and another thread
    may be tracing.
    """

    step: Callable[..., Any]
    logits: Callable[..., Any]
    fast_step: Callable[..., Any]
    fast_logits: Callable[..., Any]


@lru_cache(maxsize=16)
def program(
    network: str, channels: int, size: int, classes: int, width: int, loss: str, ensemble: bool, accel: Accel
) -> Program:
    """The program of a network on a device. Kept, so that a worker compiles it once, not at every evaluation."""

    def build() -> tuple[Callable[..., Any], Callable[..., Any]]:
        skeleton = make_network(network, channels, size, classes, width)

        def logits(parameters: Parameters, images: Tensor) -> Tensor:
            with accel.autocast():
                return functional_call(skeleton, parameters, (images,))

        def objective(parameters: Parameters, images: Tensor, targets: Tensor) -> Tensor:
            out = logits(parameters, images)
            out = out.float() if out.dtype == torch.bfloat16 else out
            return F.cross_entropy(out, targets) if loss == "cross-entropy" else F.mse_loss(out, targets) / 2

        step = grad_and_value(objective)
        return (vmap(step), vmap(logits, in_dims=(0, None))) if ensemble else (step, logits)

    step, logits = build()
    fast_step, fast_logits = build()
    return Program(
        step, logits, accel.compiled(fast_step, meanwhile=step), accel.compiled(fast_logits, meanwhile=logits)
    )


@dataclass(frozen=True)
class Group:
    """Trained seeds: their parameters (stacked for an ensemble), and the program that computes with them."""

    seeds: list[int]
    parameters: Parameters
    program: Program
    ensemble: bool

    def predict(self, images: Tensor, fast: bool = False) -> Tensor:
        """Predicted classes (seeds, N) of images (N, C, H, W)."""
        with torch.no_grad():
            out = (self.program.fast_logits if fast else self.program.logits)(self.parameters, images)
        return out.argmax(-1) if self.ensemble else out.argmax(-1).unsqueeze(0)


@dataclass(frozen=True)
class Plan:
    """Everything that training needs to know, checked and in place. Shared by all seeds.

    ``images`` (N, C, H, W) and ``targets`` ((N,) classes, or (N, K)) lie on the device; ``loss`` fits the targets.
    """

    protocol: Protocol
    network: str
    width: int
    images: Tensor
    targets: Tensor
    loss: str
    classes: int
    strategy: str | None
    accel: Accel

    def groups(self, seeds: list[int], ensemble: bool | None = None) -> list[list[int]]:
        """``seeds`` as they are trained: all at once as an ensemble (the default on CUDA), or each alone."""
        together = self.accel.device.type == "cuda" if ensemble is None else ensemble
        return [seeds] if together and len(seeds) > 1 else [[seed] for seed in seeds]


def make_plan(
    synthetic: SyntheticSet, data: Dataset, protocol: str, network: str | None = None, accel: Accel | None = None
) -> Plan:
    """Check that set, dataset and protocol fit, and move the images to the device. Raises ``Refused``."""
    if protocol not in PROTOCOLS:
        raise Refused(f"There is no protocol “{protocol}”; choose one of {', '.join(PROTOCOLS)}.")
    if synthetic.images.shape[1:] != data.train_images.shape[1:]:
        ours, theirs = ("×".join(map(str, t.shape[1:])) for t in (synthetic.images, data.train_images))
        raise Refused(f"The set's images are {ours}, but those of {data.title} are {theirs}; choose its own dataset.")
    if len(synthetic.classes) != len(data.classes):
        raise Refused(
            f"The set has {len(synthetic.classes)} classes, but {data.title} has {len(data.classes)}; "
            "choose its own dataset."
        )
    accel = accel or pick_accel()
    classes = len(synthetic.classes)
    targets, loss = _targets(synthetic.labels, classes, PROTOCOLS[protocol].loss)
    chosen = protocol_for(protocol, data.name, learned=loss == "squared")
    strategy = augment.strategy_for(data, chosen.augment) if chosen.augment else None
    images = place(synthetic.images, accel)
    return Plan(
        chosen,
        network or chosen.network,
        chosen.width,
        images,
        targets.to(accel.device),
        loss,
        classes,
        strategy,
        accel,
    )


def place(images: Tensor, accel: Accel) -> Tensor:
    """Images on the device, in the memory layout that its convolutions like best."""
    layout = torch.channels_last if accel.device.type == "cpu" else torch.contiguous_format
    return images.to(accel.device).contiguous(memory_format=layout)


def _targets(labels: Tensor, classes: int, loss: str) -> tuple[Tensor, str]:
    """Labels as the loss takes them, and the loss that takes them; see ``Protocol``."""
    if labels.ndim == 1:
        if loss == "cross-entropy":
            return labels, loss
        return (F.one_hot(labels, classes).float() - 1 / classes) / (classes / 10) ** 0.5, loss
    probabilities = bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() < 1e-3).all())
    return labels, loss if probabilities else "squared"


def train_slices(plan: Plan, seeds: list[int]) -> Generator[float, None, Group]:
    """Train ``seeds`` together (one, or an ensemble), yielding the fraction done after every step."""
    ensemble, device = len(seeds) > 1, plan.accel.device
    count, size = len(plan.images), plan.images.shape[2]
    networks = [
        make_network(plan.network, plan.images.shape[1], size, plan.classes, plan.width, seed=seed) for seed in seeds
    ]
    each = [
        {name: place_parameter(p.detach(), plan.images, ensemble) for name, p in network.named_parameters()}
        for network in networks
    ]
    parameters = {name: torch.stack([p[name] for p in each]) for name in each[0]} if ensemble else each[0]
    made = program(plan.network, plan.images.shape[1], size, plan.classes, plan.width, plan.loss, ensemble, plan.accel)
    group = Group(seeds, parameters, made, ensemble)

    rates, restart = plan.protocol.rates(count), plan.protocol.restart(count)
    batch = min(plan.protocol.batch, count)
    streams = [_batches(plan, seed) for seed in seeds]
    pace = Pace()
    for step, rate in enumerate(rates):
        if step in (0, restart):
            optimiser = _optimiser(plan.protocol, list(parameters.values()))
        drawn = [next(stream) for stream in streams]
        images, targets = (torch.stack(part) if ensemble else part[0] for part in zip(*drawn, strict=True))
        full = images.shape[-4] == batch  # a short last batch of an epoch is not worth a compilation of its own
        run = made.fast_step if full and pace.slow(len(rates) - step) else made.step
        with pace:
            gradients, _ = run(parameters, images, targets)
            for name, parameter in parameters.items():
                parameter.grad = gradients[name]
            for settings in optimiser.param_groups:
                settings["lr"] = rate
            optimiser.step()
        yield (step + 1) / len(rates)
    for parameter in parameters.values():
        parameter.grad = None
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return group


def place_parameter(parameter: Tensor, images: Tensor, ensemble: bool) -> Tensor:
    """A parameter of its own storage, of the images' type, device and (but for ensembles) layout."""
    last = parameter.ndim == 4 and not ensemble and images.device.type == "cpu"
    layout = torch.channels_last if last else torch.contiguous_format
    return parameter.to(images.device, images.dtype, copy=True).contiguous(memory_format=layout)


class Pace:
    """How long steps take, from the first few of them, to decide whether compiling pays."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        if len(self.times) < 5:
            self.times.append(time.perf_counter() - self.began)

    def slow(self, left: int) -> bool:
        """Whether ``left`` steps at the fastest pace seen take longer than ``COMPILE_FROM``."""
        return len(self.times) == 5 and min(self.times) * left > COMPILE_FROM


def _optimiser(protocol: Protocol, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if protocol.optimiser == "adam":
        return torch.optim.Adam(parameters, protocol.rate, weight_decay=protocol.weight_decay)
    return torch.optim.SGD(parameters, protocol.rate, protocol.momentum, weight_decay=protocol.weight_decay)


def _batches(plan: Plan, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (images, targets) of one seed: epochs in random order, each batch under an augmentation of its own."""
    generator = torch.Generator().manual_seed(seed)
    count, size = len(plan.images), plan.images.shape[2]
    while True:
        for chosen in torch.randperm(count, generator=generator).split(plan.protocol.batch):
            chosen = chosen.to(plan.images.device)
            images = plan.images[chosen]
            if plan.strategy:
                images = augment.apply(images, augment.draw(plan.strategy, generator, size, len(images)))
            yield place(images, plan.accel), plan.targets[chosen]


def train_students(
    synthetic: SyntheticSet,
    data: Dataset,
    protocol: str,
    *,
    network: str | None = None,
    seeds: list[int],
    accel: Accel | None = None,
) -> list[nn.Module]:
    """Networks trained on ``synthetic`` from ``seeds``, in evaluation mode, on the device.

    They take images in the space of ``synthetic`` (``synthetic.prepare``). Raises ``Refused`` when set, dataset,
    protocol and network do not fit.
    """
    plan = make_plan(synthetic, data, protocol, network, accel)
    networks = []
    for members in plan.groups(seeds):
        slices = train_slices(plan, members)
        while True:
            try:
                next(slices)
            except StopIteration as end:
                networks += _modules(plan, end.value)
                break
    return networks


def _modules(plan: Plan, group: Group) -> list[nn.Module]:
    blank = make_network(plan.network, plan.images.shape[1], plan.images.shape[2], plan.classes, plan.width)
    blank = blank.to(plan.images.device, plan.images.dtype)
    modules = []
    for i in range(len(group.seeds)):
        module = copy.deepcopy(blank).eval()
        module.load_state_dict({k: v[i] if group.ensemble else v for k, v in group.parameters.items()})
        modules.append(module)
    return modules


def train_student(
    synthetic: SyntheticSet,
    data: Dataset,
    protocol: str,
    network: str | None = None,
    seed: int = 0,
    accel: Accel | None = None,
) -> nn.Module:
    """One network trained on ``synthetic``; see ``train_students``."""
    return train_students(synthetic, data, protocol, network=network, seeds=[seed], accel=accel)[0]
