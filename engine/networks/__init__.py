"""Networks by name. Each has ``features(x)`` (N, D) and ``forward(x)`` (N, K) logits.

Activations are distinct ``nn.ReLU`` modules (``nn.GELU`` in the transformer; never functional, never shared), and
residual sums are modules too, so that attribution methods that hook modules see them. None has dropout.
"""

from typing import Literal

import torch.nn as nn

from engine.accel import seeded
from engine.errors import Refused
from engine.networks.alexnet import AlexNet
from engine.networks.base import Network
from engine.networks.convnet import ConvNet, ConvNetWide
from engine.networks.edge_popup import EdgePopup
from engine.networks.lenet import LeNet
from engine.networks.mlp import MLP
from engine.networks.resnet import ResNet18
from engine.networks.vgg import VGG11
from engine.networks.vit import ViT
from engine.spec import STUDENT_NETWORKS, Norm

__all__ = [
    "MLP",
    "VGG11",
    "AlexNet",
    "ConvNet",
    "ConvNetWide",
    "EdgePopup",
    "LeNet",
    "Network",
    "ResNet18",
    "ViT",
    "make_network",
    "parameter_count",
]


def make_network(
    name: str,
    channels: int,
    size: int,
    classes: int,
    width: int = 128,
    depth: int = 3,
    seed: int = 0,
    keep: float = 0.5,
    weights: Literal["kaiming", "signed"] = "kaiming",
    norm: Norm = "instance",
) -> Network:
    """A freshly initialised network (PyTorch's default initialisation unless its class says otherwise), from ``seed``.

    ``width`` applies to ``convnet``, ``convnet-wide`` and ``edge-popup``, ``depth`` to the first and the last of them,
    ``keep`` (share of the weights, 0.1 to 0.7) and ``weights`` to ``edge-popup`` alone, ``norm`` to ``convnet`` alone.
    Raises ``Refused`` for an unknown name or a size that does not fit.
    """
    with seeded(seed):
        if name == "convnet":
            return ConvNet(channels, size, classes, width, depth, norm)
        if name == "convnet-wide":
            return ConvNetWide(channels, size, classes, width)
        if name == "lenet":
            return LeNet(channels, size, classes)
        if name == "mlp":
            return MLP(channels, size, classes)
        if name == "alexnet":
            return AlexNet(channels, size, classes)
        if name == "vgg11":
            return VGG11(channels, size, classes)
        if name in ("resnet18", "resnet18-bn"):
            return ResNet18(channels, size, classes, "batch" if name == "resnet18-bn" else "instance")
        if name == "vit":
            return ViT(channels, size, classes)
        if name == "edge-popup":
            return EdgePopup(channels, size, classes, width, depth, keep, weights)
    raise Refused(f"There is no network “{name}”; choose one of {', '.join(STUDENT_NETWORKS)}.")


def parameter_count(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
