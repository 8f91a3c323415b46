"""Random truncated back-propagation through time: RaT-BPTT (Feng, Vedantam & Kempe, ICLR 2024).

Unrolling a whole training gives wild gradients, and unrolling only its beginning teaches the images nothing about its
end. So each update trains a fresh network on the images for a random number of steps, ends with a window of a few steps
more, and goes back through that window only: every stage of the training is looked at in its turn, at the price of a
short one.

The networks train with Adam, whose averages of gradients are part of what the window goes back through. The gradient
is clipped at twice the moving average of its norm, as in the paper's code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from engine import augment
from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill.base import ImageDistiller, StepReport, check_finite
from engine.distill.dd import programs, real_batch
from engine.distill.images import network_key, new_seed
from engine.distill.unroll import Advance, Loss, State, Weights, clipped, descent, unroll
from engine.estimate import keeps_path
from engine.methods import RaTParameters
from engine.networks import make_network
from engine.spec import RunSpec
from engine.students.train import place

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam on the networks


def adam(loss: Loss) -> Advance:
    """A step of Adam (Kingma & Ba 2015, algorithm 1) on ``loss``.

    Its state maps ``weights``, ``m`` and ``v`` to tensors by parameter, ``age`` to the number of steps taken.

    Epsilon stands inside the root, squared, where it does the same and the derivative stays finite at v = 0.
    """

    def advance(state: State, images: Tensor, labels: Tensor, rate: Tensor) -> State:
        slope = grad(loss)(state["weights"], images, labels)
        age = state["age"] + 1
        m = {k: BETA1 * state["m"][k] + (1 - BETA1) * g for k, g in slope.items()}
        v = {k: BETA2 * state["v"][k] + (1 - BETA2) * g.square() for k, g in slope.items()}
        ahead, size = 1 - BETA1**age, 1 - BETA2**age
        weights = {
            k: w - rate * (m[k] / ahead) / (v[k] / size + EPSILON**2).sqrt() for k, w in state["weights"].items()
        }
        return {"weights": weights, "m": m, "v": v, "age": age}

    return advance


class Method(ImageDistiller):
    """RaT-BPTT as a distiller; see the module's text. One step is one update of the images."""

    own: RaTParameters

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, RaTParameters)
        spec.parameters.check()
        super().setup(spec, data, accel)
        self.labels = self.classes.to(accel.device)
        self.optimiser = torch.optim.Adam([self.images], lr=self.own.lr_img)
        self.strategy = augment.strategy_for(data)
        self.average: float | None = None  # of the gradient's norm
        self.key = network_key(spec, data)
        self.keep = keeps_path(spec)
        self._advance, self._judge = programs(self.key, accel, adam if self.own.inner == "adam" else descent)

    # ---- the method ----

    def step(self) -> StepReport:
        own = self.own
        rate = torch.tensor(own.lr_net, device=self.accel.device)
        state = self._young()
        before = int(torch.randint(own.total - own.window + 1, (1,), generator=self.generator))
        with torch.no_grad():
            for _ in range(before):
                state = self._advance(state, *self._batch(), rate)
        batches = [self._batch() for _ in range(own.window)]
        final, sweep = unroll(self._advance, state, batches, rate.expand(own.window), self.keep)
        real, targets = real_batch(self.data, self.zca, own.batch_real, self.generator, self.accel)
        gradient, loss = self._judge(self._weights(final), real, targets)
        found = sweep(self._seen(final, gradient))
        self.optimiser.zero_grad()
        torch.autograd.backward([images for images, _ in batches], found.images)
        assert self.images.grad is not None
        check_finite(loss, self.images.grad)
        self.images.grad, self.average = clipped(self.images.grad, self.average)
        self.optimiser.step()
        self.count += 1
        return StepReport(self.count, float(loss), {"trained": float(before + own.window)})

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The synthetic images of one step inside, and their labels."""
        images, labels = self.images, self.labels
        if len(images) > self.own.batch_syn:
            picked = torch.randperm(len(images), generator=self.generator)[: self.own.batch_syn].to(images.device)
            images, labels = images[picked], labels[picked]
        if self.own.augment:
            images = augment.apply(images, augment.draw(self.strategy, self.generator, self.data.size, len(images)))
        return place(images, self.accel), labels

    # ---- networks in training ----

    def _young(self) -> State:
        """A network at random initialisation."""
        network = make_network(*self.key, seed=new_seed(self.generator)).to(self.accel.device)
        weights = {k: p.detach() for k, p in network.named_parameters()}
        if self.own.inner == "sgd":
            return weights
        zeros = {name: {k: torch.zeros_like(w) for k, w in weights.items()} for name in ("m", "v")}
        return {"weights": weights, **zeros, "age": torch.zeros((), device=self.accel.device)}

    def _weights(self, state: State) -> Weights:
        return state if self.own.inner == "sgd" else state["weights"]

    def _seen(self, state: State, gradient: Weights) -> State:
        """The gradient with respect to a state, of a loss that sees its weights only."""
        if self.own.inner == "sgd":
            return gradient
        zeros = {name: {k: torch.zeros_like(w) for k, w in state[name].items()} for name in ("m", "v")}
        return {"weights": gradient, **zeros, "age": torch.zeros_like(state["age"])}

    # ---- the result and the state ----

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.average = state["average"]
