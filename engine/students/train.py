"""Training students: seeds one after another on CPUs, as one batched ensemble on CUDA.

A grouped convolution of several seeds costs a CPU as much as, or several times more than, one network at a time; a GPU
needs the ensemble to be busy. Either way the result of a seed depends on that seed alone: its initial weights, the
order of its batches and its augmentations are drawn from it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap

from engine import augment
from engine.accel import Accel, pick_accel
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import Network, make_network
from engine.students.adversary import Adversary
from engine.students.architecture import WIDE, Architecture
from engine.students.course import Course, follow
from engine.students.protocols import CHARACTERS, TRAINING, Protocol, protocol_for
from engine.synthetic import SyntheticSet

Parameters = dict[str, Tensor]

# Compiling takes 5 to 30 s of a core and makes a CPU's steps about twice as fast: it pays when the eager speed, as
# measured on the first steps, leaves more than this many seconds to go. The quick protocol never gets there.
COMPILE_FROM = 45.0


@dataclass(frozen=True)
class Program:
    """The functions of a network that are worth compiling, eager and compiled.

    ``step(parameters, images, targets, fixed)`` gives (gradients, loss), ``pull`` of the same arguments the gradient
    with respect to the images, ``logits(parameters, images)`` what the network says. ``fixed`` (or nothing) holds what
    is not learned, such as edge-popup's weights. Steps and pulls normalise batches by their own statistics, logits by
    those among the parameters. With an ensemble, all but the images of ``logits`` have a leading dimension of seeds.
    The compiled ones have network objects of their own, because ``functional_call`` swaps parameters inside them and
    another thread may be tracing.
    """

    step: Callable[..., Any]
    pull: Callable[..., Any]
    logits: Callable[..., Any]
    fast_step: Callable[..., Any]
    fast_pull: Callable[..., Any]
    fast_logits: Callable[..., Any]


@lru_cache(maxsize=16)
def program(
    network: str,
    channels: int,
    size: int,
    classes: int,
    width: int,
    loss: str,
    ensemble: bool,
    accel: Accel,
    **options: Any,
) -> Program:
    """The program of a network on a device. Kept, so that a worker compiles it once, not at every evaluation.

    ``options``: further arguments of ``make_network``.
    """

    def build() -> tuple[Callable[..., Any], ...]:
        make = partial(make_network, network, channels, size, classes, width, **options)
        learner, skeleton = _without_statistics(make()), make().eval()

        def call(module: nn.Module, tensors: Parameters, images: Tensor) -> Tensor:
            with accel.autocast():
                return functional_call(module, tensors, (images,))

        def logits(parameters: Parameters, images: Tensor) -> Tensor:
            return call(skeleton, parameters, images)

        def objective(
            parameters: Parameters, images: Tensor, targets: Tensor, fixed: Parameters | None = None
        ) -> Tensor:
            out = call(learner, {**parameters, **(fixed or {})}, images)
            out = out.float() if out.dtype == torch.bfloat16 else out
            return F.cross_entropy(out, targets) if loss == "cross-entropy" else F.mse_loss(out, targets) / 2

        step, pull = grad_and_value(objective), grad(objective, argnums=1)
        if ensemble:
            return vmap(step), vmap(pull), vmap(logits, in_dims=(0, None))
        return step, pull, logits

    eager, fast = build(), build()
    return Program(*eager, *(accel.compiled(f, meanwhile=m) for f, m in zip(fast, eager, strict=True)))


def _without_statistics(network: nn.Module) -> nn.Module:
    """``network`` with batch normalisation by the batch alone: running averages would be changed behind the back of
    ``functional_call`` and lag behind in the few steps a synthetic set takes. They are measured when training ends."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


