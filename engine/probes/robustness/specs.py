"""Shortcuts, robustness, transfer: what the probes can be asked (torch-free)."""

from __future__ import annotations

from typing import Any, Literal

from engine.probes.base import ProbeInfo
from engine.table import Frozen, field

_HOME = "engine.probes.robustness"


def _students() -> Any:
    return field(
        "",
        "Students",
        "st",
        "Ids of trained students, separated by commas; “python -m engine student list” shows them.",
        min_length=1,
        max_length=2000,
    )


def _seed() -> Any:
    return field(0, "Seed", "s", "Seed of everything random.", True, ge=0, le=1_000_000)


def _images(default: int, most: int = 10_000) -> Any:
    return field(default, "Test images", "n", "Test images looked at, drawn at random.", ge=10, le=most)


class ShortcutSpec(Frozen):
    """Stars and moons: does a distilled set carry the shortcut of its training images over?"""

    method: Literal["dm", "dc"] = field("dm", "Method", "m", "The distillation method.")
    ipc: int = field(1, "Images per class", "ipc", "Distilled, and random real, images per class (IPC).", ge=1, le=50)
    steps: int = field(200, "Distilling steps", "n", "Steps of each distillation.", ge=1, le=10_000)
    agreement: float = field(
        1.0,
        "Agreement",
        "ag",
        "Share of the training images whose position agrees with their class: 1 is a perfect shortcut, 0.5 none.",
        ge=0.5,
        le=1.0,
    )
    layout: Literal["halves", "corners"] = field(
        "halves",
        "Positions",
        "lay",
        "halves: stars on the left, moons on the right. corners: stars at the lower left and upper right, moons at "
        "the upper left and lower right, as in Geirhos et al.",
    )
    sets: int = field(3, "Repeats", "r", "Training sets, each distilled and drawn from a seed of its own.", ge=1, le=20)
    students: int = field(
        2, "Students per set", "st", "Networks trained on each set from different seeds.", ge=1, le=10
    )
    network: Literal["convnet", "lenet", "mlp", "resnet18", "vit"] = field(
        "convnet", "Network", "net", "What the students are; the set is always distilled with a ConvNet.", True
    )
    protocol: Literal["quick", "dc", "dsa"] = field(
        "quick", "Protocol", "p", "How every student is trained, whatever the set.", True
    )
    images: int = field(
        400, "Training images per class", "tr", "Real images of each class to distil from.", True, ge=60, le=4000
    )
    width: int = field(32, "Network width", "w", "Channels of each layer while distilling.", True, ge=8, le=128)
    seed: int = _seed()


class SubgroupsSpec(Frozen):
    """Groups of test images by class and by the colour of their background: who is left behind?"""

    students: str = _students()
    colours: int = field(4, "Background colours", "k", "Colours that backgrounds are sorted into.", ge=2, le=8)
    border: int = field(2, "Border", "b", "Pixels from each edge that count as background.", True, ge=1, le=8)
    images: int = _images(2000)
    smallest: int = field(
        20, "Smallest group", "sm", "Groups of fewer images are listed but judged by nothing.", True, ge=2, le=500
    )
    shuffles: int = field(
        200, "Shuffles", "sh", "Random regroupings that say how large a spread chance makes.", True, ge=20, le=5000
    )
    seed: int = _seed()


class RobustnessSpec(Frozen):
    """Accuracy under common corruptions and adversarial attacks."""

    students: str = _students()
    images: int = _images(300)
    attacked: int = field(
        100, "Attacked images", "na", "How many of them are attacked; 0 for no attacks.", ge=0, le=2000
    )
    searched: int = field(
        12,
        "Searched images",
        "ns",
        "How many of the attacked images the smallest radius that changes the answer is searched for; 0 for none.",
        ge=0,
        le=200,
    )
    epsilon: float = field(
        4.0,
        "Attack radius",
        "eps",
        "Largest change of a pixel at severity 2, in 255ths of the pixel range; half of it at 1, twice at 3.",
        ge=0.25,
        le=64.0,
    )
    steps: int = field(7, "PGD steps", "as", "Gradient steps of PGD.", True, ge=1, le=100)
    reach: int = field(64, "Largest radius searched", "re", "In 255ths of the pixel range.", True, ge=2, le=255)
    seed: int = _seed()


