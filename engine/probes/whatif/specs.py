"""What-ifs on a set of images: what can be asked (torch-free)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from engine.probes.base import ProbeInfo
from engine.runs.store import Store
from engine.table import Frozen, field

_HOME = "engine.probes.whatif"
Split = Literal["held-out", "test"]
SPLIT_HELP = (
    "held-out: training images kept aside, so that acting on what is found selects nothing on the test images. test: "
    "the test images, for a last look."
)


class SetSpec(Frozen):
    """A question about a set. ``mark`` stands for its state, and is filled in by ``marked``: a run that was resumed, or
    a file that was written anew, is another question."""

    source: str = field("", "Set", "src", "A run id, or the path of a saved set.", min_length=1, max_length=1000)
    mark: str = Field("", max_length=80)


class ValuationSpec(SetSpec):
    """What is each image of a set worth to the students trained on it?"""

    kind: Literal["leave-one-out", "shapley"] = field(
        "leave-one-out",
        "Values",
        "k",
        "leave-one-out: the accuracy lost without the image. shapley: what it adds to random parts of the set, which "
        "shares out what several images teach alike, and takes longer.",
    )
    seeds: int = field(3, "Students", "st", "Networks trained on each part of the set.", ge=1, le=20)
    images: int = field(2000, "Real images", "n", "How many real images judge the students.", ge=50, le=10_000)
    split: Split = field("held-out", "Judged on", "sp", SPLIT_HELP)
    orders: int = field(10, "Orders", "o", "Random orders for Shapley values.", True, ge=2, le=500)
    tolerance: float = field(
        0.02,
        "Tolerance",
        "tol",
        "A random order ends where the accuracy is as close as this to that of the whole set; the images left add "
        "nothing in it.",
        True,
        ge=0,
        le=0.5,
    )
    seed: int = field(0, "Seed", "s", "Seed of the students and of the orders.", True, ge=0, le=1_000_000)


Asked = TypeVar("Asked", bound=SetSpec)


def marked(spec: Asked, store: Store) -> Asked:
    """The same question, about the set as it is on disk now."""
    path = store.result_folder(spec.source) or Path(spec.source).expanduser()
    try:
        path = path / "synthetic.safetensors" if path.is_dir() else path
        state = path.stat()
    except (OSError, ValueError, RuntimeError):  # whoever answers says what is wrong with it
        return spec
    return spec.model_copy(update={"mark": f"{state.st_size}-{state.st_mtime_ns}"})


WHATIF = (
    ProbeInfo(
        "valuation",
        "Which images matter?",
        "Leave-one-out or Shapley values of each image of a set, in accuracy and class by class.",
        ValuationSpec,
        f"{_HOME}.valuation",
        marked,
    ),
)
