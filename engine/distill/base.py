"""What every distillation method offers, and what it may ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill.images import finished, initial_images, whitening
from engine.spec import RunSpec
from engine.synthetic import ZCA, SyntheticSet

LEAST = 0.1  # of the first step size, at the end of a cosine


@dataclass(frozen=True)
class StepReport:
    """What one step did: its number (from 1), the loss, and further named scalars.

    A step that only prepared others has no loss and the number of the last one that had (0 at first). ``note``: what
    is being prepared, for people.
    """

    step: int
    loss: float | None
    extras: dict[str, float] = field(default_factory=dict)
    note: str = ""


def cosine(progress: float) -> float:
    """The step size at a share ``progress`` of the budget, as a fraction of the first: from 1 to ``LEAST`` of it."""
    return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * progress)) / 2


class Distiller(Protocol):
    """A distillation method. It knows nothing of stores, pages or progress bars.

    ``setup`` once, then ``step`` as often as wanted; ``synthetic`` at any time. A distiller that is set up with the
    same spec and data and given ``load_state_dict(state_dict())`` goes on exactly as the first would have; the state
    holds tensors, numbers, strings, lists and dictionaries only.

    ``progress``, the share of the run's budget that is used, in [0, 1], is set before every step by whoever takes the
    steps, for methods with a schedule. With a budget of steps it is the same in a resumed run.

    ``images`` and ``zca`` are what the probe of a single step looks at: the images (N, C, H, W) in model space, and the
    whitening of that space where there is one.
    """

    progress: float
    images: Tensor
    zca: ZCA | None

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        """Initial images, networks, optimisers. Raises ``Refused`` when the spec does not fit the data."""
        ...

    def step(self) -> StepReport:
        """One update of the synthetic images, or about a second's work towards the first.

        Raises ``Diverged`` when the loss is not finite.
        """
        ...

    def synthetic(self) -> SyntheticSet:
        """The images as they are now, on the CPU, not sharing memory with the distiller."""
        ...

    def conclude(self) -> str:
        """After the last step: go back to better images if it kept some, and say so in a sentence, else ""."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs besides its spec and data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another's ``state_dict`` gave, with its tensors on whatever device."""
        ...


class ImageDistiller:
    """What methods that move images share: how they begin, what they hand over, what they need to go on.

    A subclass makes its ``optimiser`` at the end of ``setup``, has ``step``, and adds what else it keeps to the state.
    """

    own: Any  # the method's parameters, ``spec.parameters``
    optimiser: torch.optim.Optimizer
    progress = 0.0

    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        """Images (K·ipc, C, H, W) float32 in model space on the device, class after class, with gradients; their
        ``classes`` (K·ipc,) on the CPU; ``zca`` where the run whitens; a ``generator`` for all that is random."""
        self.spec, self.own, self.data, self.accel = spec, spec.parameters, data, accel
        self.generator = torch.Generator().manual_seed(spec.seed)
        self.zca: ZCA | None = whitening(data, spec.method) if spec.zca else None
        images, self.classes = initial_images(spec, data, self.zca)
        self.images = images.to(accel.device).requires_grad_()
        self.count = 0  # updates of the images

    def start_from(self, images: Tensor, labels: Tensor | None, step_sizes: Tensor | None) -> None:
        """After ``setup``: begin with these images (K·ipc, C, H, W), in model space, class after class.

        ``labels``: learned ones (K·ipc, K), and ``step_sizes`` (T,), for methods that learn such; others leave them.
        """
        with torch.no_grad():
            self.images.copy_(images)

    def synthetic(self) -> SyntheticSet:
        """The images as they are now, with hard labels."""
        return finished(self.spec, self.data, self.images, self.classes, self.zca, self.count)

    def conclude(self) -> str:
        """The last images are the best that a method knows of, unless it looks."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """What another one, set up alike, needs to go on exactly as this one would."""
        return {
            "count": self.count,
            "images": self.images.detach(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self.count = state["count"]
        with torch.no_grad():
            self.images.copy_(state["images"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())


class Diverged(RuntimeError):
    """The loss or the images stopped being finite, or exploded; the worker goes back to the last good state."""


def on_device(state: Any, device: torch.device) -> Any:
    """``state`` with all its tensors on ``device``: a checkpoint is read to the CPU, wherever it was written."""
    return torch.utils._pytree.tree_map(lambda t: t.to(device) if isinstance(t, Tensor) else t, state)


def check_finite(loss: Tensor, gradient: Tensor) -> None:
    """Raise ``Diverged`` when a step's loss or gradient holds NaN or infinity, before it reaches the images."""
    if not bool(loss.isfinite()) or not bool(gradient.isfinite().all()):
        raise Diverged("The loss is no longer a finite number.")