class TransferSpec(Frozen):
    """What a student has learned, put to use on another dataset: foretold by scores, and measured."""

    students: str = _students()
    target: str = field(
        "digits",
        "Target dataset",
        "d",
        "The dataset to transfer to, a dataset id or folder:PATH. Its images are resized, and made grey or coloured, "
        "as each student needs.",
        min_length=1,
        max_length=500,
    )
    images: int = field(
        500, "Training images", "n", "Training images of the target for scores and transfer.", ge=20, le=5000
    )
    tested: int = field(1000, "Test images", "nt", "Test images of the target.", ge=20, le=10_000)
    steps: int = field(
        60, "Fine-tuning steps", "ft", "Steps of 64 images that train the whole network; 0 for none.", ge=0, le=5000
    )
    rate: float = field(0.01, "Fine-tuning rate", "lr", "Largest learning rate of fine-tuning.", True, ge=1e-5, le=1.0)
    size: int = field(
        32, "Image size", "px", "Side in pixels to which a folder's images are resized.", True, ge=28, le=64
    )
    seed: int = _seed()


class FoolingSpec(Frozen):
    """Adversarial examples made on one student, shown to the others."""

    students: str = _students()
    images: int = _images(150, 2000)
    epsilon: float = field(
        8.0, "Attack radius", "eps", "Largest change of a pixel, in 255ths of the pixel range.", ge=0.25, le=64.0
    )
    attack: Literal["pgd", "fgsm"] = field(
        "pgd", "Attack", "a", "pgd: several gradient steps (Madry et al. 2018). fgsm: one (Goodfellow et al. 2015)."
    )
    target: str = field(
        "none",
        "Beside transfer to",
        "d",
        "A dataset, by its id or folder:PATH, to which the students are transferred as well: do those that fool others "
        "transfer better, too? none: they are not.",
        min_length=1,
        max_length=500,
    )
    steps: int = field(7, "PGD steps", "as", "Gradient steps of PGD.", True, ge=1, le=100)
    seed: int = _seed()


ROBUSTNESS: tuple[ProbeInfo, ...] = (
    ProbeInfo(
        "shortcut",
        "Stars and moons",
        "Distils a toy set in which position tells the class as well as shape does, and tests what students of the "
        "distilled, of random real and of all images go by (Geirhos et al. 2020).",
        ShortcutSpec,
        f"{_HOME}.shortcut",
    ),
    ProbeInfo(
        "subgroups",
        "Background subgroups",
        "Accuracy in groups of class × background colour: the worst group, and the spread over groups beyond chance.",
        SubgroupsSpec,
        f"{_HOME}.subgroups",
    ),
    ProbeInfo(
        "robustness",
        "Corruptions and attacks",
        "Accuracy under common corruptions (Hendrycks & Dietterich 2019), FGSM and PGD at three severities, and the "
        "smallest radius that changes an answer.",
        RobustnessSpec,
        f"{_HOME}.perturbed",
    ),
    ProbeInfo(
        "transfer",
        "Transfer",
        "LEEP, NCE and H-score of students for another dataset, beside what fixed features and fine-tuning reach.",
        TransferSpec,
        f"{_HOME}.transfer",
    ),
    ProbeInfo(
        "fooling",
        "Fooling one another",
        "How often an adversarial example made on one student fools another, beside how often the two agree anyway "
        "and how well each transfers to another dataset.",
        FoolingSpec,
        f"{_HOME}.fooling",
    ),
)
