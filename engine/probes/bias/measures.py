"""Shape bias, its uncertainty, and error consistency: numbers about decisions (torch-free).

Decisions, shape classes and texture classes are (N,) arrays of class numbers, one per stimulus.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from engine.intervals import LEVEL, wilson

FEW = 10  # usable decisions below which a shape bias says little
DRAWS = 2000


@dataclass(frozen=True)
class Bias:
    """Counts of decisions on stimuli whose shape and texture classes differ (Geirhos et al. 2019).

    ``shape``, ``texture``: decisions for either class; ``trials``: all stimuli.
    """

    shape: int
    texture: int
    trials: int

    @property
    def usable(self) -> int:
        """Decisions for either class."""
        return self.shape + self.texture

    @property
    def bias(self) -> float | None:
        """Shape decisions over shape and texture decisions, a fraction; None where there is neither."""
        return self.shape / self.usable if self.usable else None

    @property
    def coverage(self) -> float | None:
        """Share of the stimuli decided for either class: 2/K for somebody who guesses among K classes."""
        return self.usable / self.trials if self.trials else None

    def row(self) -> dict[str, Any]:
        """As columns of a table. ``low`` to ``high``: the 95 % Wilson interval of ``bias`` over stimuli;
        ``shape_accuracy``: share of all stimuli decided for the shape; ``few``: 1 where under ten were usable."""
        low, high = wilson(self.shape, self.usable)
        return {
            "bias": self.bias,
            "low": low,
            "high": high,
            "coverage": self.coverage,
            "shape_accuracy": self.shape / self.trials if self.trials else None,
            "shape": self.shape,
            "texture": self.texture,
            "other": self.trials - self.usable,
            "usable": self.usable,
            "trials": self.trials,
            "few": int(self.usable < FEW),
        }


def shape_bias(decisions: np.ndarray, shape: np.ndarray, texture: np.ndarray) -> Bias:
    """Shape bias as published: stimuli whose two classes are the same are left out, and so are other decisions."""
    conflict = shape != texture
    return Bias(
        int((decisions == shape)[conflict].sum()), int((decisions == texture)[conflict].sum()), int(conflict.sum())
    )


def over_students(shape: np.ndarray, texture: np.ndarray, seed: int = 0) -> np.ndarray:
    """Bootstrapped mean shape bias of students of one kind: (2000,) draws of both students and stimuli.

    ``shape``, ``texture``: (S, N) bool, whether student s decided stimulus n for either class. The same ``seed`` draws
    the same stimuli, so that differences between kinds on the same stimuli are paired.
    """
    students, stimuli = shape.shape
    weights = np.random.default_rng(seed).multinomial(stimuli, np.full(stimuli, 1 / stimuli), size=DRAWS)
    hits, misses = (weights @ part.T.astype(float) for part in (shape, texture))  # (draws, students)
    with np.errstate(invalid="ignore"):
        each = hits / (hits + misses)
    # Seeded by the counts too: kinds draw their students independently of each other, yet the same in every run
    drawn = np.random.default_rng([seed, int(shape.sum()), int(texture.sum())]).integers(
        students, size=(DRAWS, students)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a draw in which nobody decided for either
        return np.nanmean(np.take_along_axis(each, drawn, 1), axis=1)


def interval(draws: np.ndarray) -> tuple[float | None, float | None]:
    """The middle 95 % of bootstrapped values; (None, None) where nothing was defined."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_bias(shape: np.ndarray, texture: np.ndarray) -> float | None:
    """Mean of the shape biases of (S, N) students; those that decided for neither anywhere are left out."""
    hits, usable = shape.sum(1), (shape | texture).sum(1)
    return float((hits[usable > 0] / usable[usable > 0]).mean()) if (usable > 0).any() else None


@dataclass(frozen=True)
class Agreement:
    """Error consistency of two observers (Geirhos, Meding & Wichmann 2020, equations 1 to 3), all fractions.

    ``observed``: share of stimuli that both decided rightly or both wrongly; ``expected``: the same share of two
    independent observers of their accuracies; ``kappa``: (observed - expected) / (1 - expected), None where that is
    not defined because both are always right or always wrong.
    """

    observed: float
    expected: float
    kappa: float | None


def error_consistency(first: np.ndarray, second: np.ndarray) -> Agreement:
    """From (N,) bools, whether each observer was right."""
    a, b = float(first.mean()), float(second.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the undefined case
        kappa = float(cohen_kappa_score(first, second, labels=[False, True]))
    expected = a * b + (1 - a) * (1 - b)
    return Agreement(float((first == second).mean()), expected, kappa if math.isfinite(kappa) else None)


def kappa_interval(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float | None, float | None]:
    """The 95 % bootstrap interval of kappa over stimuli."""
    count = len(first)
    cells = [(first & second).mean(), (first & ~second).mean(), (~first & second).mean(), (~first & ~second).mean()]
    both, only_a, only_b, none = (
        np.random.default_rng(seed).multinomial(count, np.array(cells) / sum(cells), DRAWS).T / count
    )
    a, b = both + only_a, both + only_b
    expected = a * b + (1 - a) * (1 - b)
    with np.errstate(invalid="ignore", divide="ignore"):
        return interval((both + none - expected) / (1 - expected))
