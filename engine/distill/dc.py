"""Gradient matching: DC (Zhao, Mopuri & Bilen, ICLR 2021).

Move the synthetic images until the gradient of the loss on them points, layer by layer and row by row, where the
gradient on the real images points; at IPC > 1, along the path of a network that is trained on the synthetic images.

The gradient of a gradient is written with ``torch.func`` and all classes go through one ``vmap``, so that it compiles
into one graph of the size of a single class.

``plain`` is the paper's loop. At IPC 1 its network is never trained, so the real gradients depend on the network alone:
``bank`` keeps views of the real images, each a (network, real class gradients), and draws one each step (see
``engine.distill.bank``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap

from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill.bank import Bank
from engine.distill.base import StepReport, check_finite
from engine.distill.images import class_batch, finished, initial_images, network_key, new_seed, to_space, whitening
from engine.errors import Refused
from engine.methods import BANK_NEEDS_IPC_1, DCParameters
from engine.networks import make_network
from engine.spec import RunSpec
from engine.synthetic import SyntheticSet

NET_LR = 0.01  # plain SGD on the network, inside one trajectory
NET_BATCH = 256


def gradient_distance(synthetic: dict[str, Tensor], real: dict[str, Tensor]) -> Tensor:
    """Equation 5 of the paper: the sum over layers and output rows of 1 - cosine similarity.

    Both map parameter names to gradients with one leading class dimension: (K, out, …). A row is what leads to one
    output: (in·kh·kw) of a convolution, (in) of a linear layer. Biases and the scales and shifts of normalisation
    layers do not count, as in the paper's code.
    """
    total = 0.0
    for name, g in synthetic.items():
        if g.ndim < 3:  # class dimension + vector
            continue
        a, b = g.flatten(2), real[name].flatten(2)
        cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)
        total = total + (1 - cosine).sum()
    return total


def loops(ipc: int) -> tuple[int, int]:
    """(outer, inner) loops for ``ipc``: image updates per network, and epochs of training between two of them.

    The paper's code lists (1, 1), (10, 50), (50, 10) for IPC 1, 10, 50; this rule passes through them.
    """
    return (1, 1) if ipc == 1 else (min(ipc, 50), max(1, 500 // max(ipc, 10)))


@lru_cache(maxsize=4)
def programs(key: tuple[Any, ...], accel: Accel) -> tuple[Callable[..., Any], ...]:
    """(gradient and loss in the images, gradient in the parameters, the same never compiled); kept for later runs."""

    def build() -> tuple[Callable[..., Any], ...]:
        network = make_network(*key)

        def loss(params: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
            with accel.autocast():
                logits = functional_call(network, params, (images,))
            return F.cross_entropy(logits.float(), labels)

        def objective(images: Tensor, labels: Tensor, params: dict[str, Tensor], real: dict[str, Tensor]) -> Tensor:
            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(params, images, labels)
            return gradient_distance({k: g.float() for k, g in gradients.items()}, real)

        return grad_and_value(objective), grad(loss)

    return *accel.programs(build), build()[1]


class Method:
    """DC as a distiller; see the module's text. One step is one update of the images."""

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        assert isinstance(spec.parameters, DCParameters)
        self.spec, self.own, self.data, self.accel = spec, spec.parameters, data, accel
        self.banked = self.own.variant == "bank" or (self.own.variant == "auto" and spec.ipc == 1)
        if self.banked and spec.ipc > 1:
            raise Refused(BANK_NEEDS_IPC_1)
        self.generator = torch.Generator().manual_seed(spec.seed)
        self.zca = whitening(data) if spec.zca else None
        images, self.classes = initial_images(spec, data, self.zca)
        self.images = images.to(accel.device)
        self.optimiser = torch.optim.SGD([self.images], lr=self.own.lr_img, momentum=0.5)
        self.outer, self.inner = loops(spec.ipc)
        self.key = network_key(spec, data)
        self.params: dict[str, Tensor] = {}  # of the network under way, at IPC > 1
        own = self.own
        self.bank = Bank(own.bank_size, own.refresh, len(data.classes), self._begin, self._see, self.generator)
        self.count = 0
        self._image_gradient, self._gradient, self._rough_gradient = programs(self.key, accel)

    # ---- the method ----

    def step(self) -> StepReport:
        if self.banked:
            view = self.bank.draw()
        elif self.count % self.outer == 0:
            view = self.bank.whole()  # a fresh network
            self.params = view["params"]
        else:
            view = {"params": self.params}
            view["classes"] = [self._see(view, c, 1.0) for c in range(len(self.data.classes))]
        real = {k: torch.stack([g[k] for g in view["classes"]]) for k in view["params"]}
        images, labels = self._per_class()
        gradient, loss = self._image_gradient(images, labels, view["params"], real)
        check_finite(loss, gradient)
        self.images.grad = gradient.flatten(0, 1).to(self.images)
        self.optimiser.step()
        self.count += 1
        if not self.banked and self.count % self.outer:
            self._train_network()
        return StepReport(self.count, float(loss))

    def _train_network(self) -> None:
        """``inner`` epochs of plain SGD on the synthetic images as they are."""
        for _ in range(self.inner):
            order = torch.randperm(len(self.images), generator=self.generator)
            for picked in order.split(NET_BATCH):
                labels = self.classes[picked].to(self.accel.device)
                gradients = self._gradient(self.params, self.images[picked.to(self.images.device)], labels)
                self.params = {k: p - NET_LR * gradients[k] for k, p in self.params.items()}

    def _per_class(self) -> tuple[Tensor, Tensor]:
        """The synthetic images as (K, ipc, C, H, W) and their classes as (K, ipc)."""
        k = len(self.data.classes)
        return self.images.view(k, -1, *self.images.shape[1:]), self.classes.view(k, -1).to(self.accel.device)

    # ---- what a random network sees of the real images ----

    def _begin(self) -> dict[str, Any]:
        """A random network."""
        network = make_network(*self.key, seed=new_seed(self.generator)).to(self.accel.device)
        return {"params": {k: p.detach() for k, p in network.named_parameters()}}

    def _see(self, view: dict[str, Any], c: int, share: float) -> dict[str, Tensor]:
        """The gradient of the loss on a fresh real batch of class ``c``, by parameter."""
        picked = class_batch(self.data, c, math.ceil(self.own.batch_real * share), self.generator)
        real = to_space(self.data, picked, self.zca).to(self.accel.device)
        look = self._gradient if share == 1 else self._rough_gradient  # one call a class is not worth compiling
        gradient = look(view["params"], real, torch.full((len(real),), c, device=real.device))
        return {k: g.float() for k, g in gradient.items()}

    # ---- the result and the state ----

    def synthetic(self) -> SyntheticSet:
        """The images as they are now, with hard labels."""
        return finished(self.spec, self.data, self.images, self.classes, self.zca, self.count)

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "images": self.images,
            "optimiser": self.optimiser.state_dict(),
            "params": self.params,
            "bank": self.bank.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.images.copy_(state["images"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.params = state["params"]
        self.bank.load_state_dict(state["bank"])
        self.generator.set_state(state["generator"].cpu())
