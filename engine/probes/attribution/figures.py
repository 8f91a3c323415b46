"""Numbers about maps, and their intervals."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from scipy.stats import rankdata

TOP = 0.1  # share of the pixels that counts as the most important ones


def limit_of(maps: list[np.ndarray], share: float = 0.98) -> float:
    """The absolute value below which ``share`` of all absolute attribution of the maps lies: where colours end."""
    values = np.sort(np.abs(np.concatenate([m.ravel() for m in maps])))
    total = values.sum()
    if total <= 0:
        return 1.0
    return float(values[np.searchsorted(values.cumsum(), share * total).clip(0, len(values) - 1)])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two maps; 0 where one of them is constant."""
    x, y = rankdata(a), rankdata(b)
    return _correlation(x, y)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.ravel() - x.mean(), y.ravel() - y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm > 0 else 0.0


def overlap(a: np.ndarray, b: np.ndarray, share: float = TOP) -> float:
    """Of the ``share`` of pixels with the largest absolute values in one map, the share that is also in the other's."""
    count = max(1, round(share * a.size))
    top = [set(np.argsort(-np.abs(m).ravel(), kind="stable")[:count].tolist()) for m in (a, b)]
    return len(top[0] & top[1]) / count


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine similarity of two maps or attributions; 0 where one of them is zero."""
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a.ravel() @ b.ravel()) / norm if norm > 0 else 0.0


def ssim(a: np.ndarray, b: np.ndarray, window: int = 7) -> float:
    """Structural similarity of two maps, each divided by its largest absolute value (Wang et al. 2004, eq. 13).

    Means, variances and the covariance are taken in windows of 7×7 pixels; the values range from -1 to 1, so that the
    constants are (0.01 · 2)² and (0.03 · 2)².
    """
    a, b = (m / (np.abs(m).max() or 1.0) for m in (a, b))

    def local(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, window)

    ma, mb = local(a), local(b)
    va, vb, vab = local(a * a) - ma * ma, local(b * b) - mb * mb, local(a * b) - ma * mb
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    return float((((2 * ma * mb + c1) * (2 * vab + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of each map's absolute attribution (N, H, W) that lies within its mask (N, H, W) bool: (N,)."""
    volume = np.abs(maps)
    total = volume.sum((1, 2))
    return np.where(total > 0, (volume * masks).sum((1, 2)) / np.where(total > 0, total, 1), np.nan)


def area_under(shares: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Area under curves ``values`` (..., P) over ``shares`` (P,) in [0, 1], by the trapezoidal rule."""
    return np.trapezoid(values, shares, axis=-1)


# ---- intervals -------------------------------------------------------------------------------------------------------


def bootstrap_interval(values: np.ndarray, seed: int = 0, draws: int = 1000) -> tuple[float, float, float]:
    """Mean of ``values`` (NaN left out) with its 95 % percentile bootstrap interval; three NaN when there are none."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan, math.nan
    chosen = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[chosen].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def plain(value: float | None, digits: int = 4) -> float | None:
    """A number with so many significant digits for JSON; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def interval_columns(name: str, values: np.ndarray, seed: int = 0) -> dict[str, float | None]:
    """``name``, ``name_low``, ``name_high``: the mean of values and its interval, as columns of a table."""
    mean, low, high = bootstrap_interval(values, seed)
    return {name: plain(mean), f"{name}_low": plain(low), f"{name}_high": plain(high)}