@dataclass(frozen=True)
class Group:
    """Trained seeds: their parameters and buffers (stacked for an ensemble), and the program that computes with
    them."""

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
    uint8 images are brought into the network's space by ``prepare``, batch by batch. ``shift``: pixels by which light
    augmentation moves them; ``flips``: whether it mirrors them. ``options``: further arguments of ``make_network``.
    ``course``: the steps that the set itself prescribes, where the protocol follows them.
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
    prepare: Callable[[Tensor], Tensor] | None = None
    shift: int = 0
    flips: bool = False
    adversary: Adversary | None = None
    options: tuple[tuple[str, Any], ...] = ()
    course: Course | None = None

    def make(self, seed: int) -> Network:
        """The network as it starts from ``seed``."""
        if self.course:
            return self.course.begin(self.build(), seed, self.accel)
        return make_network(**self.build(), seed=seed)

    @property
    def label(self) -> str:
        """The network's short name, with its width, depth and norm where they are not the usual ones."""
        if self.course:
            return self.network
        options = {name: dict(self.options).get(name) for name in ("depth", "norm")}
        width = self.width if self.network in WIDE else None
        return Architecture(self.network, width, **options).under(self.protocol).label

    def rates(self) -> list[float]:
        """The learning rate of every step."""
        return list(self.course.rates) if self.course else self.protocol.rates(len(self.images))

    def build(self) -> dict[str, Any]:
        """The arguments of ``make_network``, less the seed."""
        channels, size = self.images.shape[1:3]
        shape = {"channels": channels, "size": size, "classes": self.classes}
        return {"name": self.network, **shape, "width": self.width, **dict(self.options)}

    def groups(self, seeds: list[int], ensemble: bool | None = None) -> list[list[int]]:
        """``seeds`` as they are trained: all at once as an ensemble (the default on CUDA), or each alone."""
        together = self.accel.device.type == "cuda" if ensemble is None else ensemble
        return [seeds] if together and len(seeds) > 1 else [[seed] for seed in seeds]


def make_plan(
    synthetic: SyntheticSet, data: Dataset, protocol: str, network: str | None = None, accel: Accel | None = None
) -> Plan:
    """Check that set, dataset and protocol fit, and move the images to the device. Raises ``Refused``."""
    if protocol not in TRAINING:
        raise Refused(f"There is no protocol “{protocol}”; choose one of {', '.join(TRAINING)}.")
    if synthetic.images.shape[1:] != data.train_images.shape[1:]:
        ours, theirs = ("×".join(map(str, t.shape[1:])) for t in (synthetic.images, data.train_images))
        raise Refused(f"The set's images are {ours}, but those of {data.title} are {theirs}; choose its own dataset.")
    if len(synthetic.classes) != len(data.classes):
        raise Refused(
            f"The set has {len(synthetic.classes)} classes, but {data.title} has {len(data.classes)}; "
            "choose its own dataset."
        )
    accel, synthetic = accel or pick_accel(), synthetic.decoded()
    targets, loss = _targets(synthetic.labels, len(synthetic.classes), TRAINING[protocol].loss)
    rate = None if synthetic.step_sizes is None else float(synthetic.step_sizes.mean())
    if TRAINING[protocol].learned_rate and rate is not None and rate <= 0:
        raise Refused(f"The set's learned step size is {rate:g}, which cannot train; choose another protocol than mtt.")
    learned, named = loss == "squared", network or TRAINING[protocol].network
    chosen = protocol_for(protocol, data.name, named, learned, rate)
    plan = _plan(chosen, data, network, place(synthetic.images, accel), targets, loss, accel)
    return follow(plan, synthetic, data, network) if chosen.own_steps else plan


