"""What a baseline hands back, and the generator it draws from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.data.base import Dataset


@dataclass(frozen=True, eq=False)
class Picked:
    """Either ``indices`` (K·ipc,) of real training images, or normalised ``images`` (K·ipc, C, H, W); class by class.

    ``notes``: what else the provenance should say.
    """

    indices: Tensor | None = None
    images: Tensor | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def random_set(data: Dataset, ipc: int, generator: torch.Generator) -> Tensor:
    """Indices (K·ipc,) of ``ipc`` training images of each class, drawn without replacement."""
    return torch.cat([m[torch.randperm(len(m), generator=generator)[:ipc]] for m in data.by_class])
