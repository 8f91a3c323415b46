"""The AlexNet of the dataset-distillation papers' code."""

import torch.nn as nn

from engine.networks.base import Network


class AlexNet(Network):
    """conv5(128) – max2 – conv5(192) – max2 – conv3(256) – conv3(192) – conv3(192) – max2 with ReLUs, then linear.

    After Krizhevsky, Sutskever & Hinton 2012, as in the code of Zhao, Mopuri & Bilen 2021 (DC): no normalisation, no
    dropout. Images smaller than 32 pixels are padded to 32 by the first convolution. 1,865,802 parameters on MNIST,
    1,872,202 on CIFAR-10.
    """

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        border = max(0, (33 - size) // 2)
        side = (size + 2 * border) // 2 // 2 // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, 128, 5, padding=2 + border),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 192, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(192, 192, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Linear(192 * side * side, classes)
