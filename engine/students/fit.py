"""One network on real images: what full-data students, teachers and probes that train their own students use."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from torch import Tensor

from engine.accel import Accel
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import Network, parameter_count
from engine.students.kept import Student
from engine.students.train import Plan, _modules, make_real_plan, train_slices


def fit(
    images: Tensor,
    labels: Tensor,
    dataset: Dataset,
    network: str,
    *,
    seed: int,
    epochs: int | None = None,
    steps: int | None = None,
    accel: Accel,
    tell: Callable[[float], None] | None = None,
    width: int = 128,
) -> Network:
    """A network trained under the ``full`` protocol on real images, in evaluation mode, on the device.

    ``images`` (N, C, H, W) uint8 and ``labels`` (N,) int64 need not be those of ``dataset``, which lends its classes,
    normalisation and whether a mirrored image keeps its class. ``epochs`` or ``steps`` replace the protocol's own
    length. ``tell`` hears the fraction done after every step and may raise to stop. The same seed on the same machine
    gives the same network. Raises ``Refused`` when images and network do not fit.
    """
    plan = make_real_plan(images, labels, dataset, "full", network, accel)
    if steps is not None:
        plan = replace(plan, protocol=replace(plan.protocol, epochs=None, steps=((1, steps),)))
    slices = train_one(shortened(plan, epochs, width), seed)
    while True:
        try:
            fraction = next(slices)
        except StopIteration as end:
            return end.value
        if tell:
            tell(fraction)


def shortened(plan: Plan, epochs: int | None = None, width: int | None = None) -> Plan:
    """``plan`` with so many epochs, and so wide a network, where they are given. Raises ``Refused`` where the set
    itself says how many steps there are."""
    if plan.course and epochs is not None:
        raise Refused("This protocol takes the steps that the set was made for; leave the number of epochs out.")
    protocol = plan.protocol if epochs is None else replace(plan.protocol, epochs=epochs)
    return replace(plan, protocol=protocol, width=width or plan.width)


def train_one(plan: Plan, seed: int) -> Generator[float, None, Network]:
    """Train one network, yielding the fraction done after every step; the network is the return value."""
    group = yield from train_slices(plan, [seed])
    return _modules(plan, group)[0]


def as_student(module: Network, data: Dataset, name: str, **facts: Any) -> Student:
    """A trained network as a ``Student`` that is not kept: it can be asked whatever a kept one can.

    ``facts``: further ones, such as ``network`` or ``source``; they replace those made here.
    """
    own = {
        "name": name,
        "dataset": data.name,
        "classes": list(data.classes),
        "channels": data.channels,
        "size": data.size,
        "mean": list(data.mean),
        "std": list(data.std),
        "parameters": parameter_count(module),
    }
    return Student(name, module.eval(), {**own, **facts}, None)
