"""Exact comparisons of counts, beside SciPy's own tests, and the noise between days, beside draws with a known one."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from analysis.counts import MOST_NOISE, compared, noise_between, typical_noise


@pytest.mark.parametrize(
    ("count", "exposure", "other", "other_exposure"),
    [
        pytest.param(150, 600, 50, 500, id="more"),
        pytest.param(5, 100, 40, 100, id="fewer"),
        pytest.param(12, 300, 12, 300, id="as many"),
        pytest.param(30, 100, 0, 100, id="none before"),
        pytest.param(0, 100, 30, 200, id="none now"),
    ],
)
def test_a_comparison_is_the_binomial_test_of_the_share_and_its_clopper_pearson_interval(
    count: int, exposure: float, other: int, other_exposure: float
) -> None:
    expected = exposure / (exposure + other_exposure)
    total = count + other
    tails = binom.cdf(count, total, expected), binom.sf(count - 1, total, expected)
    share = binomtest(count, total, expected).proportion_ci(0.95, "exact")

    found = compared(count, exposure, other, other_exposure)

    assert found.p_value == pytest.approx(min(1, 2 * min(tails)))
    assert found.low == pytest.approx(_ratio(share.low, expected))
    assert found.high == pytest.approx(_ratio(share.high, expected))
    assert found.ratio == pytest.approx(_ratio(count / total, expected))


def test_counts_that_come_in_bursts_say_as_much_as_that_many_fewer_of_them() -> None:
    assert compared(120, 1, 60, 1, variance_factor=6).p_value == pytest.approx(compared(20, 1, 10, 1).p_value)


def test_nothing_beside_nothing_is_no_difference() -> None:
    assert compared(0, 1, 0, 1).p_value == 1


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_the_noise_between_days_is_found_again(noise: float) -> None:
    draws = np.random.default_rng(7)
    means = draws.gamma(1 / noise, 200 * noise, (400, 2)) if noise else np.full((400, 2), 200.0)
    counts = draws.poisson(means)
    one, other = counts[:, 0], counts[:, 1]

    by_moments = noise_between([(int(a), int(b)) for a, b in counts], burst_size=1)
    by_median = typical_noise((one - other) ** 2 / (one + other), (one + other) / 2, np.ones(400))

    assert by_moments == pytest.approx(noise, rel=0.3, abs=0.005)
    assert by_median == pytest.approx(noise, rel=0.3, abs=0.005)


def test_one_incident_is_no_noise_of_all_days() -> None:
    usual = [(20, 22), (25, 19), (21, 21), (18, 24), (22, 23), (20, 20)]

    assert noise_between([*usual, (5_000, 21)], burst_size=1) < 1


def test_days_that_are_empty_or_full_without_a_pattern_have_the_greatest_noise() -> None:
    assert noise_between([(0, 80), (75, 0), (0, 0), (82, 0)], burst_size=1) == MOST_NOISE


def test_days_without_counts_have_no_noise() -> None:
    assert noise_between([(0, 0), (0, 0), (0, 0)], burst_size=1) == 0


def _ratio(share: float, expected: float) -> float:
    odds = share / (1 - share) if share < 1 else math.inf
    return odds * (1 - expected) / expected
