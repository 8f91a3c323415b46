"""The distillation methods as forms, help texts and tables show them, each with its parameters (torch-free).

The method itself is ``engine/distill/<id>.py``. Others may come from elsewhere: the environment's ``LIMBECK_METHODS``
names modules, separated by commas, each with a ``METHOD`` of its own, a ``MethodInfo`` that says where its class is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from engine.errors import Refused
from engine.table import Frozen, field

FACTOR = field(
    1,
    "Pictures in an image",
    "fac",
    "With 2 (or 3), each image is a grid of 2 × 2 (3 × 3) smaller pictures, enlarged for training: four (nine) times "
    "as many for the same pixels (IDC, Kim et al. 2022).",
    True,
    ge=1,
    le=3,
)

COSINE = (
    "Falling learning rate",
    "cos",
    "Let the learning rate fall to a tenth along a cosine over the run's minutes or steps.",
    True,
)


class DMParameters(Frozen):
    """Distribution matching."""

    variant: Literal["bank", "plain"] = field(
        "bank",
        "Variant",
        "var",
        "plain: a fresh random network and fresh real batches each step, as in the paper. bank: a pool of random "
        "networks whose class means over the real data are computed once and refreshed slowly; many times faster.",
    )
    lr_img: float = field(1.0, "Image learning rate", "lr", "Step size of SGD on the pixels.", ge=1e-4, le=1e4)
    cosine: bool = field(False, *COSINE)
    batch_real: int = field(
        128,
        "Real images per class",
        "br",
        "How many real images estimate a class mean; 256 in the paper.",
        True,
        ge=1,
        le=2048,
    )
    augment: bool = field(
        True,
        "Siamese augmentation",
        "aug",
        "Apply one random augmentation, with the same parameters, to the real and the synthetic images (DSA).",
    )
    bank_size: int = field(
        16, "Networks in the bank", "bank", "Random networks whose class means are kept.", True, ge=1, le=256
    )
    refresh: int = field(
        2,
        "Steps per class refresh",
        "ref",
        "The bank looks at the real images of one more class every so many steps.",
        True,
        ge=1,
        le=10000,
    )
    factor: int = FACTOR


ATTENTION_NEEDS_LAYERS = (
    "Attention matching needs a network of two convolutional layers or more. Choose convnet with a depth of at least "
    "2, convnet-wide or lenet."
)


class DataDAMParameters(DMParameters):
    """Attention matching."""

    power: float = field(
        1.0,
        "Power of activations",
        "pow",
        "An attention map sums the activations of a layer's channels to this power; 1 in the paper's code, 4 in its "
        "text, which needs a smaller learning rate at few images per class.",
        True,
        ge=0.5,
        le=8.0,
    )
    weight: float = field(
        100.0,
        "Weight of attention",
        "wat",
        "Of the distance of attention maps, against 1 for that of features; 100 in the paper.",
        True,
        ge=0.0,
        le=1e6,
    )


BANK_NEEDS_UNTRAINED = (
    "Gradient matching with the bank works at 1 image per class only, because beyond that the network is trained "
    "between updates. Choose the variant plain (or auto), 1 image per class, or one update per network (outer_loop)."
)


class DCParameters(Frozen):
    """Gradient matching, with siamese augmentation or without."""

    variant: Literal["auto", "bank", "plain"] = field(
        "auto",
        "Variant",
        "var",
        "plain: real gradients are computed anew each step, as in the paper. bank (IPC 1 only): the class gradients "
        "of a pool of random networks are computed once and refreshed slowly. auto: bank at IPC 1, else plain.",
    )
    lr_img: float = field(0.1, "Image learning rate", "lr", "Step size of SGD on the pixels.", ge=1e-4, le=1e4)
    distance: Literal["rows", "cosine", "squared"] = field(
        "rows",
        "Distance",
        "dist",
        "Between the gradients of a class. rows: angles of the weights that lead to each output, as in the paper; "
        "cosine: the angle of the gradient as a whole; squared: squared differences, which need another learning rate.",
        True,
    )
    batch_real: int = field(
        64,
        "Real images per class",
        "br",
        "How many real images a class gradient sees; 256 in the paper.",
        True,
        ge=1,
        le=2048,
    )
    outer_loop: int | None = field(
        None,
        "Updates per network",
        "out",
        "Image updates before a fresh network is taken (outer loop); the paper's, as many as images per class, unless "
        "given.",
        True,
        ge=1,
        le=1000,
    )
    inner_loop: int | None = field(
        None,
        "Epochs between updates",
        "inn",
        "Epochs that the network trains on the synthetic images between two updates (inner loop); the paper's, 50 at "
        "IPC 10 and 10 at IPC 50, unless given. They take most of the time beyond IPC 1: fewer suit a small machine.",
        True,
        ge=0,
        le=1000,
    )
    lr_net: float = field(
        0.01,
        "Network learning rate",
        "lrn",
        "Step size of SGD on the network between two updates; more of it makes up for fewer epochs.",
        True,
        ge=1e-5,
        le=10.0,
    )
    bank_size: int = field(
        16, "Networks in the bank", "bank", "Random networks whose class gradients are kept.", True, ge=1, le=256
    )
    refresh: int = field(
        1,
        "Steps per class refresh",
        "ref",
        "The bank looks at the real images of one more class every so many steps.",
        True,
        ge=1,
        le=10000,
    )
    factor: int = FACTOR

    def trains(self, ipc: int) -> bool:
        """Whether the network is ever trained, so that what it sees of the real images depends on the synthetic."""
        return (self.outer_loop or ipc) > 1 and self.inner_loop != 0


class FRePoParameters(Frozen):
    """Neural feature regression with pooling."""

    lr_img: float = field(3e-3, "Learning rate", "lr", "Step size of Adam on the pixels.", ge=1e-6, le=10.0)
    label_rate: float = field(
        1.0,
        "Label learning rate",
        "lrl",
        "Step size of Adam on the labels, as a multiple of that on the pixels.",
        True,
        ge=0.0,
        le=100.0,
    )
    batch_real: int = field(
        1024,
        "Real images per look",
        "br",
        "Real images whose labels the regression must predict.",
        True,
        ge=16,
        le=8192,
    )
    reuse: int = field(
        8,
        "Steps per look",
        "re",
        "Image updates for which a network's view of the real images is kept; 1 as in the paper.",
        True,
        ge=1,
        le=1000,
    )
    advance: int = field(
        4,
        "Training steps per look",
        "adv",
        "Steps that a network trains on the synthetic set before it looks again; 1 as in the paper.",
        True,
        ge=0,
        le=1000,
    )
    pool: int = field(
        8, "Networks in the pool", "pool", "Networks of staggered age that provide the features.", True, ge=1, le=64
    )
    max_age: int = field(
        100, "Oldest network", "age", "Training steps after which a network starts afresh.", True, ge=1, le=10000
    )
    learn_labels: bool = field(True, "Learn the labels", "ll", "Learn soft labels together with the pixels.")
    cosine: bool = field(True, *COSINE)
    mirror: bool = field(
        True,
        "Mirror images too",
        "mir",
        "Regress from the synthetic images and their mirror images, where mirroring keeps the class, as in the paper's "
        "code.",
        True,
    )
    augment: bool = field(
        True,
        "Augmentation",
        "aug",
        "Regress from the synthetic images, and train networks on them, under the light augmentation that students "
        "train with, so that they learn to bear it; not so in the paper. It helped with photographs, and cost with "
        "digits.",
        True,
    )
    factor: int = FACTOR


class DDParameters(Frozen):
    """Dataset distillation by unrolled gradient descent."""

    initial: Literal["random", "fixed", "random-pretrained", "fixed-pretrained"] = field(
        "random",
        "Initial network",
        "ini",
        "What the steps begin at. random: any freshly initialised network; fixed: one network, whose weights are kept "
        "with the images; random-pretrained, fixed-pretrained: networks that have learned from real images before.",
    )
    distill_steps: int = field(
        1,
        "Gradient steps",
        "ds",
        "Steps of gradient descent in one pass over the images. Each step has its own share of the images, so images "
        "per class must be a multiple of it; 10 in the paper's setting for random networks, with 10 images per class.",
        ge=1,
        le=20,
    )
    distill_epochs: int = field(
        3, "Epochs", "de", "Passes over the images, each step of each with a learned step size; 3 in the paper.", ge=1,
        le=10,
    )  # fmt: skip
    lr_img: float = field(
        0.01,
        "Learning rate",
        "lr",
        "Step size of Adam on the pixels and on the raw step sizes; 0.01 in the paper.",
        ge=1e-6,
        le=10.0,
    )
    shared: bool = field(
        False, "One set for all steps", "sh", "Every step sees all images, instead of a share of its own.", True
    )
    lr_step: float = field(
        0.02,
        "First step size",
        "lrs",
        "What the learned step sizes start from; 0.02 in the paper's code, 0.001 for CIFAR-10.",
        True,
        ge=1e-6,
        le=10.0,
    )
    n_nets: int = field(
        1, "Networks per update", "nn", "Initial networks over which an update of the images averages.", True, ge=1,
        le=16,
    )  # fmt: skip
    batch_real: int = field(
        256, "Real images per update", "br", "Real images on which the trained network is judged; 1,024 in the paper.",
        True, ge=16, le=8192,
    )  # fmt: skip
    halve: int = field(
        2000,
        "Updates until halved",
        "half",
        "The learning rate is halved every so many updates, unless it falls along a cosine; about 2,400 in the paper, "
        "in 24,000 updates.",
        True,
        ge=1,
        le=10_000_000,
    )
    cosine: bool = field(False, *COSINE)
    clip: bool = field(
        False,
        "Clip gradients",
        "clip",
        "Shorten a gradient that is longer than twice the average of those before it: unrolled steps have cliffs. Not "
        "so in the paper.",
        True,
    )
    keep_best: bool = field(
        False,
        "Keep the best images",
        "best",
        "In the second half of the budget, look at the accuracy on held-out images every 20 updates, and end with the "
        "best images of all; for a fixed initial network, whose accuracy jumps from one update to the next.",
        True,
    )
    source: str = field(
        "",
        "Pre-trained on",
        "po",
        "The dataset that pre-trained networks have learned, such as usps before mnist; the run's own unless given.",
        True,
        max_length=500,
    )
    source_steps: int = field(
        200, "Pre-training steps", "ps", "Training steps of a pre-trained network.", True, ge=1, le=20_000
    )
    pool: int = field(
        8,
        "Pre-trained networks",
        "pool",
        "How many pre-trained networks the updates draw from; they are trained one by one and kept on disk.",
        True,
        ge=1,
        le=200,
    )

    def check(self, ipc: int, zca: bool = False) -> None:
        """Raise ``Refused`` unless each step can have as many images of each class as the others."""
        if not self.shared and ipc % self.distill_steps:
            raise Refused(
                f"{ipc} images per class cannot be divided among {self.distill_steps} gradient steps (distill_steps); "
                "choose a multiple of the steps, or one set for all steps (shared)."
            )
        if self.keep_best and not self.initial.startswith("fixed"):
            raise Refused(
                "The best images can only be told (keep_best) where every student takes the same steps from the same "
                "weights; choose a fixed initial network, or switch it off."
            )
        if zca and "pretrained" in self.initial:
            raise Refused(
                "Pre-trained networks have learned from images that are not whitened; switch ZCA whitening (zca) off."
            )


class RaTParameters(Frozen):
    """Random truncated back-propagation through training."""

    lr_img: float = field(
        0.02,
        "Image learning rate",
        "lr",
        "Step size of Adam on the pixels. The paper has 0.001 for images of a fiftieth of the contrast, and 60,000 "
        "epochs.",
        ge=1e-6,
        le=10.0,
    )
    total: int = field(
        60, "Training steps", "tot", "Longest training that is looked at; 200 in the paper at IPC 10.", ge=1, le=200
    )
    window: int = field(
        15,
        "Window",
        "win",
        "Last steps of the training, through which the gradient goes; 60 in the paper at IPC 10.",
        ge=1,
        le=100,
    )
    inner: Literal["adam", "sgd"] = field(
        "adam", "Optimiser inside", "opt", "How networks train on the images: Adam, as in the paper, or SGD.", True
    )
    lr_net: float = field(
        1e-3, "Network learning rate", "lrn", "Step size of the optimiser inside.", True, ge=1e-6, le=10.0
    )
    batch_syn: int = field(
        100,
        "Synthetic images per step",
        "bs",
        "Images of one step of the training inside; random ones where there are more.",
        True,
        ge=1,
        le=2000,
    )
    batch_real: int = field(
        500,
        "Real images per update",
        "br",
        "Real images on which the trained network is judged; 5,000 in the paper.",
        True,
        ge=16,
        le=8192,
    )
    augment: bool = field(
        False, "Augmentation", "aug", "Augment the synthetic images of each step inside, each image by itself.", True
    )

    def check(self) -> None:
        """Raise ``Refused`` when the window is longer than the training."""
        if self.window > self.total:
            raise Refused(
                f"The window (window) was {self.window} steps, but the training (total) has {self.total}; choose a "
                "shorter window or a longer training."
            )


class MTTParameters(Frozen):
    """Trajectory matching."""

    lr_img: float = field(100.0, "Image learning rate", "lr", "Step size of SGD on the pixels.", ge=1e-4, le=1e5)
    syn_steps: int = field(
        20,
        "Student steps",
        "sst",
        "Steps of gradient descent that a student takes on the synthetic images before it is compared with the expert; "
        "50 in the paper at IPC 1, 30 at IPC 10 and 50.",
        ge=1,
        le=500,
    )
    expert_epochs: int = field(
        2, "Expert epochs to match", "mat", "How many epochs later the expert is compared with.", True, ge=1, le=50
    )
    max_start: int = field(
        2,
        "Latest start",
        "ms",
        "Segments start at one of that many first epochs of an expert; 2, 20 and 40 in the paper at IPC 1, 10 and 50.",
        True,
        ge=1,
        le=200,
    )
    batch_syn: int = field(
        256, "Synthetic images per step", "bs", "Or all of them, where they are fewer.", True, ge=1, le=4096
    )
    step_size: float = field(
        0.01, "Initial step size", "ss", "Step size of the student, which is learned from here on.", True, ge=1e-5, le=1
    )
    lr_step: float = field(
        0.01,
        "Learning rate of the step size",
        "lrs",
        "Step size of SGD on the student's step size before its softplus; 0 leaves it as it is.",
        True,
        ge=0.0,
        le=10.0,
    )
    experts: int = field(
        5,
        "Experts",
        "ex",
        "Networks trained on the real images, whose paths are matched; 100 in the paper.",
        ge=1,
        le=200,
    )
    epochs: int = field(
        3, "Epochs per expert", "xep", "Epochs that are recorded of each expert; 50 in the paper.", True, ge=1, le=200
    )
    expert_images: int | None = field(
        None,
        "Images per expert epoch",
        "xim",
        "Real images after which an expert's weights are recorded and its next epoch begins; all of them unless given. "
        "Fewer suit a small machine, with a larger learning rate of the experts.",
        True,
        ge=1,
        le=10_000_000,
    )
    expert_rate: float = field(
        0.01, "Experts' learning rate", "xlr", "Step size of SGD that trains the experts.", True, ge=1e-5, le=10.0
    )
    batch_real: int = field(256, "Experts' batch", "br", "Real images per step of an expert.", True, ge=1, le=8192)
    augment: bool = field(
        True,
        "Augmentation",
        "aug",
        "Augment the images of experts and students, each with parameters of its own (DSA).",
    )

    def problem(self) -> str:
        """Why the experts' epochs do not suffice; empty when they do."""
        last = self.max_start - 1 + self.expert_epochs
        if last <= self.epochs:
            return ""
        return (
            f"Segments of {self.expert_epochs} epochs that start after up to {self.max_start - 1} end after epoch "
            f"{last}, but {self.epochs} are recorded of each expert. Record at least {last} (epochs), start earlier "
            "(max_start) or match fewer epochs (expert_epochs)."
        )


