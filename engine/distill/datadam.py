"""Attention matching: DataDAM (Sajedi, Khaki, Amjadian, Liu, Lawryshyn & Plataniotis, ICCV 2023).

Distribution matching (``engine.distill.dm``) that looks at more: beside the features of random networks, at where each
of their layers looks. The attention map of a layer is the sum over channels of its activations to a power, as a vector
of length one; what is matched are the class means of these maps, and with a hundredth of their weight those of the
features. Nothing is trained and every derivative is first-order.

Both terms are squared distances of class means, so each image is described by one vector, its weighted maps and its
features, and the rest is distribution matching, bank and all. The networks here normalise by instance, as the paper
says; its code normalises by batch. It also takes the activations to the first power, as is the default here, where
the paper says the fourth: maps of single peaks, whose gradient is larger and rougher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill import dm
from engine.errors import Refused
from engine.methods import ATTENTION_NEEDS_LAYERS, DataDAMParameters
from engine.spec import RunSpec


def attention(activations: Tensor, power: float) -> Tensor:
    """Activations (N, C, H, W) of a layer to maps (N, H·W) of length one: the sum over channels of |activation|^power,
    over its Euclidean norm (the paper, section 3)."""
    return normalize(activations.abs().pow(power).sum(1).flatten(1))


class AttentionEmbedding(dm.Embedding):
    """Images (N, C, H, W) to (N, D): the maps of every ReLU but the last, times the root of ``weight``, and the
    features of the body's end."""

    def __init__(self, body: nn.Sequential, power: float, weight: float):
        super().__init__(body)
        self.power, self.weight = power, weight

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D): the attention maps of all layers but the last, weighed, beside the features."""
        x, rectified = images, []
        for module in self.body:
            x = module(x)
            if isinstance(module, nn.ReLU) and x.ndim == 4:
                rectified.append(x.float() if x.dtype == torch.bfloat16 else x)
        if len(rectified) < 2:
            raise Refused(ATTENTION_NEEDS_LAYERS)
        maps = [self.weight**0.5 * attention(r, self.power) for r in rectified[:-1]]
        return torch.cat([*maps, x.flatten(1)], 1)


class Method(dm.Method):
    """DataDAM as a distiller; see the module's text."""

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, DataDAMParameters)
        super().setup(spec, data, accel)

    def _programs(self) -> tuple[Callable[..., Any], ...]:
        own = self.spec.parameters
        assert isinstance(own, DataDAMParameters)
        return dm.programs(self.key, self.accel, AttentionEmbedding, power=own.power, weight=own.weight)
