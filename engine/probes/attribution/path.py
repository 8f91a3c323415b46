"""Integrated gradients of one image with as many steps as it takes (Sundararajan et al., ICML 2017, equation 1).

Captum's rule takes a number of points that is fixed beforehand, and more of them means all of them anew. Here every
point gives the logit beside its gradient. So it is known of each step by how much its shares miss the change of the
logit along it; the steps that miss most are halved, and no point is ever taken twice.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.probes.attribution.methods import TOGETHER, Pixels

ENOUGH = 0.01  # completeness gap of a good approximation
FINER = 4  # times as many steps are taken at most: somebody waits


def along_path(model: Pixels, pixels: Tensor, base: Tensor, target: int, steps: int) -> tuple[Tensor, int]:
    """Integrated gradients (1, C, H, W) of logit ``target`` from ``base`` to ``pixels``, and the steps it took.

    Trapezoidal rule on ``steps`` equal steps, of which some are halved until the sum differs by at most ``ENOUGH`` of
    the change of the logit, or there are ``FINER`` times as many.
    """

    def look(places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Logits (N,) and gradients (N, C, H, W) at these shares of the path."""
        shares = torch.from_numpy(places).to(pixels).view(-1, 1, 1, 1)
        logits, gradients = [], []
        for part in (base + shares * (pixels - base)).split(TOGETHER):
            part.requires_grad_()
            out = model(part)[:, target]
            gradients.append(torch.autograd.grad(out.sum(), part)[0])
            logits.append(out.detach())
        return torch.cat(logits).cpu().double(), torch.cat(gradients).cpu().double()

    rise = (pixels - base).cpu().double()
    places = np.linspace(0.0, 1.0, steps + 1)
    logits, gradients = look(places)
    while True:
        widths = torch.from_numpy(np.diff(places))
        means = (gradients[1:] + gradients[:-1]) / 2
        missed = widths * (means * rise).sum((1, 2, 3)) - logits.diff()
        change, took = float(logits[-1] - logits[0]), len(widths)
        if abs(float(missed.sum())) <= ENOUGH * abs(change) or took >= FINER * steps:
            return (torch.einsum("n,nchw->chw", widths, means) * rise).to(pixels), took
        worst = missed.abs().argsort(descending=True)[: min(max(1, took // 4), FINER * steps - took)].numpy()
        new = (places[worst] + places[worst + 1]) / 2
        more_logits, more_gradients = look(new)
        places = np.concatenate([places, new])
        order = np.argsort(places)
        places = places[order]
        logits, gradients = torch.cat([logits, more_logits])[order], torch.cat([gradients, more_gradients])[order]
