"""LeNet-5 with ReLU and max-pooling, as the dataset-distillation papers' code has it."""

import torch.nn as nn

from engine.errors import Refused
from engine.networks.base import Network


class LeNet(Network):
    """conv5×5(6) – ReLU – max2 – conv5×5(16) – ReLU – max2 – 120 – 84 – K (LeCun et al. 1998).

    The first convolution pads by 2 on 28×28 images. 61,706 parameters on MNIST, 62,006 on CIFAR-10.
    """

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        padding = 2 if size == 28 else 0
        side = ((size + 2 * padding - 4) // 2 - 4) // 2
        if side < 1:
            raise Refused(f"LeNet needs images of at least 16 pixels; these have {size}.")
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.head = nn.Linear(84, classes)
