"""Distribution matching: DM (Zhao & Bilen, WACV 2023).

Move the synthetic images until random networks see the same class means in them as in the real images, under the same
siamese augmentation. Nothing is trained and every derivative is first-order.

``plain`` is the paper's loop: a fresh network, fresh real batches and a fresh augmentation each step. Nearly all of its
time goes into the real images, whose class means do not depend on the synthetic ones. ``bank`` therefore keeps views of
them, each a (network, augmentation, real class means), and draws one each step: the same expectation, estimated from
samples that are used several times (see ``engine.distill.bank``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from engine.accel import Accel
from engine.augment import Draw, apply, draw, strategy_for
from engine.data.base import Dataset
from engine.distill.bank import Bank
from engine.distill.base import ImageDistiller, StepReport, check_finite, cosine, on_device
from engine.distill.images import class_batch, network_key, new_seed, to_space
from engine.formation import decode
from engine.methods import DMParameters
from engine.networks import make_network
from engine.spec import RunSpec


def matching_loss(features: Tensor, means: Tensor) -> Tensor:
    """Equation 5 of the paper for one network: the squared distance of class means, summed over classes.

    ``features`` (K, ipc, D) of the synthetic images, ``means`` (K, D) of the real ones.
    """
    return (features.mean(1) - means).square().sum()


class Embedding(nn.Module):
    """What is matched: images (N, C, H, W) to the features (N, D) of a network's ``body``."""

    def __init__(self, body: nn.Sequential):
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D)."""
        return self.body(images).flatten(1)


@lru_cache(maxsize=4)
def programs(
    key: tuple[Any, ...], accel: Accel, embedding: type[nn.Module] = Embedding, **options: Any
) -> tuple[Callable[..., Any], ...]:
    """(gradient and loss in the images, features, the same never compiled) given a network's parameters; kept.

    ``embedding`` makes features of a network's body, and takes ``options``.
    """

    def build() -> tuple[Callable[..., Any], ...]:
        module = embedding(make_network(*key).body, **options)

        def embed(params: dict[str, Tensor], images: Tensor) -> Tensor:
            with accel.autocast():
                features = functional_call(module, params, (images,))
            return features.float() if features.dtype == torch.bfloat16 else features

        def objective(images: Tensor, params: dict[str, Tensor], means: Tensor) -> Tensor:
            features = embed(params, images)
            return matching_loss(features.view(len(means), -1, features.shape[1]), means)

        return grad_and_value(objective), embed

    return *accel.programs(build), build()[1]


class Method(ImageDistiller):
    """DM as a distiller; see the module's text."""

    own: DMParameters

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, DMParameters)
        super().setup(spec, data, accel)
        self.optimiser = torch.optim.SGD([self.images], lr=self.own.lr_img, momentum=0.5)
        self.strategy = strategy_for(data)
        self.key = network_key(spec, data)
        own = self.own
        self.bank = Bank(own.bank_size, own.refresh, len(data.classes), self._begin, self._see, self.generator)
        self._gradient, self._embed, self._rough_embed = self._programs()

    def _programs(self) -> tuple[Callable[..., Any], ...]:
        return programs(self.key, self.accel)

    # ---- the method ----

    def step(self) -> StepReport:
        view = self.bank.whole() if self.own.variant == "plain" else self.bank.draw()
        images = decode(self.images, self.own.factor)
        images = apply(images, Draw(*view["augmentation"])) if self.own.augment else images
        gradient, loss = self._gradient(images.detach(), view["params"], torch.stack(view["classes"]))
        check_finite(loss, gradient)
        self.optimiser.zero_grad()
        images.backward(gradient)  # through augmentation and decoding, to the pixels
        for group in self.optimiser.param_groups:
            group["lr"] = self.own.lr_img * (cosine(self.progress) if self.own.cosine else 1.0)
        self.optimiser.step()
        self.count += 1
        return StepReport(self.count, float(loss))

    # ---- what a random network sees of the real images ----

    def _begin(self) -> dict[str, Any]:
        """A random network and a random augmentation."""
        network = make_network(*self.key, seed=new_seed(self.generator)).to(self.accel.device)
        params = {k: p.detach() for k, p in network.named_parameters() if k.startswith("body.")}
        return {"params": params, "augmentation": list(draw(self.strategy, self.generator, self.data.size))}

    def _see(self, view: dict[str, Any], c: int, share: float) -> Tensor:
        """The mean feature (D,) of a fresh real batch of class ``c`` under the view's network and augmentation."""
        picked = class_batch(self.data, c, math.ceil(self.own.batch_real * share), self.generator)
        real = to_space(self.data, picked, self.zca).to(self.accel.device)
        real = apply(real, Draw(*view["augmentation"])) if self.own.augment else real
        look = self._embed if share == 1 else self._rough_embed  # one call a class is not worth compiling
        with torch.no_grad():
            return look(view["params"], real).mean(0)

    # ---- the state ----

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "bank": self.bank.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.bank.load_state_dict(on_device(state["bank"], self.accel.device))
