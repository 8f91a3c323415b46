"""Runs that are known to converge, with what each was measured to reach and to take (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.methods import METHODS
from engine.spec import RunSpec, build_spec


@dataclass(frozen=True)
class Expectation:
    """What a preset reached when it was measured; ``accuracy`` None: not measured, so nothing is promised.

    ``accuracy`` and ``spread`` (one standard deviation over students) are fractions in [0, 1] of the test images;
    ``minutes`` is the distilling time, ``student_minutes`` that of training one student afterwards; ``machine`` what it
    all ran on.
    """

    accuracy: float | None = None
    spread: float | None = None
    protocol: str = ""
    minutes: float | None = None
    student_minutes: float | None = None
    machine: str = ""

    def sentence(self) -> str:
        """The expectation as one sentence; empty when nothing was measured."""
        if self.accuracy is None:
            return ""
        spread = "" if self.spread is None else f" ± {100 * self.spread:.1f}"
        text = f"Reached {100 * self.accuracy:.1f}{spread} % on the test images ({self.protocol} protocol)"
        if self.minutes is not None:
            text += f" after {_minutes(self.minutes)} of distilling"
        text += f" on {self.machine}." if self.machine else "."
        if self.student_minutes is not None:
            text += f" Training each student for that takes {_minutes(self.student_minutes)} more."
        return text


@dataclass(frozen=True)
class Preset:
    """A named run. ``values`` are those ``build_spec`` takes; ``quick``: there is something to see within a minute."""

    id: str
    title: str
    about: str
    values: dict[str, Any]
    expect: Expectation = field(default_factory=Expectation)
    quick: bool = False

    @property
    def spec(self) -> RunSpec:
        """The run as a validated spec."""
        return build_spec("distill", **self.values)

    def sentence(self) -> str:
        """What to expect, in words; without a measurement only how long it distils."""
        spec = self.spec
        known = self.expect.sentence()
        takes = f"Distils for {_minutes(spec.minutes)}" if spec.minutes else f"Distils for {spec.steps:,} steps"
        return known or f"{takes} with {METHODS[spec.method].name.lower()}."


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return "1 minute" if minutes == 1 else f"{minutes:g} minutes"


XEON = "two cores of a 2.8 GHz Xeon"
AMX = "two cores of a 2.6 GHz Xeon with bf16 units (AMX)"

PRESETS: dict[str, Preset] = {
    p.id: p
    for p in (
        Preset(
            "digits-dc-1",
            "Digits, one image each",
            "Built-in handwritten digits: the 1,797 small scans of scikit-learn become ten images.",
            {"dataset": "digits", "method": "dc", "ipc": 1, "init": "real", "minutes": 0.5},
            quick=True,
        ),
        Preset(
            "digits-dm-10",
            "Digits, ten images each",
            "The same digits with ten images per class: how much does more room help?",
            {"dataset": "digits", "method": "dm", "ipc": 10, "init": "real", "minutes": 0.5},
            quick=True,
        ),
        Preset(
            "shapes-dm-1",
            "Shapes, one image each",
            "Coloured shapes made by Limbeck itself: ten shapes, ten textures, no download.",
            {"dataset": "shapes", "method": "dm", "ipc": 1, "init": "real", "minutes": 1},
            quick=True,
        ),
        Preset(
            "mnist-dc-1",
            "MNIST, one image each",
            "60,000 handwritten digits become ten images by matching gradients.",
            {"dataset": "mnist", "method": "dc", "ipc": 1, "init": "real", "minutes": 2, "lr_img": 0.2},
            Expectation(0.917, 0.004, "DC", 2, 1.1, XEON),
        ),
        Preset(
            "mnist-10",
            "MNIST, ten images each",
            "60,000 handwritten digits become a hundred images with learned labels.",
            {
                "dataset": "mnist",
                "method": "frepo",
                "ipc": 10,
                "init": "real",
                "minutes": 10,
                "students": 1,
                "lr_img": 0.02,
                "network": "convnet-wide",
                "width": 64,
                "augment": False,
            },
            Expectation(0.980, 0.0005, "FRePo", 10, 7.5, AMX),
        ),
        Preset(
            "mnist-frepo-1",
            "MNIST, one image each, learned labels",
            "Ten images and their learned labels.",
            {
                "dataset": "mnist",
                "method": "frepo",
                "ipc": 1,
                "init": "real",
                "minutes": 10,
                "lr_img": 0.01,
                "network": "convnet-wide",
                "augment": False,
            },
            Expectation(0.920, 0.009, "FRePo", 10, None, AMX),
        ),
        Preset(
            "cifar10-frepo-1",
            "CIFAR-10, one image each",
            "50,000 photographs become ten images with learned labels.",
            {
                "dataset": "cifar10",
                "method": "frepo",
                "ipc": 1,
                "init": "real",
                "minutes": 10,
                "zca": True,
                "lr_img": 0.01,
                "network": "convnet-wide",
            },
            Expectation(0.472, 0.004, "FRePo", 10, 0.5, AMX),
        ),
        Preset(
            "cifar10-frepo-10",
            "CIFAR-10, ten images each",
            "50,000 photographs become a hundred images with learned labels.",
            {
                "dataset": "cifar10",
                "method": "frepo",
                "ipc": 10,
                "init": "real",
                "minutes": 30,
                "students": 1,
                "zca": True,
                "lr_img": 0.01,
                "network": "convnet-wide",
            },
            Expectation(0.611, 0.005, "FRePo", 30, None, AMX),
        ),
        Preset(
            "cifar10-frepo-50",
            "CIFAR-10, fifty images each, learned labels",
            "Five hundred images with learned labels; a student of them takes an hour on a CPU.",
            {
                "dataset": "cifar10",
                "method": "frepo",
                "ipc": 50,
                "init": "real",
                "minutes": 30,
                "students": 0,
                "zca": True,
                "lr_img": 0.01,
                "network": "convnet-wide",
            },
            Expectation(0.660, None, "FRePo", 30, 74, AMX),
        ),
        Preset(
            "cifar10-dm-10",
            "CIFAR-10, distribution matching",
            "The same hundred images from matching feature means, with ordinary labels.",
            {"dataset": "cifar10", "method": "dm", "ipc": 10, "init": "real", "minutes": 5},
            Expectation(0.474, None, "DSA", 5, 3.7, XEON),
        ),
        Preset(
            "cifar10-dm-50",
            "CIFAR-10, fifty images each",
            "Five hundred images from matching feature means: each weighs less in a class mean, so it moves further.",
            {
                "dataset": "cifar10",
                "method": "dm",
                "ipc": 50,
                "init": "real",
                "minutes": 10,
                "students": 1,
                "lr_img": 10.0,
                "refresh": 1,
                "cosine": True,
            },
            Expectation(0.578, None, "DSA", 10, 21, AMX),
        ),
        Preset(
            "mnist-dm-10",
            "MNIST, distribution matching",
            "A hundred images from matching feature means, with ordinary labels.",
            {"dataset": "mnist", "method": "dm", "ipc": 10, "init": "real", "minutes": 10},
            Expectation(0.965, 0.002, "DC", 10, 4.2, XEON),
        ),
        Preset(
            "cifar10-datadam-10",
            "CIFAR-10, attention matching",
            "A hundred images in which random networks look where they look in the real ones.",
            {"dataset": "cifar10", "method": "datadam", "ipc": 10, "init": "real", "minutes": 20},
            Expectation(0.481, 0.004, "DSA", 20, None, AMX),
        ),
        # Beyond one image per class the network trains between two updates: with a tenth of the paper's epochs at ten
        # times its rate it goes as far, and with ten times its step size for a tenth of the updates so do the images.
        Preset(
            "mnist-dc-10",
            "MNIST, gradient matching",
            "A hundred images that push a network, all along its training, where the real ones would.",
            {
                "dataset": "mnist",
                "method": "dc",
                "ipc": 10,
                "init": "real",
                "minutes": 15,
                "students": 1,
                "lr_img": 1.0,
                "inner_loop": 5,
                "lr_net": 0.1,
            },
            Expectation(0.962, 0.0004, "DC", 15, 6.8, XEON),
        ),
        Preset(
            "cifar10-dsa-1",
            "CIFAR-10, gradient matching, one image each",
            "Ten images whose gradients match those of real ones, both augmented alike.",
            {"dataset": "cifar10", "method": "dsa", "ipc": 1, "init": "real", "minutes": 12},
            Expectation(0.287, 0.007, "DSA", 12, 1.2, XEON),
        ),
        Preset(
            "cifar10-dsa-10",
            "CIFAR-10, gradient matching",
            "A hundred images whose gradients match those of real ones, both augmented alike.",
            {
                "dataset": "cifar10",
                "method": "dsa",
                "ipc": 10,
                "init": "real",
                "minutes": 12,
                "students": 1,
                "lr_img": 1.0,
                "inner_loop": 5,
                "lr_net": 0.1,
            },
            Expectation(0.481, 0.002, "DSA", 12, None, AMX),
        ),
        Preset(
            "mnist-dd-1",
            "MNIST, ten images for one network",
            "Ten images and three learned steps of gradient descent that turn one LeNet, from these very initial "
            "weights and no others, into a reader of digits.",
            {
                "dataset": "mnist",
                "method": "dd",
                "initial": "fixed",
                "ipc": 1,
                "init": "real",
                "minutes": 5,
                "network": "lenet",
                "lr_img": 0.06,
                "lr_step": 0.1,
                "batch_real": 128,
                "cosine": True,
                "clip": True,
                "keep_best": True,
            },
            Expectation(0.931, None, "DD", 5, None, AMX),
        ),
        Preset(
            "mnist-dd-10",
            "MNIST, unrolled for any network",
            "A hundred images and thirty learned steps of gradient descent for any freshly initialised LeNet.",
            {
                "dataset": "mnist",
                "method": "dd",
                "initial": "random",
                "ipc": 10,
                "init": "real",
                "minutes": 30,
                "network": "lenet",
                "distill_steps": 10,
                "distill_epochs": 3,
                "lr_step": 0.1,
                "lr_img": 0.01,
                "cosine": True,
                "clip": True,
            },
            Expectation(0.806, 0.033, "DD", 30, None, AMX),
        ),
        # A narrow network three times as fast to learn gives many updates instead of few long ones.
        Preset(
            "cifar10-rat-10",
            "CIFAR-10, unrolled in windows",
            "A hundred images that train a network well, learned from the last steps of many short trainings.",
            {
                "dataset": "cifar10",
                "method": "rat",
                "ipc": 10,
                "init": "real",
                "minutes": 15,
                "zca": True,
                "width": 32,
                "total": 40,
                "window": 10,
                "lr_net": 0.003,
                "lr_img": 0.03,
                "batch_real": 256,
            },
            Expectation(0.497, 0.002, "RaT", 15, None, AMX),
        ),
        Preset(
            "digits-mtt-1",
            "Digits, trajectory matching",
            "Ten images on which a network takes the path that it takes on all the digits.",
            {
                "dataset": "digits",
                "method": "mtt",
                "ipc": 1,
                "init": "real",
                "minutes": 1,
                "width": 32,
                "lr_img": 1000.0,
                "syn_steps": 10,
                "step_size": 0.05,
                "experts": 3,
                "expert_rate": 0.05,
                "batch_real": 64,
            },
            quick=True,
        ),
        # Experts of half the paper's width, at twice its learning rate, and twelve of them instead of a hundred: some
        # minutes of the budget go into recording them.
        Preset(
            "cifar10-mtt-1",
            "CIFAR-10, trajectory matching",
            "Ten images on which a network takes the path that it takes on 50,000 photographs.",
            {
                "dataset": "cifar10",
                "method": "mtt",
                "ipc": 1,
                "init": "real",
                "minutes": 45,
                "zca": True,
                "width": 64,
                "lr_img": 300.0,
                "syn_steps": 50,
                "step_size": 0.024,
                "experts": 12,
                "epochs": 2,
                "expert_epochs": 1,
                "expert_rate": 0.02,
            },
            Expectation(0.424, 0.003, "MTT", 45, 0.6, AMX),
        ),
    )
}

DEFAULT = "digits-dc-1"
