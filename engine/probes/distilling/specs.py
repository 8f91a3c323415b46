"""Questions about a distillation: what can be asked (torch-free)."""

from __future__ import annotations

from typing import Any, Literal

from engine.probes.base import ProbeInfo
from engine.table import Frozen, field

_HOME = "engine.probes.distilling"


def _run() -> Any:
    return field("", "Run", "run", "Id of a distillation.", min_length=1, max_length=100)


class SlowStepSpec(Frozen):
    """One step of a distillation, taken again from the images of one of its frames."""

    run: str = _run()
    step: int | None = field(
        None, "Step", "n", "The frame whose images are moved; the last one unless given.", ge=0, le=10_000_000
    )
    seed: int = field(0, "Seed", "s", "Seed of the networks and the real images.", True, ge=0, le=2**31 - 1)


class FeatureMapSpec(Frozen):
    """Real images as clouds in a network's feature space, and the path of the synthetic ones through them."""

    run: str = _run()
    network: Literal["auto", "random"] = field(
        "auto",
        "Network",
        "net",
        "Whose features: auto takes a student of all images of the dataset where one has been trained, else a random "
        "ConvNet, as random does.",
    )
    frames: int = field(24, "Frames", "f", "Moments of the run, evenly spread.", ge=2, le=120)
    images: int = field(50, "Real images per class", "im", "Test images that make a class's cloud.", ge=5, le=500)
    seed: int = field(0, "Seed", "s", "Seed of the choice of images and of a random network.", True, ge=0, le=2**31 - 1)


DISTILLING = (
    ProbeInfo(
        "slow-step",
        "One step in slow motion",
        "The real images that a step sees, where it would move each pixel, and where it does.",
        SlowStepSpec,
        f"{_HOME}.slow_step",
    ),
    ProbeInfo(
        "feature-map",
        "Map of feature space",
        "Clouds of real images in two dimensions, and the synthetic images on their way through them.",
        FeatureMapSpec,
        f"{_HOME}.feature_map",
    ),
)
