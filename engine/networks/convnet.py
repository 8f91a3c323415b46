"""The ConvNet of the dataset-distillation papers, and FRePo's wide variant."""

import torch.nn as nn

from engine.errors import Refused
from engine.networks.base import Network
from engine.spec import Norm


class ConvNet(Network):
    """``depth`` blocks of Conv3×3(width) – norm – ReLU – AvgPool2, then a linear layer.

    Gidaris & Komodakis 2018, as used by Zhao et al. 2021 (DC). ``norm``: ``instance`` as the papers call it, in the
    code GroupNorm with one channel a group and learned scale and shift; ``batch``; ``layer``, over all of an image's
    values, each with a scale and shift of its own; or ``none``. On single-channel 28×28 images the first
    convolution pads by 3, so that the feature map is 32×32. 317,706 parameters on MNIST, 320,010 on CIFAR-10.
    """

    def __init__(
        self, channels: int, size: int, classes: int, width: int = 128, depth: int = 3, norm: Norm = "instance"
    ):
        super().__init__()
        layers: list[nn.Module] = []
        side = 32 if channels == 1 and size == 28 else size
        if side < 2**depth:
            raise Refused(f"A ConvNet of depth {depth} needs images of at least {2**depth} pixels; these have {size}.")
        inputs = channels
        for block in range(depth):
            padding = 3 if block == 0 and side != size else 1
            layers += [
                nn.Conv2d(inputs, width, 3, padding=padding),
                *_norm(norm, width, side),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
            inputs, side = width, side // 2
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width * side * side, classes)


def _norm(kind: Norm, width: int, side: int) -> list[nn.Module]:
    """The normalisation of maps (width, side, side); nothing for ``none``."""
    if kind == "none":
        return []
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    return [nn.LayerNorm([width, side, side]) if kind == "layer" else nn.GroupNorm(width, width, affine=True)]


class ConvNetWide(Network):
    """FRePo's network: Conv3×3 – ReLU – AvgPool2 without normalisation, then a linear layer.

    ``width`` channels in the first block, twice and four times as many in the next: 128, 256, 512 in the paper (Zhou,
    Nezhadarya & Ba 2022, section 4), which are 1,558,538 parameters on MNIST and 1,560,842 on CIFAR-10. Initialised as
    in their code: LeCun normal, zero biases.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int = 128):
        super().__init__()
        layers: list[nn.Module] = []
        side = 32 if channels == 1 and size == 28 else size
        if side < 8:
            raise Refused(f"convnet-wide needs images of at least 8 pixels; these have {size}.")
        inputs = channels
        for block, outputs in enumerate((width, 2 * width, 4 * width)):
            padding = 3 if block == 0 and side != size else 1
            layers += [nn.Conv2d(inputs, outputs, 3, padding=padding), nn.ReLU(), nn.AvgPool2d(2)]
            inputs, side = outputs, side // 2
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * side * side, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