@dataclass(frozen=True)
class Load:
    """Images in memory at once, each with its activations: in a backward pass, in a gradient of a gradient, or only on
    their way forward; ``weights``: copies of the network's parameters that are kept; ``steps``: of training that are
    gone back through."""

    backward: float = 0
    second: float = 0
    forward: float = 0
    weights: float = 2
    steps: int = 1


@dataclass(frozen=True)
class MethodInfo:
    """A distillation method as forms, help texts and tables show it.

    ``real``, ``synthetic`` and ``network`` label the drawing of what is matched to what: what is computed from the real
    images, what from the synthetic ones, and the network in between; ``compared`` says how, ``moved`` what learns.

    ``load``: what one step holds in memory, given the run's spec, the method's parameters and the number of classes.
    ``module``: where its class ``Method`` is; ``engine.distill.<id>`` unless given. ``whitening``: the regulariser of
    ZCA whitening in its code, as a multiple of the mean eigenvalue.
    """

    id: str
    name: str
    paper: str
    idea: str
    equation: str  # LaTeX
    parameters: type[BaseModel]
    protocol: str  # the protocol its paper evaluates under
    network: str
    real: str
    synthetic: str
    compared: str
    moved: str
    load: Callable[[Any, Any, int], Load]
    module: str = ""
    whitening: float = 0.1


