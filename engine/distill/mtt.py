"""Trajectory matching: MTT (Cazenavette, Wang, Torralba, Efros & Zhu, CVPR 2022).

Start a student where an expert was after some epochs on the real images, let it take a few steps of gradient descent on
the synthetic ones, and move those until it arrives where the expert was some epochs later. The step size is learned as
well, through a softplus, so that it stays positive.

The gradient through all the student's steps is exact, but goes back one step at a time (``engine.distill.unroll``), so
that memory need not grow with their number beyond the weights of each. Experts are recorded along the way
(``engine.distill.experts``): the first segment is matched as soon as it is there, and until all experts are recorded
half of the time goes into the others. A deterministic run records them all first, because what is there when would
depend on the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value

from engine import augment
from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill.base import ImageDistiller, StepReport, check_finite
from engine.distill.experts import Experts
from engine.distill.images import finished, network_key
from engine.distill.unroll import descent, unroll, unsoftened
from engine.errors import Refused
from engine.estimate import keeps_path
from engine.methods import MTTParameters
from engine.networks import make_network
from engine.spec import RunSpec
from engine.students.train import place
from engine.synthetic import SyntheticSet

SLICE = 1.0  # seconds that a step records for while there is nothing to match
SHARE = 1.0  # seconds of recording for each second of matching, until all experts are recorded


def matching_loss(weights: dict[str, Tensor], target: dict[str, Tensor], start: dict[str, Tensor]) -> Tensor:
    """Section 3.2 of the paper: ||θ - θ*||² / ||θ_s - θ*||², where the student arrived, where the expert did, and where
    both began. The sums run over all parameters; 1 is the loss of a student that did not move."""

    def squares(one: dict[str, Tensor]) -> Tensor:
        return reduce(torch.add, [(one[k] - target[k]).square().sum() for k in target])

    return squares(weights) / squares(start)


@lru_cache(maxsize=4)
def program(key: tuple[Any, ...], accel: Accel) -> Callable[..., Any]:
    """One step of gradient descent on images and labels; kept for later runs."""

    def build() -> tuple[Callable[..., Any], ...]:
        network = make_network(*key)

        def loss(params: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
            with accel.autocast():
                logits = functional_call(network, params, (images,))
            return F.cross_entropy(logits.float() if accel.bf16 else logits, labels)

        return (descent(loss),)

    return accel.programs(build)[0]


class Method(ImageDistiller):
    """MTT as a distiller; see the module's text. One step is one update of images and step size."""

    own: MTTParameters

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, MTTParameters)
        if problem := spec.parameters.problem():
            raise Refused(problem)
        super().setup(spec, data, accel)
        self.images.requires_grad_(False)  # the gradient is handed to the optimiser
        self.classes = self.classes.to(accel.device)
        # What softplus makes the initial step size
        self.raw = torch.tensor(self.own.step_size, dtype=torch.float64).expm1().log().float().to(accel.device)
        groups = [{"params": [self.images], "lr": self.own.lr_img}, {"params": [self.raw], "lr": self.own.lr_step}]
        self.optimiser = torch.optim.SGD(groups, momentum=0.5)
        self.strategy = augment.strategy_for(data, "dsa") if self.own.augment else None
        self.experts = Experts(spec, data, accel, self.zca)
        self.took = 0.0  # seconds of the last matching
        self.keep = keeps_path(spec)
        self._advance = program(network_key(spec, data), accel)

    # ---- the method ----

    def step(self) -> StepReport:
        if not self.experts.complete:
            self.experts.record(SHARE * self.took if self._ready() else SLICE)
        if not self._ready():
            note = f"Recording {self.experts.progress}, {self.experts.fraction:.0%}"
            return StepReport(self.count, None, self._extras(), note)
        began = time.perf_counter()
        loss = self._match()
        self.took = time.perf_counter() - began
        self.count += 1
        note = "" if self.experts.complete else f"Distilling while {self.experts.progress} is recorded."
        return StepReport(self.count, loss, self._extras(), note)

    def _ready(self) -> bool:
        return self.experts.complete if self.accel.deterministic else bool(self.experts.segments())

    def _match(self) -> float:
        """One segment of one expert."""
        segments = self.experts.segments()
        expert, starts = segments[int(torch.randint(len(segments), (1,), generator=self.generator))]
        epoch = int(torch.randint(starts, (1,), generator=self.generator))
        start = self.experts.weights(expert, epoch)
        target = self.experts.weights(expert, epoch + self.own.expert_epochs)

        images = self.images.detach().requires_grad_()
        batches = list(self._batches(images))
        rates = F.softplus(self.raw).expand(len(batches))
        final, sweep = unroll(self._advance, start, batches, rates, self.keep)
        gradient, loss = grad_and_value(matching_loss)(final, target, start)
        found = sweep(gradient)
        torch.autograd.backward([x for x, _ in batches], found.images)
        assert images.grad is not None
        check_finite(loss, images.grad)
        self.images.grad = images.grad
        self.raw.grad = found.rates.sum() * self.raw.sigmoid()  # the derivative of softplus
        self.optimiser.step()
        return float(loss)

    def _batches(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The student's batches: the set in random order, and again; each under an augmentation with parameters of
        each image's own."""
        order: list[Tensor] = []
        for _ in range(self.own.syn_steps):
            if not order:
                order = list(torch.randperm(len(images), generator=self.generator).split(self.own.batch_syn))
            picked = order.pop(0).to(images.device)
            batch = images[picked]
            if self.strategy:
                batch = augment.apply(batch, augment.draw(self.strategy, self.generator, self.data.size, len(batch)))
            yield place(batch, self.accel), self.classes[picked]

    def _extras(self) -> dict[str, float]:
        return {"experts": len(self.experts.recorded), "step_size": float(F.softplus(self.raw))}

    # ---- the result and the state ----

    def start_from(self, images: Tensor, labels: Tensor | None, step_sizes: Tensor | None) -> None:
        super().start_from(images, labels, step_sizes)
        if step_sizes is not None and step_sizes.numel() == 1:
            self.raw.copy_(unsoftened(step_sizes).view(()))

    def synthetic(self) -> SyntheticSet:
        """The images as they are now, with hard labels and the learned step size."""
        made = finished(
            self.spec, self.data, self.images, self.classes, self.zca, self.count, experts=len(self.experts.recorded)
        )
        return replace(made, step_sizes=F.softplus(self.raw).cpu().view(1))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "raw": self.raw}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.raw.copy_(state["raw"])
