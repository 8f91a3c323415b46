"""EL2N (Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021): the images with the largest errors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.accel import Accel
from engine.baselines.dynamics import EPOCHS, Dynamics, top_of_each_class, training_dynamics
from engine.baselines.pick import Picked
from engine.data.base import Dataset


def make(data: Dataset, ipc: int, seed: int, accel: Accel, progress: Callable[[float], None]) -> Picked:
    """Per class, the ``ipc`` images with the highest EL2N, as published.

    The paper keeps the highest scores of half a dataset and more, where they make good training sets. Of a few images
    a class they are the oddest and the mislabelled ones, which teach less than random images do: that is what this
    baseline shows. ``ccs`` is the remedy.
    """
    dynamics = training_dynamics(data, seed, accel, progress)
    generator = torch.Generator().manual_seed(seed)
    return Picked(top_of_each_class(data, el2n(dynamics), ipc, generator), notes=dynamics.notes)


def el2n(dynamics: Dynamics) -> Tensor:
    """EL2N (N,) in [0, √2]: E ‖p(w_t, x) - y‖₂ over networks w (their definition 2.2), in the fifth epoch t."""
    epoch = min(EPOCHS, dynamics.errors.shape[1]) - 1
    return dynamics.errors[:, epoch].mean(0)
