"""Gradient matching: DC (Zhao, Mopuri & Bilen, ICLR 2021).

Move the synthetic images until the gradient of the loss on them points, layer by layer and row by row, where the
gradient on the real images points; at IPC > 1, along the path of a network that is trained on the synthetic images.

The gradient of a gradient is written with ``torch.func`` and all classes go through one ``vmap``, so that it compiles
into one graph of the size of a single class.

``plain`` is the paper's loop: one of its iterations takes a fresh network through ``outer`` updates of the images, with
``inner`` epochs of training between two of them, so that its 1000 iterations are 1000 · ``outer`` steps here. At IPC 1
the network is never trained, so the real gradients depend on the network alone: ``bank`` keeps views of the real
images, each a (network, real class gradients), and draws one each step (see ``engine.distill.bank``).

The same loop with siamese augmentation is ``engine.distill.dsa``, which says only what the images are shown under.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap

from engine.accel import Accel
from engine.augment import Draw, apply
from engine.data.base import Dataset
from engine.distill.bank import Bank
from engine.distill.base import ImageDistiller, StepReport, check_finite, on_device
from engine.distill.images import class_batch, network_key, new_seed, to_space
from engine.errors import Refused
from engine.formation import decode
from engine.methods import BANK_NEEDS_UNTRAINED, DCParameters
from engine.networks import make_network
from engine.spec import RunSpec

NET_BATCH = 256  # of plain SGD on the network, inside one trajectory


def gradient_distance(synthetic: dict[str, Tensor], real: dict[str, Tensor], distance: str = "rows") -> Tensor:
    """How far two sets of class gradients are from each other, summed over classes.

    Both map parameter names to gradients with one leading class dimension: (K, out, …).

    ``rows``, equation 5 of the paper: the sum over layers and output rows of 1 - cosine similarity. A row is what leads
    to one output: (in·kh·kw) of a convolution, (in) of a linear layer. Biases and the scales and shifts of
    normalisation layers do not count, as in the paper's code. ``cosine``: 1 - cosine similarity of all numbers of a
    class's gradient as one vector. ``squared``: the sum of their squared differences.
    """
    if distance == "rows":
        pairs = [(g.flatten(2), real[name].flatten(2)) for name, g in synthetic.items() if g.ndim > 2]
        return torch.stack([_angle(a, b) for a, b in pairs]).sum()
    a, b = (torch.cat([g[name].flatten(1) for name in synthetic], 1) for g in (synthetic, real))
    return _angle(a, b) if distance == "cosine" else (a - b).square().sum()


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine similarity along the last dimension, summed over the others."""
    return (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)).sum()


def loops(ipc: int) -> tuple[int, int]:
    """(outer, inner) loops for ``ipc``: image updates per network, and epochs of training between two of them.

    As many updates as images per class, and the fewer epochs the more images an epoch has: along straight lines through
    the values of the paper's code, 50 epochs up to IPC 10, 25, 20, 15 and 10 at 20, 30, 40 and 50, and its authors'
    advice of 2 at 100. At IPC 1 there is a single update, and nothing is trained.
    """
    return ipc, 1 if ipc == 1 else round(float(np.interp(ipc, (10, 20, 50, 100), (50, 25, 10, 2))))


