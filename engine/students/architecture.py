"""A student's network with its size, and its short name: ``convnet-w64-d4-bn`` (torch-free)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.errors import Refused
from engine.spec import NORMS, STUDENT_NETWORKS, EvaluationSpec
from engine.students.protocols import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from engine.students.train import Plan

ENDINGS = {"none": "nn", "instance": "in", "batch": "bn", "layer": "ln"}
WIDE = ("convnet", "convnet-wide", "edge-popup")  # those whose width can be chosen
DEEP = ("convnet", "edge-popup")
LIMITS = {"width": (8, 512), "depth": (1, 5)}
USUAL = {"depth": 3, "norm": "instance"}


@dataclass(frozen=True)
class Architecture:
    """A network; ``width``, ``depth`` and ``norm`` only where they differ from the protocol's or the usual ones.

    Raises ``Refused`` for what the network does not have.
    """

    network: str
    width: int | None = None
    depth: int | None = None
    norm: str | None = None

    def __post_init__(self) -> None:
        if self.network not in STUDENT_NETWORKS:
            raise Refused(f"There is no network “{self.network[:80]}”; choose one of {', '.join(STUDENT_NETWORKS)}.")
        for name, those in (("width", WIDE), ("depth", DEEP), ("norm", ("convnet",))):
            value = getattr(self, name)
            if value is not None and self.network not in those:
                raise Refused(f"The {name} of {self.network} is fixed; it can be chosen for {' and '.join(those)}.")
            low, high = LIMITS.get(name, (value, value))
            if name in LIMITS and value is not None and not low <= value <= high:
                raise Refused(f"The {name} of a network was {value}, but must be from {low} to {high}.")

    @property
    def label(self) -> str:
        """The short name, by which accuracies are kept apart."""
        parts = [self.network]
        parts += [f"w{self.width}"] if self.width else []
        parts += [f"d{self.depth}"] if self.depth else []
        parts += [ENDINGS[self.norm]] if self.norm else []
        return "-".join(parts)

    def under(self, protocol: Protocol) -> Architecture:
        """The same network, less what ``protocol`` (and the ConvNet) has anyway."""
        own = {"width": protocol.width, **USUAL}
        usual: dict[str, Any] = {name: None for name, value in own.items() if getattr(self, name) == value}
        return replace(self, **usual)

    def values(self) -> dict[str, str | int]:
        """The fields of an ``EvaluationSpec`` that ask for it."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def applied(self, plan: Plan) -> Plan:
        """``plan`` with a network of this size. Raises ``Refused`` where a set is made for one network alone."""
        if plan.course and plan.course.start.fixed and (self.width or self.depth or self.norm):
            raise Refused("This set was made for the fixed weights of one network, whose size cannot be chosen.")
        options = {**dict(plan.options), **{k: getattr(self, k) for k in USUAL if getattr(self, k)}}
        return replace(plan, width=self.width or plan.width, options=tuple(options.items()))


def parse(text: str) -> Architecture:
    """The architecture of a short name. Raises ``Refused`` for what is none."""
    text = text.strip()
    network = max((n for n in STUDENT_NETWORKS if text == n or text.startswith(f"{n}-")), key=len, default="")
    found = re.fullmatch(
        rf"(?:-w(\d{{1,9}}))?(?:-d(\d{{1,9}}))?(?:-({'|'.join(ENDINGS.values())}))?", text.removeprefix(network)
    )
    if not network or found is None:
        raise Refused(
            f"There is no network “{text[:80]}”; choose one of {', '.join(STUDENT_NETWORKS)}, a ConvNet also with its "
            "width, depth and norm: convnet-w64, convnet-d4, convnet-nn (none), -in, -bn or -ln."
        )
    width, depth, ending = found.groups()
    norm = next((norm for norm in NORMS if ENDINGS[norm] == ending), None)
    return Architecture(network, int(width) if width else None, int(depth) if depth else None, norm)


def architecture_of(spec: EvaluationSpec) -> Architecture | None:
    """What ``spec`` asks for; None for the protocol's own network."""
    sized = spec.width or spec.depth or spec.norm
    if spec.network is None and not sized:
        return None
    return Architecture(spec.network or PROTOCOLS[spec.protocol].network, spec.width, spec.depth, spec.norm).under(
        PROTOCOLS[spec.protocol]
    )


# ---- the columns of a cross-architecture table ---------------------------------------------------------------------

TABLE = (
    "mlp", "lenet", "convnet", "convnet-w32", "convnet-w64", "convnet-w128", "convnet-w256", "convnet-d1", "convnet-d2",
    "convnet-d4", "convnet-nn", "convnet-bn", "convnet-ln", "alexnet", "vgg11", "resnet18", "resnet18-bn",
)  # fmt: skip


def columns(protocol: str) -> list[str]:
    """Short names of the networks that a set is tried on under ``protocol``, small to large within a family."""
    return list(dict.fromkeys(parse(name).under(PROTOCOLS[protocol]).label for name in TABLE))