METHODS: dict[str, MethodInfo] = {
    m.id: m
    for m in (
        MethodInfo(
            "dm",
            "Distribution matching",
            "Zhao & Bilen, Dataset Condensation with Distribution Matching, WACV 2023",
            "Move the synthetic images until random networks see the same class means in them as in the real ones.",
            r"\min_{S}\;\mathbb{E}_{\theta,\omega}\sum_c\Big\|\tfrac1{|T_c|}\sum_{x\in T_c}\psi_\theta(A_\omega(x))"
            r"-\tfrac1{|S_c|}\sum_{s\in S_c}\psi_\theta(A_\omega(s))\Big\|^2",
            DMParameters,
            "dsa",
            network="a random network, never trained",
            real="mean feature of each class",
            synthetic="mean feature of each class",
            compared="squared distance",
            moved="pixels",
            load=lambda s, p, k: Load(backward=k * s.ipc, forward=p.batch_real, weights=p.bank_size),
        ),
        MethodInfo(
            "dc",
            "Gradient matching",
            "Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching, ICLR 2021",
            "Move the synthetic images until training on them would push a network the way the real ones do.",
            r"\min_{S}\;\mathbb{E}_{\theta_0}\sum_t\sum_c D\big(\nabla_\theta L(S_c;\theta_t),"
            r"\nabla_\theta L(T_c;\theta_t)\big)",
            DCParameters,
            "dc",
            network="a network on its way through training",
            real="gradient of each class's loss",
            synthetic="gradient of each class's loss",
            compared="angle, row by row",
            moved="pixels",
            load=lambda s, p, k: Load(second=k * s.ipc, backward=p.batch_real, weights=p.bank_size * (k + 1)),
        ),
        MethodInfo(
            "dsa",
            "Gradient matching, augmented",
            "Zhao & Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021",
            "Match gradients while the real and the synthetic images are augmented alike, so that the set keeps its "
            "worth when students are trained on it with augmentation.",
            r"\min_{S}\;\mathbb{E}_{\theta_0}\sum_t\sum_c D\big(\nabla_\theta L(A_{\omega_c}(S_c);\theta_t),"
            r"\nabla_\theta L(A_{\omega_c}(T_c);\theta_t)\big)",
            DCParameters,
            "dsa",
            network="a network on its way through training",
            real="gradient of each class's loss, augmented",
            synthetic="the same, under the same augmentation",
            compared="angle, row by row",
            moved="pixels",
            load=lambda s, p, k: Load(second=k * s.ipc, backward=p.batch_real, weights=p.bank_size * (k + 1)),
        ),
        MethodInfo(
            "datadam",
            "Attention matching",
            "Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023",
            "Move the synthetic images until random networks look where they look in the real ones, layer by layer, "
            "and see the same class means.",
            r"\min_{S}\;\mathbb{E}_{\theta,\omega}\sum_c\Big(\sum_l\big\|\bar a_l(T_c)-\bar a_l(S_c)\big\|^2"
            r"+\lambda\big\|\bar\psi(T_c)-\bar\psi(S_c)\big\|^2\Big),\quad "
            r"a_l=\frac{\sum_i|f_{l,i}|^p}{\|\sum_i|f_{l,i}|^p\|}",
            DataDAMParameters,
            "dsa",
            network="a random network, never trained",
            real="mean attention and feature of each class",
            synthetic="mean attention and feature of each class",
            compared="squared distance, layer by layer",
            moved="pixels",
            load=lambda s, p, k: Load(backward=k * s.ipc, forward=p.batch_real, weights=p.bank_size),
        ),
        MethodInfo(
            "frepo",
            "Neural feature regression",
            "Zhou, Nezhadarya & Ba, Dataset Distillation using Neural Feature Regression, NeurIPS 2022",
            "Learn images and labels from which kernel regression, on the features of briefly trained networks, "
            "predicts the labels of the real images.",
            r"\min_{X_s,y_s}\;\tfrac12\big\|y_t-K^\theta_{ts}(K^\theta_{ss}+\lambda I)^{-1}y_s\big\|^2",
            FRePoParameters,
            "frepo",
            network="one of a pool of trained networks",
            real="labels",
            synthetic="labels predicted by regression",
            compared="squared error",
            moved="pixels and labels",
            load=lambda s, p, k: Load(backward=k * s.ipc * (1 + p.mirror), forward=p.batch_real, weights=3 * p.pool),
        ),
        MethodInfo(
            "dd",
            "Dataset distillation",
            "Wang, Zhu, Torralba & Efros, Dataset Distillation, 2018",
            "Learn images, and the step sizes to go with them, from which a few steps of gradient descent make a good "
            "network.",
            r"\min_{S,\eta}\;\mathbb{E}_{\theta_0}\,L(T;\theta_K),\quad"
            r"\theta_{k+1}=\theta_k-\eta_k\nabla_\theta L(S_k;\theta_k)",
            DDParameters,
            "dd",
            network="a network at its initialisation",
            real="loss with those weights",
            synthetic="weights after a few steps",
            compared="the loss, back through the steps",
            moved="pixels and step sizes",
            load=lambda s, p, k: Load(
                second=k * s.ipc / (1 if p.shared else p.distill_steps),
                backward=p.batch_real,
                weights=p.distill_steps * p.distill_epochs + 4,
                steps=p.distill_steps * p.distill_epochs,
            ),
        ),
        MethodInfo(
            "rat",
            "Random truncated unrolling",
            "Feng, Vedantam & Kempe, Embarrassingly Simple Dataset Distillation, ICLR 2024 (RaT-BPTT)",
            "Train a network on the images for a random number of steps, and learn the images from the last few of "
            "them.",
            r"\min_{S}\;\mathbb{E}_{\theta_0,\,k}\,L(T;\theta_k),\quad"
            r"\theta_{j+1}=\mathrm{Adam}(\theta_j,\nabla_\theta L(S;\theta_j)),\quad"
            r"\tfrac{\partial\theta_{k-M}}{\partial S}:=0",
            RaTParameters,
            "rat",
            network="a network somewhere in its training",
            real="loss with those weights",
            synthetic="weights after some steps more",
            compared="the loss, back through the last steps",
            moved="pixels",
            load=lambda s, p, k: Load(
                second=min(p.batch_syn, k * s.ipc), backward=p.batch_real, weights=3 * p.window + 4, steps=p.window
            ),
        ),
        MethodInfo(
            "mtt",
            "Trajectory matching",
            "Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR 2022",
            "Let a network train on the synthetic images for a few steps, from where an expert was on its way through "
            "the real ones, and move them until it arrives where the expert did, epochs later.",
            r"\min_{S,\alpha}\;\mathbb{E}_{\theta^*,s}\;\big\|\hat\theta_{s+N}(S,\alpha)-\theta^*_{s+M}\big\|^2"
            r"\,\big/\,\big\|\theta^*_s-\theta^*_{s+M}\big\|^2",
            MTTParameters,
            "mtt",
            network="where an expert was after some epochs",
            real="the expert's weights, epochs later",
            synthetic="a student's weights, steps later",
            compared="squared distance, relative to the expert's way",
            moved="pixels and step size",
            load=lambda s, p, k: Load(
                second=min(p.batch_syn, k * s.ipc), backward=p.batch_real, weights=p.syn_steps + 8, steps=p.syn_steps
            ),
            whitening=1.5,  # 0.1 for pixels in [0, 1], as its code has it, on CIFAR-10
        ),
    )
}

for _module in filter(None, os.environ.get("LIMBECK_METHODS", "").split(",")):
    try:
        _own: MethodInfo = import_module(_module.strip()).METHOD
    except (ImportError, AttributeError) as error:  # nothing can be refused yet: no command and no page has begun
        raise SystemExit(f"LIMBECK_METHODS names {_module.strip()}, which cannot be used: {error}.") from None
    METHODS[_own.id] = _own

if TYPE_CHECKING:  # what is known only now
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]
