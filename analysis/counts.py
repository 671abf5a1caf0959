"""Exact comparisons of counts that vary more than those of independent events. Knows no code, route or customer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv
from scipy.stats import chi2

CONFIDENCE: Final = 0.95
MOST_NOISE: Final = 4.0
MOST_TIMES: Final = 3
_MEDIAN_CHI2: Final = float(chi2.median(1))


@dataclass(frozen=True)
class Comparison:
    """A count against another, each by its exposure: two-sided p-value, ratio of the rates and its interval."""

    p_value: float
    ratio: float
    low: float
    high: float


def compared(count: int, exposure: float, other: int, other_exposure: float, variance_factor: float = 1) -> Comparison:
    """Is the rate `count / exposure` that of `other / other_exposure`?

    Exact binomial test of the share that `count` has in both, given their sum (twice the smaller tail), and the
    Clopper-Pearson interval of that share as an interval of the ratio. Both counts are divided by `variance_factor`
    first, their variance / mean; the beta form of the binomial tails takes them as they come out.
    """
    part, rest = count / variance_factor, other / variance_factor
    expected = exposure / (exposure + other_exposure)
    at_least = betainc(part, rest + 1, expected) if part else 1.0
    at_most = betainc(rest, part + 1, 1 - expected) if rest else 1.0
    low = betaincinv(part, rest + 1, (1 - CONFIDENCE) / 2) if part else 0.0
    high = betaincinv(part + 1, rest, (1 + CONFIDENCE) / 2) if rest else 1.0
    ratio, lowest, highest = (
        _odds(share, whole - share) * other_exposure / exposure
        for share, whole in ((count, count + other), (low, 1.0), (high, 1.0))
    )
    return Comparison(float(min(1.0, 2 * min(at_least, at_most))), ratio, float(lowest), float(highest))


def noise_between(pairs: Sequence[tuple[int, int]], burst_size: float) -> float:
    """Squared coefficient of variation between the days of `pairs` of counts, beyond what bursts explain.

    By moments, for a variance of burst_size * mean + noise * mean squared; at most MOST_NOISE. A day that is more than
    MOST_TIMES the median of those with any counts as so many: one incident does not make a habit.
    """
    counts = np.asarray(pairs, dtype=float)
    counts = np.minimum(counts, MOST_TIMES * np.median(counts[counts > 0])) if counts.any() else counts
    one, other = counts[:, 0], counts[:, 1]
    excess = float(((one - other) ** 2 - burst_size * (one + other)).sum())
    product = float(2 * (one * other).sum())
    if excess <= 0:
        return 0.0
    return min(excess / product, MOST_NOISE) if product else MOST_NOISE


def typical_noise(differences: ArrayLike, weights: ArrayLike, burst_sizes: ArrayLike) -> float:
    """The noise (see noise_between) under which half of many counts differ as much as they do.

    `differences` are those of two days, squared and divided by the sum of the two counts. The variance of a count is
    burst_size * mean + noise * mean * its `weights`.
    """
    squared, weighted, bursts = (np.asarray(values, dtype=float) for values in (differences, weights, burst_sizes))

    def excess(noise: float) -> float:
        return float(np.median(squared / (bursts + noise * weighted))) - _MEDIAN_CHI2

    if excess(0) <= 0:
        return 0.0
    return MOST_NOISE if excess(MOST_NOISE) >= 0 else float(brentq(excess, 0, MOST_NOISE))


def _odds(part: float, other: float) -> float:
    return part / other if other else float("inf")
