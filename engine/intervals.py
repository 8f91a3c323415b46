"""How sure a share is (torch-free)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist

LEVEL = 0.95


def wilson(hits: int, trials: int) -> tuple[float | None, float | None]:
    """The 95 % score interval of a share (Wilson 1927), as fractions in [0, 1]; (None, None) without trials."""
    if not trials:
        return None, None
    z, share = NormalDist().inv_cdf((1 + LEVEL) / 2), hits / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # Rounding must not leave the share outside its own interval.
    return min(share, max(0.0, (centre - half) / scale)), max(share, min(1.0, (centre + half) / scale))


def student_t(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of one or more numbers, and the 95 % t interval of the mean they were drawn with (Student 1908); of a single
    one (mean, None, None)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
