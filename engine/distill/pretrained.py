"""The networks that unrolled steps begin at: freshly initialised ones, and pre-trained ones, which are kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.accel import Accel, seeded
from engine.data.base import Dataset
from engine.errors import Refused
from engine.home import aside, cache_folder
from engine.networks import Network, make_network
from engine.students.course import misfit
from engine.synthetic import Start

RECIPE = 1  # raise it when pre-training changes: kept networks are then trained anew
Build = dict[str, Any]  # the arguments of ``make_network``, less the seed


def begin(start: Start, build: Build, seed: int, data: Dataset, accel: Accel) -> Network:
    """The network that steps begin at: the one that ``start`` names, or that of ``seed`` where any of its kind will do.

    ``data``: the dataset at hand, whose shape networks are made for. Raises ``Refused`` when the weights of ``start``
    do not fit ``build``, or its dataset is not here.
    """
    if start.fixed:
        network = make_network(**build)
        try:
            network.load_state_dict({k: w.clone() for k, w in start.weights.items()})
        except RuntimeError:
            raise Refused(misfit(start)) from None
        return network
    if start.initial == "random":
        return fresh(build, seed)
    return pretrained(build, source_dataset(start.source, data), start.source_steps, seed, accel)


def fresh(build: Build, seed: int) -> Network:
    """A network with Xavier-normal weights and zero biases, as the paper's code initialises them."""
    network = make_network(**build)
    with seeded(seed):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
    return network


def pretrained(build: Build, source: Dataset, steps: int, seed: int, accel: Accel) -> Network:
    """A network that has learned ``source`` for ``steps`` steps from ``seed``, on the CPU; kept for next time."""
    network = make_network(**build)
    facts = (RECIPE, sorted(build.items()), steps, seed, _digest(source))
    path = cache_folder("pretrained") / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, RuntimeError):  # not there yet, or damaged: train it
        network.load_state_dict(load_file(path))
        return network
    learned = _train(build, source, steps, seed, accel)
    network.load_state_dict({k: v.cpu() for k, v in learned.state_dict().items()})
    with aside(path) as part:
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, part)
    return network


def _train(build: Build, source: Dataset, steps: int, seed: int, accel: Accel) -> Network:
    """A short training on real images, as full-data students are trained."""
    from engine.students.fit import train_one  # which itself trains students from what this module makes
    from engine.students.train import make_real_plan

    images, labels = source.train_images[source.distil_indices], source.train_labels[source.distil_indices]
    plan = make_real_plan(images, labels, source, "full", build["name"], accel)
    protocol = replace(plan.protocol, epochs=None, steps=((1, steps),))
    slices = train_one(replace(plan, protocol=protocol, width=build["width"], options=options(build)), seed)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return end.value


def options(build: Build) -> tuple[tuple[str, Any], ...]:
    """The arguments of ``make_network`` that ``build`` has beyond those that every network takes."""
    return tuple((k, v) for k, v in build.items() if k not in ("name", "channels", "size", "classes", "width"))


def source_dataset(name: str, data: Dataset) -> Dataset:
    """The dataset ``name`` (``data`` itself where it is that), its training images in the shape of those of ``data``.

    Only as many classes will do. Raises ``Refused``.
    """
    if name in ("", data.name):
        return data
    from engine.data import load

    found = load(name, data.size)
    if len(found.classes) != len(data.classes):
        raise Refused(
            f"Networks cannot be pre-trained on {found.title} (source) for {data.title}: it has {len(found.classes)} "
            f"classes, not {len(data.classes)}. Choose a dataset with as many."
        )
    images = found.train_images
    if found.channels > data.channels:
        images = images.float().mean(1, keepdim=True).round().byte()
    images = images.expand(-1, data.channels, -1, -1)
    if found.size != data.size:
        parts = images.split(1000)
        resized = [F.interpolate(p.float(), data.size, mode="bilinear", antialias=True) for p in parts]
        images = torch.cat([part.round().clamp(0, 255).byte() for part in resized])
    mean, std = _statistics(images)
    return replace(found, train_images=images, test_images=images[:0], mean=mean, std=std, masks={})


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of images scaled to [0, 1]."""
    some = images[:: max(1, len(images) // 5000)].float() / 255
    return tuple(some.mean((0, 2, 3)).tolist()), tuple(some.std((0, 2, 3)).clamp_min(1e-3).tolist())


def _digest(data: Dataset) -> str:
    """What a network learns from: all labels, and enough of the images to tell two datasets apart."""
    some = data.train_images[:: max(1, len(data.train_images) // 256)].contiguous()
    content = some.numpy().tobytes() + data.train_labels.numpy().tobytes() + repr((data.mean, data.std)).encode()
    return hashlib.sha256(content).hexdigest()