@lru_cache(maxsize=4)
def programs(key: tuple[Any, ...], distance: str, accel: Accel) -> tuple[Callable[..., Any], ...]:
    """(gradient and loss in the images, gradient in the parameters, the same never compiled); kept for later runs."""

    def build() -> tuple[Callable[..., Any], ...]:
        network = make_network(*key)

        def loss(params: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
            with accel.autocast():
                logits = functional_call(network, params, (images,))
            return F.cross_entropy(logits.float(), labels)

        def objective(images: Tensor, labels: Tensor, params: dict[str, Tensor], real: dict[str, Tensor]) -> Tensor:
            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(params, images, labels)
            return gradient_distance({k: g.float() for k, g in gradients.items()}, real, distance)

        return grad_and_value(objective), grad(loss)

    return *accel.programs(build), build()[1]


def under(augmentation: list[Any], images: Tensor) -> Tensor:
    """``images`` under an augmentation, a ``Draw`` as a list; an empty one leaves them as they are."""
    return apply(images, Draw(*augmentation)) if augmentation else images


class Method(ImageDistiller):
    """DC as a distiller; see the module's text. One step is one update of the images."""

    own: DCParameters

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, DCParameters)
        super().setup(spec, data, accel)
        own = self.own
        outer, inner = loops(spec.ipc)
        self.outer, self.inner = own.outer_loop or outer, inner if own.inner_loop is None else own.inner_loop
        trained = own.trains(spec.ipc)
        self.banked = own.variant == "bank" or (own.variant == "auto" and not trained)
        if self.banked and trained:
            raise Refused(BANK_NEEDS_UNTRAINED)
        self.optimiser = torch.optim.SGD([self.images], lr=own.lr_img, momentum=0.5)
        self.key = network_key(spec, data)
        self.params: dict[str, Tensor] = {}  # of the network under way, where it is trained
        self.bank = Bank(own.bank_size, own.refresh, len(data.classes), self._begin, self._see, self.generator)
        self._image_gradient, self._gradient, self._rough_gradient = programs(self.key, own.distance, accel)

    # ---- the method ----

    def step(self) -> StepReport:
        if self.banked:
            view = self.bank.draw()
        else:
            view = self._begin(self.params if self.count % self.outer else None)
            view["classes"] = [self._see(view, c, 1.0) for c in range(len(self.data.classes))]
            self.params = view["params"]
        real = {k: torch.stack([g[k] for g in view["classes"]]) for k in view["params"]}
        images, labels = self._shown()
        shown = torch.stack([under(a, own) for a, own in zip(view["augmentations"], images, strict=True)])
        gradient, loss = self._image_gradient(shown.detach(), labels, view["params"], real)
        check_finite(loss, gradient)
        self.optimiser.zero_grad()
        shown.backward(gradient.to(shown))  # through augmentations and decoding, to the pixels
        self.optimiser.step()
        self.count += 1
        if not self.banked and self.count % self.outer:
            self._train_network()
        return StepReport(self.count, float(loss))

    def _train_network(self) -> None:
        """``inner`` epochs of plain SGD on the synthetic images, each batch under an augmentation of its own."""
        with torch.no_grad():
            images, labels = (t.flatten(0, 1) for t in self._shown())
            for _ in range(self.inner):
                for picked in torch.randperm(len(images), generator=self.generator).split(NET_BATCH):
                    picked = picked.to(images.device)
                    batch = under(self._augmentation(len(picked)), images[picked])
                    gradients = self._gradient(self.params, batch, labels[picked])
                    self.params = {k: p - self.own.lr_net * gradients[k] for k, p in self.params.items()}

    def _shown(self) -> tuple[Tensor, Tensor]:
        """The synthetic images, decoded, as (K, n, C, H, W), and their classes as (K, n)."""
        images = decode(self.images, self.own.factor).unflatten(0, (len(self.data.classes), -1))
        labels = torch.arange(len(images), device=images.device)
        return images, labels.view(-1, 1).expand(images.shape[:2]).contiguous()

    def _augmentation(self, rows: int = 1) -> list[Any]:
        """A new augmentation, with parameters for so many images: none here."""
        return []

    # ---- what a random network sees of the real images ----

    def _begin(self, params: dict[str, Tensor] | None = None) -> dict[str, Any]:
        """A network, a random one unless its parameters are given, and an augmentation for each class."""
        if params is None:
            network = make_network(*self.key, seed=new_seed(self.generator)).to(self.accel.device)
            params = {k: p.detach() for k, p in network.named_parameters()}
        return {"params": params, "augmentations": [self._augmentation() for _ in self.data.classes]}

    def _see(self, view: dict[str, Any], c: int, share: float) -> dict[str, Tensor]:
        """The gradient of the loss on a fresh real batch of class ``c``, under its augmentation, by parameter."""
        picked = class_batch(self.data, c, math.ceil(self.own.batch_real * share), self.generator)
        real = under(view["augmentations"][c], to_space(self.data, picked, self.zca).to(self.accel.device))
        look = self._gradient if share == 1 else self._rough_gradient  # one call a class is not worth compiling
        gradient = look(view["params"], real, torch.full((len(real),), c, device=real.device))
        return {k: g.float() for k, g in gradient.items()}

    # ---- the result and the state ----

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "params": self.params, "bank": self.bank.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.params = on_device(state["params"], self.accel.device)
        self.bank.load_state_dict(on_device(state["bank"], self.accel.device))
