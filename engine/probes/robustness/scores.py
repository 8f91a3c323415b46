"""Scores that foretell how well what a network has learned serves another task, without training anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def leep(probabilities: Array, labels: Labels) -> float:
    """LEEP (Nguyen, Hassner, Seeger & Archambeau, ICML 2020, eq. 2), at most 0; higher is better.

    ``probabilities`` (n, Z): what the source network says of each target image; ``labels`` (n,) in 0..K-1. The mean
    log-likelihood of the labels under the classifier that draws z from the network and y from the empirical P(y | z).
    """
    joint = _one_hot(labels).T @ probabilities / len(labels)  # P(y, z), eq. 1
    given = joint / np.maximum(joint.sum(0, keepdims=True), 1e-300)  # P(y | z)
    return float(np.log((probabilities @ given.T)[np.arange(len(labels)), labels]).mean())


def nce(guesses: Labels, labels: Labels) -> float:
    """Negative conditional entropy -H(Y | Z) (Tran, Nguyen & Hassner, ICCV 2019, eq. 4), at most 0; higher is better.

    ``guesses`` (n,): the source class that the network gives each target image; ``labels`` (n,) their target classes.
    """
    joint = _one_hot(labels).T @ _one_hot(guesses) / len(labels)
    z = joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log((joint / np.where(z > 0, z, 1))[some])).sum())


def h_score(features: Array, labels: Labels, shrink: bool = False) -> float:
    """H-score tr(cov(f)⁻¹ cov(E[f | y])) (Bao et al., ICIP 2019, eq. 3), between 0 and K - 1; higher is better.

    ``features`` (n, D), ``labels`` (n,). The inverse is the pseudo-inverse. With as many dimensions as images and
    more, the score is K - 1 whatever the features are; ``shrink`` draws the covariance towards a multiple of the
    identity, cov → (1 - a) cov + a σ² I with Ledoit & Wolf's a, as in Ibrahim, Ponomareva & Mazumder 2022, eq. 8.
    """
    f = features - features.mean(0)
    n, dimensions = f.shape
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    keep = s > s.max(initial=0) * max(f.shape) * np.finfo(np.float64).eps
    u, variance = u[:, keep], s[keep] ** 2 / n
    classes = _one_hot(labels)
    classes = classes[:, classes.sum(0) > 0]
    # In the basis of the principal directions, cov(E[f | y]) has the diagonal variance · n Σ_y P(y) mean_y(u)².
    means = classes.T @ u / classes.sum(0)[:, None]
    between = (classes.sum(0)[:, None] * means**2).sum(0)
    if not shrink:
        return float(between.sum())
    a = float(ledoit_wolf_shrinkage(f, assume_centered=True))
    scale = variance.sum() / dimensions
    return float(((1 - a) * variance * between / ((1 - a) * variance + a * scale)).sum())


def _one_hot(labels: Labels) -> Array:
    """(n,) whole numbers to (n, largest + 1)."""
    return np.eye(int(labels.max()) + 1)[labels]
