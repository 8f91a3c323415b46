"""Back-propagation through steps of training, one step at a time: a forward loop that keeps each step by itself, and a
sweep back through them.

A step maps a state w_t, images x_t and a rate r_t to the next state. The sweep hands the gradient λ_{t+1} with respect
to w_{t+1} to the vector-Jacobian product of that one step, which gives λ_t and the gradients in x_t and r_t; for plain
gradient descent, w_{t+1} = w_t - r_t ∇L(w_t; x_t, y_t), these are

    λ_t = λ_{t+1} - r_t ∇²L λ_{t+1},   dx_t = -r_t ∂/∂x_t <λ_{t+1}, ∇L>,   dr_t = -<λ_{t+1}, ∇L>.

Together they are exactly the gradient that autograd finds through the whole unrolled loop (Wang et al., Dataset
Distillation, 2018, algorithm 1), but one program of the size of one step is compiled, however many steps there are. And
where memory would not hold the activations of all steps, only their states are kept, and each step is taken again on
the way back (Cui et al., Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory, ICML 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

Weights = dict[str, Tensor]
State = Any  # tensors in dictionaries: the weights, or with them what an optimiser keeps of each
Loss = Callable[[Weights, Tensor, Tensor], Tensor]  # of weights, images and labels
Advance = Callable[[State, Tensor, Tensor, Tensor], State]  # of a state, images, labels and a rate

SMOOTH = 0.9  # of the moving average of a gradient's norm


def descent(loss: Loss) -> Advance:
    """One step of plain gradient descent on ``loss``; its state is the weights."""

    def advance(weights: Weights, images: Tensor, labels: Tensor, rate: Tensor) -> Weights:
        slope = grad(loss)(weights, images, labels)
        return {k: w - rate * slope[k] for k, w in weights.items()}

    return advance


@dataclass(frozen=True)
class Gradients:
    """What the sweep back finds: one tensor of each step's images' shape per step, the rates' (T,), the state's."""

    images: list[Tensor]
    rates: Tensor
    state: State


def unroll(
    advance: Advance, state: State, batches: Sequence[tuple[Tensor, Tensor]], rates: Tensor, keep: bool = True
) -> tuple[State, Callable[[State], Gradients]]:
    """Train from ``state``, one step for each (images, labels) of ``batches`` at each of ``rates`` (T,).

    Gives the final state and a function that takes the gradient with respect to it, once, and gives ``Gradients``.
    ``keep``: whether to keep the activations of all steps; else each step is taken twice. Batches are taken as
    constants: where they were computed (augmented, picked from a set, repeated), go on from the gradients with
    ``torch.autograd.backward(images, gradients.images)``.
    """
    path = []
    for (images, labels), rate in zip(batches, rates.detach().unbind(), strict=True):
        before = tree_map(_leaf, (state, images, rate))
        with torch.set_grad_enabled(keep):
            after = advance(before[0], before[1], labels, before[2])
        path.append((before, labels, after if keep else None))
        state = tree_map(torch.Tensor.detach, after)

    def sweep(gradient: State) -> Gradients:
        images, slopes = [], []
        while path:
            before, labels, after = path.pop()
            if after is None:
                with torch.enable_grad():
                    after = advance(before[0], before[1], labels, before[2])
            leaves, structure = tree_flatten(before)
            found = torch.autograd.grad(
                tree_leaves(after), leaves, tree_leaves(gradient), allow_unused=True, materialize_grads=True
            )
            gradient, image, slope = tree_unflatten(found, structure)
            images.append(image)
            slopes.append(slope)
        return Gradients(images[::-1], torch.stack(slopes[::-1]), gradient)

    return state, sweep


def clipped(gradient: Tensor, average: float | None) -> tuple[Tensor, float]:
    """``gradient`` no longer than twice the moving average of its norm, and that average with this norm in it."""
    norm = float(gradient.norm())
    average = norm if average is None else SMOOTH * average + (1 - SMOOTH) * norm
    return gradient * min(1.0, 2 * average / max(norm, 1e-12)), average


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def unsoftened(rates: Tensor) -> Tensor:
    """What softplus makes these step sizes (> 0) of, also where they are large."""
    return rates + torch.log(-torch.expm1(-rates))
