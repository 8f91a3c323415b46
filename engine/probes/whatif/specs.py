"""What-ifs on a distilled set: what can be asked (torch-free)."""

from __future__ import annotations

from typing import Literal

from engine.probes.base import ProbeInfo
from engine.table import Frozen, field

_HOME = "engine.probes.whatif"


class ValuationSpec(Frozen):
    """What is each image of a set worth to the students trained on it?"""

    source: str = field("", "Set", "src", "A run id, or the path of a saved set.", min_length=1, max_length=1000)
    way: Literal["leave-one-out", "shapley"] = field(
        "leave-one-out",
        "Way",
        "way",
        "leave-one-out: the accuracy lost without the image. shapley: what it adds to random parts of the set, which "
        "shares out what several images do alike.",
    )
    seeds: int = field(3, "Students", "st", "Networks trained on each part of the set.", ge=1, le=20)
    images: int = field(
        2000, "Held-out images", "n", "Real images that judge them, none of them test images.", ge=50, le=10_000
    )
    permutations: int = field(10, "Orders", "o", "Random orders for Shapley values.", True, ge=2, le=500)
    tolerance: float = field(
        0.02,
        "Tolerance",
        "tol",
        "An order ends where the accuracy is so close to that of the whole set; the images left add nothing then.",
        True,
        ge=0,
        le=0.5,
    )
    seed: int = field(0, "Seed", "s", "Seed of the students and of the orders.", True, ge=0, le=1_000_000)


WHATIF = (
    ProbeInfo(
        "valuation",
        "Which images matter?",
        "Leave-one-out or Shapley values of each image of a set, on accuracy and class by class.",
        ValuationSpec,
        f"{_HOME}.valuation",
    ),
)
