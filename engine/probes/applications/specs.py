"""Applications of the papers: what can be asked (torch-free)."""

from __future__ import annotations

from typing import Any, Literal

from engine.probes.base import ProbeInfo
from engine.table import Frozen, field

_HOME = "engine.probes.applications"


def _dataset() -> Any:
    return field(
        "digits", "Dataset", "ds", "A dataset id, or folder:PATH for images of your own.", min_length=1, max_length=500
    )


def _seed() -> Any:
    return field(0, "Seed", "s", "Seed of everything random.", True, ge=0, le=1_000_000)


class InversionSpec(Frozen):
    """Gradient inversion: the gradient of one image gives the image away."""

    dataset: str = _dataset()
    image: int = field(
        0, "First image", "i", "The first of the dataset's test images to be recovered.", ge=0, le=100_000
    )
    images: int = field(5, "Images", "k", "How many of them, from the first one on.", ge=1, le=50)
    network: Literal["lenet-sigmoid", "convnet"] = field(
        "lenet-sigmoid",
        "Network",
        "net",
        "Whose gradient is shared: the LeNet with sigmoids that DLG attacks, or a ConvNet with ReLUs.",
    )
    label: Literal["read", "fitted"] = field(
        "read",
        "Label",
        "lab",
        "read: from the sign of the last layer's gradient, exactly (iDLG). fitted: together with the image (DLG).",
    )
    behind: int = field(
        1,
        "Images behind it",
        "b",
        "Images of one class whose mean gradient is shared. With many of them the attack becomes gradient matching, "
        "and what is found is a distilled image.",
        ge=1,
        le=64,
    )
    noise: float = field(
        0.0,
        "Noise",
        "no",
        "Defence: Gaussian noise on the shared gradient, in units of its root mean square.",
        ge=0,
        le=10,
    )
    steps: int = field(100, "Steps", "n", "Steps of L-BFGS, of up to 20 evaluations each.", True, ge=5, le=2000)
    starts: int = field(
        3, "Starts", "st", "Random images to start from, one after another until one fits.", True, ge=1, le=20
    )
    seed: int = _seed()


class ContinualSpec(Frozen):
    """Continual learning: classes arrive one after another, and only a small memory of each stays."""

    dataset: str = _dataset()
    ipc: int = field(10, "Images per class", "ipc", "Images that are kept of each class.", ge=1, le=50)
    per_step: int = field(2, "Classes at a time", "k", "Classes that arrive together.", ge=1, le=50)
    repeats: int = field(3, "Repeats", "r", "Orders of the classes, each with memories of its own.", ge=1, le=20)
    steps: int = field(
        100, "Distilling steps", "n", "Steps of distribution matching for each group.", True, ge=1, le=10_000
    )
    protocol: Literal["quick", "dc", "dsa"] = field(
        "quick", "Protocol", "p", "How the networks are trained on the memory.", True
    )
    width: int = field(32, "Network width", "w", "Channels of each layer while distilling.", True, ge=8, le=128)
    tested: int = field(100, "Test images", "te", "Test images of each class, at most.", True, ge=10, le=10_000)
    seed: int = _seed()


def _source_steps() -> Any:
    return field(200, "Pre-training", "pre", "Steps of pre-training of each network.", True, ge=10, le=20_000)


def _pool() -> Any:
    return field(20, "Networks to learn from", "po", "Pre-trained networks to distil with.", True, ge=1, le=200)


def _network() -> Any:
    return field(
        "mlp", "Network", "net", "What is trained: an MLP, or the papers' LeNet, which few images move less surely."
    )


class PoisoningSpec(Frozen):
    """Poisoning: one gradient step on distilled images makes a network misread one class as another."""

    dataset: str = _dataset()
    attacked: int = field(0, "Attacked class", "a", "The class to be misread, by its number.", ge=0, le=1000)
    target: int = field(1, "Read as", "t", "The class it is to be read as, by its number.", ge=0, le=1000)
    weights: Literal["known", "unknown"] = field(
        "unknown",
        "Weights",
        "w",
        "known: the images are made for one network. unknown: for any network trained alike; tested on networks that "
        "they were not made with.",
    )
    network: Literal["mlp", "lenet"] = _network()
    ipc: int = field(10, "Images per class", "ipc", "Distilled images per class in the one step.", ge=1, le=50)
    steps: int = field(300, "Distilling steps", "n", "Updates of the images.", True, ge=1, le=20_000)
    networks: int = field(5, "Networks", "st", "Networks attacked where the weights are unknown.", True, ge=2, le=50)
    source_steps: int = _source_steps()
    pool: int = _pool()
    seed: int = _seed()


class AdaptationSpec(Frozen):
    """Adaptation: networks trained on one dataset learn another from a few distilled images."""

    source: str = field("mnist", "From", "from", "The dataset that the networks know.", min_length=1, max_length=500)
    dataset: str = field(
        "digits", "To", "ds", "The dataset to adapt to, with as many classes.", min_length=1, max_length=500
    )
    ipc: int = field(1, "Images per class", "ipc", "Distilled, and real, images per class.", ge=1, le=50)
    network: Literal["mlp", "lenet"] = _network()
    descents: int = field(5, "Steps of descent", "d", "Steps of gradient descent on the images.", ge=1, le=50)
    steps: int = field(150, "Distilling steps", "n", "Updates of the images.", True, ge=1, le=20_000)
    networks: int = field(5, "Networks", "st", "Networks to adapt, none of them distilled with.", True, ge=2, le=50)
    source_steps: int = _source_steps()
    pool: int = _pool()
    seed: int = _seed()


