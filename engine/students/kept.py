"""Trained students on disk, and back: weights as safetensors, facts as JSON, never a pickle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.accel import Accel
from engine.errors import Refused
from engine.home import aside
from engine.networks import Network, make_network
from engine.runs.store import Store
from engine.spec import STUDENT_NETWORKS
from engine.synthetic import ZCA

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Student:
    """A trained network in evaluation mode with everything that is needed to ask it something.

    ``facts`` is what ``student.json`` holds: name, source, network, protocol, seed, dataset, classes, channels, size,
    mean, std, accuracy (fraction of the test images), per_class, confusion (rows: true class; counts), mistakes, and
    the spec. ``zca`` where it was trained on whitened images.
    """

    id: str
    module: Network
    facts: dict[str, Any]
    zca: ZCA | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.facts["name"]

    @property
    def dataset(self) -> str:
        """Id of the dataset whose classes it knows."""
        return self.facts["dataset"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes, in the order of its outputs."""
        return tuple(self.facts["classes"])

    def prepare(self, pixels: Tensor) -> Tensor:
        """Images (N, C, H, W), uint8 in 0..255 or floating in [0, 1], into the space the network was trained in.

        Differentiable for floating images: normalised, and whitened where the student was trained on whitened images.
        """
        device = next(self.module.parameters()).device
        pixels = pixels.to(device)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        mean = torch.tensor(self.facts["mean"], device=device).view(-1, 1, 1)
        std = torch.tensor(self.facts["std"], device=device).view(-1, 1, 1)
        out = (pixels - mean) / std
        return self.zca.whiten(out) if self.zca else out

    def logits(self, pixels: Tensor, batch: int = 250) -> Tensor:
        """(N, K) float32 logits on the CPU of images as ``prepare`` takes them; without gradients."""
        with torch.no_grad():
            return torch.cat([self.module(self.prepare(part)).float().cpu() for part in pixels.split(batch)])


def save_student(
    folder: Path, module: nn.Module, facts: dict[str, Any], build: dict[str, Any], zca: ZCA | None = None
) -> None:
    """Write ``student.safetensors`` and ``student.json`` into ``folder``, each aside and then renamed.

    ``build``: the arguments of ``make_network`` that make the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    facts = {"format": FORMAT, **facts, "build": build}
    if zca is not None:
        tensors |= {"zca.components": zca.components, "zca.gains": zca.gains, "zca.centre": zca.centre}
        facts["zca_base"] = zca.base
    with aside(folder / "student.safetensors") as part:
        save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, part)
    with aside(folder / "student.json") as part:
        part.write_text(json.dumps(facts))


def load_student(store: Store, id: str, accel: Accel) -> Student:
    """The student that run ``id`` trained, on the device. Raises ``Refused`` when there is none."""
    facts = store.student(id)
    if facts is None:
        raise Refused(
            f"There is no trained student “{str(id)[:80]}”; “python -m engine student list” shows those there are."
        )
    try:
        tensors = load_file(store.folder(id) / "student" / "student.safetensors")
        module = make_network(**_checked(facts))
        module.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
        zca = None
        if "zca_base" in facts:
            zca = ZCA(tensors["zca.components"], tensors["zca.gains"], float(facts["zca_base"]), tensors["zca.centre"])
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, Refused):
            raise
        reason = type(error).__name__
        raise Refused(f"The files of student {id} cannot be read ({reason}); train it again.") from None
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise Refused(f"The weights of student {id} are not all finite numbers; train it again.")
    return Student(id, module.eval().to(accel.device), facts, zca)


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``make_network`` in a student's facts, none out of range; raises what wrong values raise.

    The files may come from elsewhere: no number in them decides how much memory is taken before it was looked at.
    """
    build = facts["build"]
    limits = {"channels": (1, 3), "size": (8, 256), "classes": (2, 1000), "width": (1, 512), "depth": (1, 5)}
    for name, (low, high) in {**limits, "seed": (0, 2**31 - 1)}.items():
        value = build.get(name, low)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(name)
    if build["name"] not in STUDENT_NETWORKS or not 0.05 <= float(build.get("keep", 0.5)) <= 1:
        raise ValueError("build")
    if build.get("weights", "kaiming") not in ("kaiming", "signed"):
        raise ValueError("weights")
    counts = (len(facts["classes"]), len(facts["mean"]), len(facts["std"]))
    if counts != (build["classes"], build["channels"], build["channels"]):
        raise ValueError("facts")
    if not all(math.isfinite(m) for m in facts["mean"]) or not all(0 < s < math.inf for s in facts["std"]):
        raise ValueError("normalisation")
    if not isinstance(facts["name"], str) or not isinstance(facts["dataset"], str):
        raise ValueError("names")
    return build


def load_students(store: Store, ids: str, accel: Accel, most: int = 20) -> list[Student]:
    """The students with these ids, separated by commas. Raises ``Refused`` for none, for too many, for unknown ones."""
    names = list(dict.fromkeys(filter(None, (part.strip() for part in ids.split(",")))))
    if not 1 <= len(names) <= most:
        raise Refused(f"Name 1 to {most} students by their ids, separated by commas, not {len(names)}.")
    return [load_student(store, name, accel) for name in names]
