"""The distillation methods as forms, help texts and tables show them, each with its parameters (torch-free).

The method itself is ``engine/distill/<id>.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from engine.table import Frozen, field

MethodName = Literal["dm", "dc", "frepo"]


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


BANK_NEEDS_IPC_1 = (
    "Gradient matching with the bank works at 1 image per class only, because beyond that the network is trained "
    "between updates. Choose the variant plain (or auto), or 1 image per class."
)


class DCParameters(Frozen):
    """Gradient matching."""

    variant: Literal["auto", "bank", "plain"] = field(
        "auto",
        "Variant",
        "var",
        "plain: real gradients are computed anew each step, as in the paper. bank (IPC 1 only): the class gradients "
        "of a pool of random networks are computed once and refreshed slowly. auto: bank at IPC 1, else plain.",
    )
    lr_img: float = field(0.1, "Image learning rate", "lr", "Step size of SGD on the pixels.", ge=1e-4, le=1e4)
    batch_real: int = field(
        64,
        "Real images per class",
        "br",
        "How many real images a class gradient sees; 256 in the paper.",
        True,
        ge=1,
        le=2048,
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


@dataclass(frozen=True)
class MethodInfo:
    """A distillation method as forms, help texts and tables show it.

    ``real``, ``synthetic`` and ``network`` label the drawing of what is matched to what: what is computed from the real
    images, what from the synthetic ones, and the network in between; ``compared`` says how, ``moved`` what learns.
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
        ),
    )
}
