"""The VGG11 of the dataset-distillation papers' code."""

import torch.nn as nn

from engine.networks.base import Network

POOL = 0  # among the channels of the layers
LAYERS = (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)


class VGG11(Network):
    """Eight Conv3×3 – GroupNorm(one channel a group) – ReLU, five MaxPool2 between them, then one linear layer.

    After Simonyan & Zisserman 2015, as in the code of Zhao, Mopuri & Bilen 2021 (DC), whose "InstanceNorm" this is; no
    dropout. Images smaller than 32 pixels are padded to 32 by the first convolution. 9,229,962 parameters on MNIST,
    9,231,114 on CIFAR-10.
    """

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        border = max(0, (33 - size) // 2)
        side, inputs = size + 2 * border, channels
        layers: list[nn.Module] = []
        for layer in LAYERS:
            if layer == POOL:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            else:
                padding = 1 if layers else 1 + border
                layers += [nn.Conv2d(inputs, layer, 3, padding=padding), nn.GroupNorm(layer, layer), nn.ReLU()]
                inputs = layer
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * side * side, classes)
