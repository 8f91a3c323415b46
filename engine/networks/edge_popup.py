"""Edge-popup: a network whose weights stay random, and which learns only what to leave out of itself."""

import math
from typing import Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from engine.errors import Refused
from engine.networks.base import Network


class Masked(nn.Module):
    """What the masked layers share: frozen random ``weight`` (a buffer), learned ``scores`` of its shape, no bias.

    The layer computes with ``weight`` where |score| is among the largest ``keep`` of the layer, and 0 elsewhere
    (Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?", CVPR 2020, eq. 3); the gradient passes
    straight through the choice to every score (eq. 4). ``weights``: ``kaiming`` draws them from a normal distribution
    of standard deviation sqrt(2 / (keep · fan-in)), ``signed`` takes that constant with random signs; dividing by
    ``keep`` makes up for what is left out (their section 4.4).
    """

    weight: Tensor

    def __init__(self, shape: tuple[int, ...], keep: float, weights: Literal["kaiming", "signed"]):
        super().__init__()
        fan_in = math.prod(shape[1:])
        std = math.sqrt(2 / (keep * fan_in))
        drawn = torch.randn(shape)
        self.register_buffer("weight", std * (drawn.sign() if weights == "signed" else drawn))
        self.scores = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))
        self.kept = max(1, round(keep * self.scores.numel()))

    def mask(self) -> Tensor:
        """1 at the ``kept`` largest |scores|, 0 elsewhere, in the shape of the weights; its gradient is theirs."""
        size = self.scores.abs()
        top = size.detach().flatten().topk(self.kept).indices
        hard = torch.zeros_like(size.detach().flatten()).scatter(0, top, 1.0).view_as(size)
        return hard + (size - size.detach())


class MaskedConv2d(Masked):
    """A 3×3 convolution with masked weights."""

    def __init__(self, inputs: int, outputs: int, padding: int, keep: float, weights: Literal["kaiming", "signed"]):
        super().__init__((outputs, inputs, 3, 3), keep, weights)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H', W')."""
        return F.conv2d(x, self.weight * self.mask(), padding=self.padding)


class MaskedLinear(Masked):
    """A linear layer with masked weights."""

    def __init__(self, inputs: int, outputs: int, keep: float, weights: Literal["kaiming", "signed"]):
        super().__init__((outputs, inputs), keep, weights)
        self.in_features = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        return F.linear(x, self.weight * self.mask())


class EdgePopup(Network):
    """The ConvNet with masked layers: ``depth`` times conv3×3(width) – norm – ReLU – AvgPool2, then linear.

    The norm has neither scale nor shift, there are no biases: the scores are all that is learned.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        width: int = 128,
        depth: int = 3,
        keep: float = 0.5,
        weights: Literal["kaiming", "signed"] = "kaiming",
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
                MaskedConv2d(inputs, width, padding, keep, weights),
                nn.GroupNorm(width, width, affine=False),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
            inputs, side = width, side // 2
        self.body = nn.Sequential(*layers)
        self.head = MaskedLinear(width * side * side, classes, keep, weights)