def _set() -> Any:
    return field("", "Set", "src", "A run id, or the path of a saved set.", min_length=1, max_length=1000)


class MembershipSpec(Frozen):
    """Membership inference: does a student tell which real images stood behind its training?"""

    dataset: str = _dataset()
    ipc: int = field(
        10, "Images per class", "ipc", "Images per class of the random and the distilled set.", ge=1, le=50
    )
    members: int = field(
        60, "Members per class", "m", "Real images per class that sets are made of; as many others are not.", ge=10,
        le=2000,
    )  # fmt: skip
    repeats: int = field(3, "Repeats", "r", "Splits into members and others.", ge=1, le=20)
    steps: int = field(
        300, "Distilling steps", "n", "Steps of distribution matching, from noise.", True, ge=1, le=10_000
    )
    training: int = field(
        400, "Training on all members", "tr", "Steps of training of a student of all members.", True, ge=10, le=20_000
    )
    seed: int = _seed()


class OwnershipSpec(Frozen):
    """Dataset inference: was a student trained from this very set?"""

    source: str = _set()
    students: str = field(
        "",
        "Suspects",
        "st",
        "Ids of trained students, separated by commas; “python -m engine student list” shows them.",
        max_length=2000,
    )
    trials: int = field(5, "Students of the set", "tr", "Students trained here from the set.", ge=1, le=50)
    references: int = field(
        8, "References", "ref", "Networks trained on random real images, which cannot have seen the set.", ge=3, le=50
    )
    protocol: Literal["quick", "dc", "dsa"] = field("quick", "Protocol", "p", "How they are trained.", True)
    seed: int = _seed()


class SearchSpec(Frozen):
    """Architecture search: do students of a set rank networks as training on everything does?"""

    source: str = _set()
    grid: Literal["small", "large"] = field(
        "small", "Grid", "g", "small: 8 ConvNets of two widths, depths and norms. large: 36 of them."
    )
    steps: int = field(400, "Full training", "n", "Steps of training on all images.", ge=10, le=20_000)
    protocol: Literal["quick", "dc", "dsa"] = field(
        "quick", "Protocol", "p", "How students of the set are trained.", True
    )
    tested: int = field(2000, "Test images", "te", "Test images, at most.", True, ge=50, le=100_000)
    seed: int = _seed()


class DataFreeSpec(Frozen):
    """Data-free distillation: students of a teacher whose training images are not there."""

    teacher: str = field(
        "", "Teacher", "te", "Id of a trained student; “python -m engine student list” shows them.", min_length=1,
        max_length=100,
    )  # fmt: skip
    source: str = field(
        "", "Beside it", "src", "A run id or saved set, whose students are shown beside the others.", max_length=1000
    )
    other: str = field(
        "shapes", "Other dataset", "od", "Where the arbitrary real images come from.", min_length=1, max_length=500
    )
    images: int = field(20, "Images per class", "n", "Images made per class.", ge=1, le=500)
    students: int = field(3, "Students", "st", "Students of each way.", ge=1, le=10)
    temperature: float = field(
        20.0, "Temperature", "T", "Divides the logits of teacher and student while one learns from the other.", True,
        ge=1, le=100,
    )  # fmt: skip
    steps: int = field(150, "Steps for impressions", "is", "Gradient steps on the impressions.", True, ge=10, le=5000)
    learning: int = field(300, "Training", "ls", "Steps of training of each student.", True, ge=10, le=10_000)
    rounds: int = field(150, "Rounds of the duel", "ro", "Rounds of generator and student.", True, ge=10, le=10_000)
    seed: int = _seed()


APPLICATIONS = (
    ProbeInfo(
        "inversion",
        "Gradient inversion",
        "What a shared gradient gives away: the label exactly, and often the image.",
        InversionSpec,
        f"{_HOME}.inversion",
    ),
    ProbeInfo(
        "continual",
        "Continual learning",
        "A memory of distilled, herded or random images while classes come and go.",
        ContinualSpec,
        f"{_HOME}.continual",
    ),
    ProbeInfo(
        "poisoning",
        "Poisoning",
        "One step on distilled images, and a class is misread: success against accuracy on all other classes.",
        PoisoningSpec,
        f"{_HOME}.poisoning",
    ),
    ProbeInfo(
        "adaptation",
        "Adaptation",
        "From one dataset to another in a few steps on a few distilled images.",
        AdaptationSpec,
        f"{_HOME}.adaptation",
    ),
    ProbeInfo(
        "search",
        "Architecture search",
        "A grid of ConvNets ranked by students of a set and by full training.",
        SearchSpec,
        f"{_HOME}.search",
    ),
    ProbeInfo(
        "data-free",
        "Data-free distillation",
        "Students of a teacher without its data: impressions, arbitrary images, and a generator.",
        DataFreeSpec,
        f"{_HOME}.data_free",
    ),
    ProbeInfo(
        "membership",
        "Membership inference",
        "Whether a student tells members of its training from others: all real images, random ones, distilled ones.",
        MembershipSpec,
        f"{_HOME}.membership",
    ),
    ProbeInfo(
        "ownership",
        "Dataset inference",
        "Whether a student was trained from a set, told by its margins.",
        OwnershipSpec,
        f"{_HOME}.ownership",
    ),
)
