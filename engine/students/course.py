"""The course of training that a set itself prescribes: where it begins, which images each step sees, how long it is.

Sets that are distilled through unrolled gradient descent (Wang et al., Dataset Distillation, 2018) are made for exactly
these steps; an ordinary optimiser gets little out of them. The protocol ``dd`` takes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.accel import Accel
from engine.data.base import Dataset
from engine.errors import Refused
from engine.networks import Network, make_network
from engine.students.protocols import Protocol
from engine.synthetic import Start, SyntheticSet

if TYPE_CHECKING:
    from engine.students.train import Plan

SMALL = ("lenet", "mlp")  # networks that are no faster in bf16 on the few images of a step


def exact(accel: Accel) -> Accel:
    """``accel`` in fp32: steps of a size above 1 make much of a little rounding, points of accuracy even."""
    return replace(accel, bf16=False)


@dataclass(frozen=True)
class Course:
    """``rates``: the size of each step. Step t sees the images n with n = t modulo ``turns``. ``data``: the dataset
    that pre-trained networks take their shape from, and learn where ``start`` does not name another."""

    rates: tuple[float, ...]
    turns: int
    start: Start
    data: Dataset

    def begin(self, build: dict[str, Any], seed: int, accel: Accel) -> Network:
        """The initial network of student ``seed``: the same for all where the set was made for one."""
        from engine.distill.pretrained import begin  # which itself trains students

        return begin(self.start, build, seed, self.data, accel)


def follow(plan: Plan, synthetic: SyntheticSet, data: Dataset, network: str | None) -> Plan:
    """``plan`` on the course of ``synthetic``, with the network that it was made for unless another is asked for.

    Raises ``Refused`` when the set has no course, or knows one network alone and another is asked for.
    """
    start, sizes = synthetic.start, synthetic.step_sizes
    if start is None or sizes is None:
        raise Refused(
            f"The protocol {plan.protocol.name} trains by a set's own learned step sizes, and this set has none. "
            "Choose another protocol, or a set that was distilled with dd."
        )
    course = Course(tuple(sizes.tolist()), synthetic.turns, start, data)
    protocol: Protocol = replace(
        plan.protocol, steps=((1, len(sizes)),), batch=len(synthetic.images) // synthetic.turns
    )
    options = (("depth", start.depth),)
    chosen = replace(
        plan, protocol=protocol, network=network or start.network, width=start.width, options=options, course=course
    )
    if chosen.network in SMALL:
        chosen = replace(chosen, accel=exact(chosen.accel))
    if start.fixed:
        blank = make_network(**chosen.build()).state_dict()
        if {k: t.shape for k, t in blank.items()} != {k: w.shape for k, w in start.weights.items()}:
            raise Refused(misfit(start))
    return chosen


def misfit(start: Start) -> str:
    """Why a set made for one network's weights cannot be trained on with another network."""
    size = f" of width {start.width}, depth {start.depth}" if start.network.startswith("convnet") else ""
    return (
        f"This set was made for the fixed initial weights of one {start.network}{size}, so nothing else can follow its "
        "steps; choose that network, or another protocol."
    )
