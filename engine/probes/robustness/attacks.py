"""Adversarial attacks in pixel space, with Captum.

Images are floating, in [0, 1]. A student's own preparation (normalising, whitening) is part of what is attacked, so
that a radius of ε/255 means the same change of pixels for every student, whatever space it was trained in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from captum.robust import FGSM, PGD, MinParamPerturbation
from torch import Tensor

from engine.accel import seeded
from engine.students.kept import Student

Attack = Callable[[Tensor, Tensor, float], Tensor]  # (pixels, labels, radius in 255ths) to pixels


def logits(student: Student, pixels: Tensor) -> Tensor:
    """(N, K) float64 logits of images in [0, 1]; differentiable. In double precision the loss of a confident answer
    still has a gradient, without which a student would look robust that is not."""
    return student.module(student.prepare(pixels)).double()


def _loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Captum's warning that it asks for gradients by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")
        yield


def fgsm(student: Student) -> Attack:
    """One step along the gradient's sign (Goodfellow, Shlens & Szegedy 2015)."""
    attack = FGSM(lambda pixels: logits(student, pixels), _loss, lower_bound=0.0, upper_bound=1.0)
    attack.zero_thresh = 0.0  # by default Captum leaves pixels with small gradients alone, so nothing sure is moved

    def perturb(pixels: Tensor, labels: Tensor, radius: float) -> Tensor:
        with _quiet():
            return attack.perturb(pixels.clone(), radius / 255, labels).detach()

    return perturb


def pgd(student: Student, steps: int, seed: int = 0, random_start: bool = True) -> Attack:
    """``steps`` steps of 2.5 · radius / steps, each projected back into the ball (Madry et al. 2018)."""
    attack = PGD(lambda pixels: logits(student, pixels), _loss, lower_bound=0.0, upper_bound=1.0)
    attack.fgsm.zero_thresh = 0.0

    def perturb(pixels: Tensor, labels: Tensor, radius: float) -> Tensor:
        step = 2.5 * radius / steps / 255 if steps > 1 else radius / 255
        with seeded(seed), _quiet():
            moved = attack.perturb(pixels, radius / 255, step, steps, labels, random_start=random_start)
        return moved.detach()

    return perturb


def smallest_radius(
    student: Student, pixels: Tensor, label: int, attack: Attack, reach: int, grain: int = 4
) -> float | None:
    """The smallest radius, in 255ths, at which ``attack`` makes the student answer something else than ``label`` for
    one image (1, C, H, W): found by bisection on multiples of 1/``grain`` up to ``reach``, which takes for granted that
    a larger radius never fails where a smaller one succeeded. 0 where the answer is wrong to begin with, None where
    ``reach`` is not enough."""
    target = torch.tensor([label], device=pixels.device)

    def perturbed(image: Tensor, level: int) -> Tensor:
        return attack(image, target, level / grain) if level else image

    def asked(image: Tensor) -> Tensor:
        with torch.no_grad():
            return logits(student, image)

    search = MinParamPerturbation(asked, perturbed, "level", 0, reach * grain + 1, 1, mode="binary")
    level = search.evaluate(pixels, target=target)[1]
    return None if level is None else level / grain
