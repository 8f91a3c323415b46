"""Neural feature regression with pooling: FRePo (Zhou, Nezhadarya & Ba, NeurIPS 2022).

A set is good when kernel ridge regression from it, on the features of a network trained on it, predicts the labels of
the real images. The features are held fixed while the images and labels learn, so nothing is unrolled and every
derivative is first-order. A pool of networks of staggered age stands in for all stages of training.

Against the paper's code, one thing is done to suit small machines: what a network sees of the real images is kept for
``reuse`` steps, during which that network is not trained, so that its features stay exactly those of the regression.
With ``reuse=1`` and ``advance=1`` every step draws fresh real images and then trains its network once, as in the
paper's algorithm 1. And one thing is done to suit the students, who train under a light augmentation: so do the
networks of the pool, and the regression starts from augmented images, unless ``augment`` is off. (Ten images of
CIFAR-10 distilled without it, for two minutes, taught students who only mirrored them 48 %, and those who augmented as
the protocol does 42 %; distilled with it they taught the latter 46 %.) The step size falls along a cosine to a tenth
over the run's budget, as in the paper's code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value

from engine.accel import Accel
from engine.augment import apply, draw, strategy_for
from engine.data.base import Dataset
from engine.distill.base import ImageDistiller, StepReport, check_finite, cosine, on_device
from engine.distill.images import centred_labels, finished, network_key, new_seed, to_space
from engine.formation import decode
from engine.methods import FRePoParameters
from engine.networks import make_network
from engine.spec import RunSpec
from engine.students.train import place
from engine.synthetic import SyntheticSet

RIDGE = 1e-6  # relative to the mean of the kernel's diagonal, as in the paper's code
NET_LR = 3e-4  # Adam on the pool's networks


def regression_loss(features: Tensor, labels: Tensor, real: Tensor, targets: Tensor, ridge: float = RIDGE) -> Tensor:
    """Equation 4 of the paper: half the squared error of kernel ridge regression from the synthetic set.

    ``features`` (n, D) and ``labels`` (n, K) of the synthetic images, ``real`` (m, D) and ``targets`` (m, K). The sum
    runs over classes, the mean over the m real images.
    """
    kernel = features @ features.T
    eye = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    weights = torch.linalg.solve(kernel + ridge * kernel.diagonal().mean() * eye, labels)
    return 0.5 * (real @ (features.T @ weights) - targets).square().sum(1).mean()


def margin_loss(labels: Tensor) -> Tensor:
    """The label-margin term of the paper's code: asks each label's top two entries to differ by at least 1/K."""
    top = labels.topk(2, dim=1).values
    return -(top[:, 0] - top[:, 1]).clamp(max=1 / labels.shape[1]).mean()


@lru_cache(maxsize=4)
def programs(key: tuple[Any, ...], accel: Accel) -> tuple[Callable[..., Any], ...]:
    """(gradients and loss in images and labels, gradients in a network's parameters, features); kept for later runs."""

    def build() -> tuple[Callable[..., Any], ...]:
        network = make_network(*key)

        def features(params: dict[str, Tensor], images: Tensor) -> Tensor:
            """In float32, whatever autocast made of the convolutions: the solve needs the digits."""
            body = {k.removeprefix("body."): p for k, p in params.items() if k.startswith("body.")}
            with accel.autocast():
                return functional_call(network.body, body, (images,)).flatten(1).float()

        def objective(x: Tensor, y: Tensor, params: dict[str, Tensor], real: Tensor, targets: Tensor) -> Any:
            margin = margin_loss(y)
            return regression_loss(features(params, x), y, real, targets) + margin, margin

        def student(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            with accel.autocast():
                logits = functional_call(network, params, (x,))
            return 0.5 * (logits.float() - y).square().sum(1).mean()

        return grad_and_value(objective, argnums=(0, 1), has_aux=True), grad(student), features

    return accel.programs(build)


class Method(ImageDistiller):
    """FRePo as a distiller; see the module's text."""

    own: FRePoParameters

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, FRePoParameters)
        super().setup(spec, data, accel)
        labels = centred_labels(self.classes, len(data.classes)).to(accel.device)
        self.labels = labels.requires_grad_(self.own.learn_labels)
        self.rates = [self.own.lr_img]
        if self.own.learn_labels:
            self.rates.append(self.own.lr_img * self.own.label_rate)
        learned = [self.images, self.labels][: len(self.rates)]
        groups = [{"params": [t], "lr": rate} for t, rate in zip(learned, self.rates, strict=True)]
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.95))

        self.strategy = strategy_for(data, "frepo")
        self.key = network_key(spec, data)
        self.pool: list[dict[str, Any]] = []
        self._image_step, self._net_step, self._features = programs(self.key, accel)

    # ---- the method ----

    def step(self) -> StepReport:
        if len(self.pool) < self.own.pool and self.count % self.own.reuse == 0:
            self.pool.append(self._young())  # one by one, so that the first image does not wait for all of them
        net = self.pool[int(torch.randint(len(self.pool), (1,), generator=self.generator))]
        x, y = self._augmented(*self._shown())
        (gx, gy), (loss, margin) = self._image_step(x.detach(), y.detach(), net["params"], net["real"], net["targets"])
        check_finite(loss, gx)
        self.optimiser.zero_grad()
        for shown, gradient in ((x, gx), (y, gy)):
            if shown.requires_grad:
                shown.backward(gradient.to(shown))  # through augmentation, mirroring and decoding
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * (cosine(self.progress) if self.own.cosine else 1.0)
        self.optimiser.step()
        self.count += 1
        net["uses"] += 1
        if net["uses"] >= self.own.reuse:
            self._train(net, self.own.advance)
            if net["age"] > net["life"]:
                net.update(self._young())
            else:
                self._look(net)
        return StepReport(self.count, float(loss - margin), {"margin": -float(margin)})

    def _shown(self) -> tuple[Tensor, Tensor]:
        """The images as networks see them, decoded and with their mirror images, and a label for each."""
        x, y = decode(self.images, self.own.factor), self.labels
        if self.own.factor > 1:
            y = y.repeat_interleave(self.own.factor**2, 0)
        if self.own.mirror and self.data.flips:
            x, y = torch.cat([x, x.flip(3)]), torch.cat([y, y])
        return x, y

    def _augmented(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The images under one operation, with parameters of each image's own, as students see them."""
        if self.own.augment:
            x = apply(x, draw(self.strategy, self.generator, self.data.size, len(x)))
        return place(x, self.accel), y

    # ---- the pool ----

    def _young(self) -> dict[str, Any]:
        """A network at random initialisation. Lives differ in length, so that ages in the pool do."""
        network = make_network(*self.key, seed=new_seed(self.generator)).to(self.accel.device)
        params = {k: p.detach() for k, p in network.named_parameters()}
        net = {
            "params": params,
            "m": {k: torch.zeros_like(p) for k, p in params.items()},
            "v": {k: torch.zeros_like(p) for k, p in params.items()},
            "age": 0,
            "life": 1 + new_seed(self.generator) % self.own.max_age,
        }
        self._look(net)
        return net

    def _train(self, net: dict[str, Any], steps: int) -> None:
        """Adam (lr 3e-4) on half the squared error of the synthetic set, one full batch a step."""
        with torch.no_grad():
            x, y = self._shown()
        for _ in range(steps):
            seen, labels = self._augmented(x.detach(), y.detach())
            grads = self._net_step(net["params"], seen, labels)
            net["age"] += 1
            for k, g in grads.items():
                m, v = net["m"][k], net["v"][k]
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                scale = (v / (1 - 0.999 ** net["age"])).sqrt_().add_(1e-8)
                net["params"][k].addcdiv_(m, scale, value=-NET_LR / (1 - 0.9 ** net["age"]))

    def _look(self, net: dict[str, Any]) -> None:
        """Fresh real images and their features under ``net``."""
        pool = self.data.distil_indices
        picked = pool[torch.randint(len(pool), (self.own.batch_real,), generator=self.generator)]
        batch = to_space(self.data, picked, self.zca).to(self.accel.device)
        if self.data.flips:
            mirrored = (torch.rand(len(batch), 1, 1, 1, generator=self.generator) < 0.5).to(batch.device)
            batch = torch.where(mirrored, batch.flip(3), batch)
        with torch.no_grad():
            net["real"] = self._features(net["params"], batch)
        labels = self.data.train_labels[picked].to(self.accel.device)
        net["targets"] = centred_labels(labels, len(self.data.classes))
        net["uses"] = 0

    # ---- the result and the state ----

    def start_from(self, images: Tensor, labels: Tensor | None, step_sizes: Tensor | None) -> None:
        super().start_from(images, labels, step_sizes)
        if labels is not None and self.own.learn_labels:
            with torch.no_grad():
                self.labels.copy_(labels)

    def synthetic(self) -> SyntheticSet:
        """The images as they are now; labels soft where they were learned."""
        labels = self.labels if self.own.learn_labels else self.labels.argmax(1)
        return finished(self.spec, self.data, self.images, labels, self.zca, self.count)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "labels": self.labels.detach(), "pool": self.pool}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            self.labels.copy_(state["labels"])
        self.pool = on_device(state["pool"], self.accel.device)