def make_real_plan(images: Tensor, labels: Tensor, data: Dataset, protocol: str, network: str, accel: Accel) -> Plan:
    """A plan for real uint8 images (N, C, H, W) of the size and classes of ``data``, with hard labels (N,)."""
    if images.dtype != torch.uint8 or images.shape[1:] != data.train_images.shape[1:] or len(images) != len(labels):
        raise Refused(f"Real images must be uint8 of the size of those of {data.title}, each with a label.")
    if len(images) == 0:
        raise Refused("There are no images to train on.")
    chosen = protocol_for(protocol, data.name, network)
    if chosen.own_steps:
        raise Refused(f"Real images have no step sizes, by which the protocol {protocol} trains; choose another one.")
    targets, loss = _targets(labels, len(data.classes), chosen.loss)
    plan = _plan(chosen, data, network, images.to(accel.device), targets, loss, accel)
    return replace(plan, prepare=data.normalise)


def _plan(
    protocol: Protocol, data: Dataset, network: str | None, images: Tensor, targets: Tensor, loss: str, accel: Accel
) -> Plan:
    family = protocol.augment
    strategy = augment.strategy_for(data, family) if family and family != "light" else family
    return Plan(
        protocol,
        network or protocol.network,
        protocol.width,
        images,
        targets.to(accel.device),
        loss,
        len(data.classes),
        strategy,
        accel,
        shift=round(data.size / (16 if data.name in CHARACTERS else 8)),
        flips=data.flips,
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
    count = len(plan.images)
    networks = [plan.make(seed) for seed in seeds]

    def stacked(named: Callable[[nn.Module], Iterator[tuple[str, Tensor]]]) -> Parameters:
        each = [{name: place_parameter(t.detach(), plan.images, ensemble) for name, t in named(n)} for n in networks]
        return {name: torch.stack([p[name] for p in each]) for name in each[0]} if ensemble else each[0]

    parameters, fixed = stacked(nn.Module.named_parameters), stacked(_frozen)
    build = plan.build()
    key = [build.pop(name) for name in ("name", "channels", "size", "classes", "width")]
    made = program(*key, plan.loss, ensemble, plan.accel, **build)

    rates, restart = plan.rates(), plan.protocol.restart(count)
    batch = min(plan.protocol.batch, count)
    streams = [_batches(plan, seed) for seed in seeds]
    pace = Pace()
    for step, rate in enumerate(rates):
        if step in (0, restart):
            optimiser = _optimiser(plan.protocol, list(parameters.values()))
        drawn = [next(stream) for stream in streams]
        images, targets, noise = (torch.stack(part) if ensemble else part[0] for part in zip(*drawn, strict=True))
        full = images.shape[-4] == batch  # a short last batch of an epoch is not worth a compilation of its own
        fast = full and pace.slow(len(rates) - step)
        with pace:
            if plan.adversary:
                assert not ensemble  # a projection for each seed would be needed
                pull = made.fast_pull if fast else made.pull
                uphill = partial(_uphill, pull, plan.accel, parameters, targets, fixed)
                images = place(plan.adversary.attack(uphill, images, noise), plan.accel)
            gradients, _ = (made.fast_step if fast else made.step)(parameters, images, targets, fixed)
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
    parameters |= fixed
    return Group(seeds, parameters | _statistics(plan, networks[0], parameters, ensemble), made, ensemble)


def _uphill(pull: Callable[..., Tensor], accel: Accel, *others: Any) -> Tensor:
    """The gradient of the loss at images; ``others``: parameters, targets, what is fixed, and the images."""
    parameters, targets, fixed, images = others
    return pull(parameters, place(images, accel), targets, fixed)


def _frozen(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that a network computes with, but for the statistics of batch normalisation."""
    for path, module in network.named_modules():
        if not isinstance(module, nn.BatchNorm2d):
            yield from module.named_buffers(path, recurse=False)


def _statistics(plan: Plan, network: nn.Module, parameters: Parameters, ensemble: bool) -> Parameters:
    """What batch normalisation divides by in evaluation: mean and variance over the training images as they are.

    Averages over equal random parts of at most 10,000 of them (Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021,
    section 3); empty for networks without batch normalisation.
    """
    norms = {path: m for path, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    if not norms:
        return {}
    first = next(iter(parameters.values()))
    module = network.to(first.device, first.dtype).train()
    found: list[Parameters] = []
    for i in range(len(first) if ensemble else 1):
        module.load_state_dict({k: v[i] if ensemble else v for k, v in parameters.items()}, strict=False)
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # the average of all batches, not a moving one
        order = torch.randperm(len(plan.images), generator=torch.Generator().manual_seed(0))[:10_000]
        for part in order.to(plan.images.device).tensor_split(-(-len(order) // 256)):
            with torch.no_grad(), plan.accel.autocast():
                module(place(_prepared(plan, part), plan.accel))
        found.append({})
        for path, norm in norms.items():
            assert norm.running_mean is not None and norm.running_var is not None
            found[-1] |= {f"{path}.running_mean": norm.running_mean.clone()}
            found[-1] |= {f"{path}.running_var": norm.running_var.clone()}
    return {name: torch.stack([f[name] for f in found]) for name in found[0]} if ensemble else found[0]


def place_parameter(parameter: Tensor, images: Tensor, ensemble: bool) -> Tensor:
    """A parameter of its own storage, of the images' (floating) type, device and (but for ensembles) layout."""
    last = parameter.ndim == 4 and not ensemble and images.device.type == "cpu"
    layout = torch.channels_last if last else torch.contiguous_format
    dtype = images.dtype if images.is_floating_point() else torch.float32
    return parameter.to(images.device, dtype, copy=True).contiguous(memory_format=layout)


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


def _batches(plan: Plan, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless (images, targets, noise) of one seed: epochs in random order (or on the set's course), each batch under
    an augmentation of its own. The noise is where an adversary starts, and empty without one."""
    generator = torch.Generator().manual_seed(seed)
    count, size = len(plan.images), plan.images.shape[2]
    noise = torch.empty(0)
    while True:
        if plan.course:
            epoch = [torch.arange(turn, count, plan.course.turns) for turn in range(plan.course.turns)]
        else:
            epoch = torch.randperm(count, generator=generator).split(plan.protocol.batch)
        for chosen in epoch:
            chosen = chosen.to(plan.images.device)
            images = _prepared(plan, chosen)
            if plan.strategy == "light":
                images = _shifted(images, plan.shift, plan.flips, generator)
            elif plan.strategy:
                images = augment.apply(images, augment.draw(plan.strategy, generator, size, len(images)))
            if plan.adversary:
                noise = (2 * torch.rand(images.shape, generator=generator) - 1).to(images)
            yield place(images, plan.accel), plan.targets[chosen], noise


def _prepared(plan: Plan, chosen: Tensor) -> Tensor:
    """Training images by their indices, in the space of the network."""
    return plan.prepare(plan.images[chosen]) if plan.prepare else plan.images[chosen]


def _shifted(images: Tensor, reach: int, flips: bool, generator: torch.Generator) -> Tensor:
    """Each image moved by whole pixels, up to ``reach`` either way, and half of them mirrored where ``flips``."""
    moves = torch.randint(-reach, reach + 1, (len(images), 2), generator=generator)
    images = augment.apply(images, augment.Draw("shift", moves.float()))
    if flips:
        images = augment.apply(images, augment.Draw("flip", torch.randint(2, (len(images), 1), generator=generator)))
    return images


def train_students(
    synthetic: SyntheticSet,
    data: Dataset,
    protocol: str,
    *,
    network: str | None = None,
    seeds: list[int],
    accel: Accel | None = None,
) -> list[Network]:
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


def _modules(plan: Plan, group: Group) -> list[Network]:
    blank = make_network(**plan.build()).to(plan.images.device, next(iter(group.parameters.values())).dtype)
    modules = []
    for i in range(len(group.seeds)):
        module = copy.deepcopy(blank).eval()
        ours = {k: v[i] if group.ensemble else v for k, v in group.parameters.items()}
        module.load_state_dict({**module.state_dict(), **ours})
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
