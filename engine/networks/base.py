"""What every network is made of."""

import torch.nn as nn
from torch import Tensor


class Network(nn.Module):
    """A classifier of images: ``body``, whose flattened output are the features, and ``head``, which makes logits of
    them. A subclass makes both in its ``__init__``."""

    body: nn.Sequential
    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, D) flattened activations before the last layer."""
        return self.body(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, K) logits."""
        return self.head(self.features(x))
