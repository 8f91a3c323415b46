"""A small vision transformer."""

import torch
import torch.nn as nn
from torch import Tensor

from engine.errors import Refused
from engine.networks.base import Network
from engine.networks.resnet import Add

PATCH, DIM, DEPTH, HEADS, HIDDEN = 4, 128, 6, 4, 256


class Layer(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)): a layer of a pre-norm transformer encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(DIM)
        self.queries_keys_values = nn.Linear(DIM, 3 * DIM)
        self.softmax = nn.Softmax(dim=-1)  # a module, so that attention can be read by a hook
        self.out = nn.Linear(DIM, DIM)
        self.add1 = Add()
        self.norm2 = nn.LayerNorm(DIM)
        self.perceptron = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM))
        self.add2 = Add()

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, 128) to the same shape."""
        n, tokens, _ = x.shape
        parts = self.queries_keys_values(self.norm1(x)).view(n, tokens, 3, HEADS, DIM // HEADS)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.softmax(queries @ keys.transpose(-2, -1) * (DIM // HEADS) ** -0.5)
        mixed = (weights @ values).transpose(1, 2).reshape(n, tokens, DIM)
        x = self.add1(x, self.out(mixed))
        return self.add2(x, self.perceptron(self.norm2(x)))


class ViT(Network):
    """Patches of 4×4 pixels, 128 dimensions, 6 layers of 4 heads and a perceptron of 256, mean over tokens, linear.

    Dosovitskiy et al. 2021, small enough for a CPU: one image costs about as much as in a ConvNet of width 128. The
    tokens' mean replaces the class token (Beyer, Zhai & Kolesnikov 2022); positions are learned, GELU is the
    activation, nothing is dropped out. 804,874 parameters on MNIST, 810,890 on CIFAR-10.
    """

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        if size % PATCH:
            raise Refused(f"The ViT cuts images into patches of {PATCH} pixels; {size} is not a multiple of {PATCH}.")
        self.patches = nn.Conv2d(channels, DIM, PATCH, stride=PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (size // PATCH) ** 2, DIM))
        self.body = nn.Sequential(*(Layer() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, 128) means over the tokens after the last layer."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.body(tokens)).mean(1)
