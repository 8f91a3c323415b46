"""ResNet-18 for small images, with instance-wise or batch normalisation."""

from typing import Literal

import torch.nn as nn
from torch import Tensor

from engine.networks.base import Network


class Add(nn.Module):
    """The sum of two branches, as a module of its own so that attribution methods can hook it."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two tensors of one shape to their sum."""
        return x + y


class Block(nn.Module):
    """Two Conv3×3 – norm, the first with ReLU and the stride, plus the input (projected by Conv1×1 – norm where the
    shape changes), then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Literal["instance", "batch"]):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = _norm(outputs, norm)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = _norm(outputs, norm)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, _norm(outputs, norm))
        self.add = Add()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        y = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.add(self.norm2(self.conv2(y)), self.shortcut(x)))


class ResNet18(Network):
    """Conv3×3(64) – norm – ReLU, then four stages of two blocks (64, 128, 256, 512), global average, linear.

    He et al. 2016, in the variant for 32-pixel images that the dataset-distillation papers share: a 3×3 stem without
    pooling. ``norm``: ``instance`` is GroupNorm with one channel a group, ``batch`` BatchNorm, whose statistics in
    evaluation are those of the training set. 11,172,810 parameters on MNIST, 11,173,962 on CIFAR-10, with either.
    """

    def __init__(self, channels: int, size: int, classes: int, norm: Literal["instance", "batch"] = "instance"):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), _norm(64, norm), nn.ReLU()]
        inputs = 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [Block(inputs, outputs, stride, norm), Block(outputs, outputs, 1, norm)]
            inputs = outputs
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, 512) averages of the last stage's maps."""
        return self.pool(self.body(x)).flatten(1)


def _norm(channels: int, kind: Literal["instance", "batch"]) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(channels, channels)
