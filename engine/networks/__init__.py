"""Networks by name. Each has ``features(x)`` (N, D) and ``forward(x)`` (N, K) logits.

Activations are distinct ``nn.ReLU`` modules (never functional, never shared), so that attribution methods that hook
modules see them.
"""

import torch.nn as nn

from engine.accel import seeded
from engine.errors import Refused
from engine.networks.convnet import ConvNet, ConvNetWide
from engine.networks.lenet import LeNet
from engine.networks.mlp import MLP

__all__ = ["MLP", "ConvNet", "ConvNetWide", "LeNet", "make_network", "parameter_count"]


def make_network(
    name: str, channels: int, size: int, classes: int, width: int = 128, depth: int = 3, seed: int = 0
) -> nn.Module:
    """A freshly initialised network (PyTorch's default initialisation, drawn from ``seed``).

    ``width`` applies to ``convnet`` and ``convnet-wide``, ``depth`` to ``convnet``. Raises ``Refused`` for an unknown
    name or a size too small for the depth.
    """
    with seeded(seed):
        if name == "convnet":
            return ConvNet(channels, size, classes, width, depth)
        if name == "convnet-wide":
            return ConvNetWide(channels, size, classes, width)
        if name == "lenet":
            return LeNet(channels, size, classes)
        if name == "mlp":
            return MLP(channels, size, classes)
    raise Refused(f"There is no network “{name}”; choose one of convnet, convnet-wide, lenet, mlp.")


def parameter_count(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
