"""Back-propagation through steps of gradient descent, in the memory of one step: a forward loop that keeps the weights
of each step, and a sweep back through it that goes through one step at a time.

Plain gradient descent w_{t+1} = w_t - r_t ∇L(w_t; x_t, y_t) maps a gradient λ_{t+1} with respect to w_{t+1} to

    λ_t = λ_{t+1} - r_t ∇²L λ_{t+1},   dx_t = -r_t ∂/∂x_t <λ_{t+1}, ∇L>,   dr_t = -<λ_{t+1}, ∇L>,

which is the vector-Jacobian product of that one step. Together they are exactly the gradient that autograd finds
through the whole unrolled loop (Wang et al., Dataset Distillation, 2018, algorithm 1; Cui et al., Scaling Up Dataset
Distillation to ImageNet-1K with Constant Memory, ICML 2023), but nothing but the weights is kept, and one program of
the size of one step is compiled, however many steps there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

Weights = dict[str, Tensor]
Loss = Callable[[Weights, Tensor, Tensor], Tensor]  # of weights, images and labels
Advance = Callable[[Weights, Tensor, Tensor, Tensor], Weights]
Retreat = Callable[[Weights, Tensor, Tensor, Tensor, Weights], tuple[Weights, Tensor, Tensor]]


def step_functions(loss: Loss) -> tuple[Advance, Retreat]:
    """``advance(weights, images, labels, rate)``, one step of gradient descent on ``loss``, and ``retreat`` of the same
    arguments and the gradient with respect to its result: the gradients in weights, images and rate. Both compile."""

    def advance(weights: Weights, images: Tensor, labels: Tensor, rate: Tensor) -> Weights:
        slope = grad(loss)(weights, images, labels)
        return {k: w - rate * slope[k] for k, w in weights.items()}

    def retreat(
        weights: Weights, images: Tensor, labels: Tensor, rate: Tensor, gradient: Weights
    ) -> tuple[Weights, Tensor, Tensor]:
        def along(weights: Weights, images: Tensor, rate: Tensor) -> Tensor:
            ahead = advance(weights, images, labels, rate)
            return sum((gradient[k] * ahead[k]).sum() for k in ahead)

        return grad(along, argnums=(0, 1, 2))(weights, images, rate)

    return advance, retreat


@dataclass(frozen=True)
class Gradients:
    """What the sweep back finds: one tensor of each step's images' shape per step, the rates' (T,), the weights'."""

    images: list[Tensor]
    rates: Tensor
    weights: Weights


def unroll(
    advance: Advance,
    retreat: Retreat,
    weights: Weights,
    batches: Sequence[tuple[Tensor, Tensor]],
    rates: Tensor,
) -> tuple[Weights, Callable[[Weights], Gradients]]:
    """Descend from ``weights``, one step for each (images, labels) of ``batches`` at each of ``rates`` (T,).

    Gives the final weights and a function that takes the gradient with respect to them and gives ``Gradients``. Batches
    are taken as constants: where they were computed (augmented, picked from a set, repeated), go on from the gradients
    with ``torch.autograd.backward(images, gradients.images)``.
    """
    steps = [(x.detach(), y.detach(), r) for (x, y), r in zip(batches, rates.detach().unbind(), strict=True)]
    path = []
    for step in steps:
        path.append(weights)
        weights = advance(weights, *step)

    def sweep(gradient: Weights) -> Gradients:
        images, slopes = [], []
        for at, step in zip(reversed(path), reversed(steps), strict=True):
            gradient, image, slope = retreat(at, *step, gradient)
            images.append(image)
            slopes.append(slope)
        return Gradients(images[::-1], torch.stack(slopes[::-1]), gradient)

    return weights, sweep
