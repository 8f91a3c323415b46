"""Dataset distillation: DD (Wang, Zhu, Torralba & Efros, 2018).

Learn images, and the size of each step, so that a few steps of plain gradient descent on them turn an initial network
into one that is right about real images. The gradient goes back through all of these steps to the images of each and to
its step size. Learned for one fixed network, ten images suffice for MNIST; learned for any freshly initialised network,
they need more images and more steps, as each step has images of its own; pre-trained networks lie between.

The sweep back goes through one step at a time (``engine.distill.unroll``), as the paper's code does, so that one
program of the size of a step is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value

from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill.base import ImageDistiller, StepReport, check_finite, cosine, on_device
from engine.distill.images import network_key, new_seed, to_space
from engine.distill.pretrained import begin
from engine.distill.unroll import Advance, Loss, Weights, clipped, descent, unroll, unsoftened
from engine.estimate import keeps_path
from engine.methods import DDParameters
from engine.networks import make_network
from engine.spec import RunSpec
from engine.students.train import place
from engine.synthetic import ZCA, Start, SyntheticSet

BETAS = (0.5, 0.999)  # of Adam on the images, as in the paper's code
LOOK_EVERY = 20  # updates from one look at held-out images to the next, in the second half of the budget
POOL_SEEDS = 1_000_000_000  # of pre-trained networks to distil with: none that a student is likely to be given


@lru_cache(maxsize=4)
def programs(
    key: tuple[Any, ...], accel: Accel, training: Callable[[Loss], Advance] = descent
) -> tuple[Callable[..., Any], ...]:
    """(a step of ``training``, gradient and loss in the weights) of a network; kept for later runs."""

    def build() -> tuple[Callable[..., Any], ...]:
        network = make_network(*key)

        def loss(weights: Weights, images: Tensor, labels: Tensor) -> Tensor:
            with accel.autocast():
                logits = functional_call(network, weights, (images,))
            return F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, labels)

        return training(loss), grad_and_value(loss)

    return accel.programs(build)


def real_batch(
    data: Dataset, zca: ZCA | None, count: int, generator: torch.Generator, accel: Accel
) -> tuple[Tensor, Tensor]:
    """``count`` random real images in model space, half of them mirrored where that keeps the class, and labels."""
    pool = data.distil_indices
    picked = pool[torch.randint(len(pool), (count,), generator=generator)]
    images = to_space(data, picked, zca)
    if data.flips:
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    return place(images, accel), data.train_labels[picked].to(accel.device)


class Method(ImageDistiller):
    """DD as a distiller; see the module's text. One step is one update of images and step sizes."""

    own: DDParameters

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, DDParameters)
        spec.parameters.check(spec.ipc, spec.zca)
        super().setup(spec, data, accel)
        own = self.own
        self.labels = self.classes.to(accel.device)
        self.turns = 1 if own.shared else own.distill_steps
        first = torch.full((own.distill_steps * own.distill_epochs,), own.lr_step, device=accel.device)
        self.raw_rates = first.expm1().log().requires_grad_()  # the inverse of softplus, which keeps rates above zero
        self.optimiser = torch.optim.Adam([self.images, self.raw_rates], lr=own.lr_img, betas=BETAS)
        self.averages: list[float | None] = [None, None]  # of the norms of their gradients

        key = network_key(spec, data)
        names = ("name", "channels", "size", "classes", "width", "depth")
        self.build = dict(zip(names, key, strict=True))
        self.pool: list[Weights] = []
        self.start = self._start()
        self.keep = keeps_path(spec)
        self._advance, self._judge = programs(key, accel)
        self.network = make_network(*key)
        self.best: dict[str, Any] = {}  # accuracy, count, images and raw_rates of the best look at held-out images

    # ---- the method ----

    def step(self) -> StepReport:
        own = self.own
        rates = F.softplus(self.raw_rates)
        batches = self._batches()
        real, targets = self._real()
        self.optimiser.zero_grad()
        total = 0.0
        for _ in range(self.own.n_nets):
            final, sweep = unroll(self._advance, self._begin(), batches, rates, self.keep)
            gradient, loss = self._judge(final, real, targets)
            found = sweep(gradient)
            torch.autograd.backward([images for images, _ in batches], [g / self.own.n_nets for g in found.images])
            rates.backward(found.rates / self.own.n_nets, retain_graph=True)
            total += float(loss) / self.own.n_nets
        assert self.images.grad is not None and self.raw_rates.grad is not None
        check_finite(torch.tensor(total), torch.cat([self.images.grad.flatten(), self.raw_rates.grad]))
        if own.clip:
            for i, gradient in enumerate((self.images.grad, self.raw_rates.grad)):
                shorter, self.averages[i] = clipped(gradient, self.averages[i])
                gradient.copy_(shorter)
        for group in self.optimiser.param_groups:
            falls = cosine(self.progress) if self.own.cosine else 0.5 ** (self.count // self.own.halve)
            group["lr"] = self.own.lr_img * falls
        self.optimiser.step()
        self.count += 1
        if own.keep_best and self.progress >= 0.5 and self.count % LOOK_EVERY == 0:
            self._look()
        return StepReport(self.count, total, {"step_size": float(rates.detach().mean())})

    def _batches(self) -> list[tuple[Tensor, Tensor]]:
        """Images and labels of each gradient step."""
        turns = [
            (place(self.images[turn :: self.turns], self.accel), self.labels[turn :: self.turns])
            for turn in range(self.turns)
        ]
        return [turns[t % self.turns] for t in range(len(self.raw_rates))]

    def _real(self) -> tuple[Tensor, Tensor]:
        return real_batch(self.data, self.zca, self.own.batch_real, self.generator, self.accel)

    # ---- the best images ----

    def _look(self) -> None:
        """Take the steps, classify the held-out images with the network they end at, and keep the best so far."""
        weights, _ = unroll(self._advance, self._begin(), self._batches(), F.softplus(self.raw_rates), self.keep)
        right = 0
        for part in self.data.held_out.split(500):
            real = place(to_space(self.data, part, self.zca), self.accel)
            with torch.no_grad(), self.accel.autocast():
                found = functional_call(self.network, weights, (real,)).argmax(1).cpu()
            right += int((found == self.data.train_labels[part]).sum())
        accuracy = right / len(self.data.held_out)
        if accuracy > self.best.get("accuracy", -1.0):
            kept = {"images": self.images.detach().clone(), "raw_rates": self.raw_rates.detach().clone()}
            self.best = {"accuracy": accuracy, "count": self.count, **kept}

    def conclude(self) -> str:
        """The best images that were looked at, those of the last update among them, are the run's."""
        if not self.best:
            return ""
        self._look()
        with torch.no_grad():
            self.images.copy_(self.best["images"])
            self.raw_rates.copy_(self.best["raw_rates"])
        self.images.grad = None  # that of other images
        return (
            f"The images are those of update {self.best['count']:,}: of all that were looked at, the network trained "
            f"on them does best on the {len(self.data.held_out):,} held-out images, with {self.best['accuracy']:.1%} "
            "right."
        )

    # ---- where the steps begin ----

    def _start(self) -> Start:
        """What the set will say about its initial network."""
        own, kind = self.own, self.own.initial
        facts: dict[str, Any] = {"network": self.spec.network, "width": self.spec.width, "depth": self.spec.depth}
        if "pretrained" in kind:
            facts |= {"source": own.source or self.data.name, "source_steps": own.source_steps}
        if kind.startswith("fixed"):
            free = Start(kind.replace("fixed", "random"), **facts)
            seed = self.spec.seed + (POOL_SEEDS if "pretrained" in kind else 0)
            facts["weights"] = begin(free, self.build, seed, self.data, self.accel).state_dict()
        return Start(kind, **facts)

    def _begin(self) -> Weights:
        """The weights of an initial network, on the device."""
        if self.start.fixed:
            return {k: w.to(self.accel.device) for k, w in self.start.weights.items()}
        if self.start.initial == "random":
            return self._weights(new_seed(self.generator))
        if len(self.pool) < self.own.pool:  # one by one, so that the first image does not wait for all of them
            self.pool.append(self._weights(POOL_SEEDS + len(self.pool)))
        return self.pool[int(torch.randint(len(self.pool), (1,), generator=self.generator))]

    def _weights(self, seed: int) -> Weights:
        network = begin(self.start, self.build, seed, self.data, self.accel)
        return {k: p.detach().to(self.accel.device) for k, p in network.named_parameters()}

    # ---- the result and the state ----

    def start_from(self, images: Tensor, labels: Tensor | None, step_sizes: Tensor | None) -> None:
        super().start_from(images, labels, step_sizes)
        if step_sizes is not None and len(step_sizes) == len(self.raw_rates):
            with torch.no_grad():
                self.raw_rates.copy_(unsoftened(step_sizes))

    def synthetic(self) -> SyntheticSet:
        """The images as they are now, with hard labels, step sizes and where the steps begin."""
        sizes = F.softplus(self.raw_rates).detach().float().cpu()
        return replace(super().synthetic(), step_sizes=sizes, turns=self.turns, start=self.start)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "raw_rates": self.raw_rates.detach(),
            "weights": self.start.weights,
            "pool": self.pool,
            "averages": self.averages,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            self.raw_rates.copy_(state["raw_rates"])
        self.start = replace(self.start, weights={k: w.cpu() for k, w in state["weights"].items()})
        self.pool = state["pool"]
        self.best = on_device(state.get("best", {}), self.accel.device)
        self.averages = state.get("averages", [None, None])  # a run that began before there were any
