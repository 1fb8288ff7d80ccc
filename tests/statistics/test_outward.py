"""Outward rounding: no bound and no radius is above the exact number, by rationals and by mpmath."""

import fractions
import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from deqsmooth.statistics import bounds, outward, robustness

DIGITS = 60


def cases(num, largest):
    """(count, trials, alpha), with sizes and alphas spread evenly on a logarithmic scale."""
    rng = np.random.default_rng(0)
    for _ in range(num):
        trials = int(largest ** rng.uniform(0.1, 1))
        count = max(1, int(rng.binomial(trials, rng.beta(3, 0.5))))
        yield count, trials, float(10 ** rng.uniform(-7, -0.5))


def tail(count, trials, p):
    """P(Binomial(trials, p) >= count), term by term."""
    p = mpmath.mpf(p)
    term = mpmath.binomial(trials, count) * p**count * (1 - p) ** (trials - count)
    total, ratio, k = term, p / (1 - p), count
    while k < trials and term > total * mpmath.mpf(10) ** -DIGITS:
        term *= ratio * (trials - k) / (k + 1)
        total, k = total + term, k + 1
    return total


def check(num, largest):
    """Checks bounds and radii of random counts; returns how often scipy alone would have been too large."""
    too_large = 0
    with mpmath.workdps(DIGITS):
        for count, trials, alpha in cases(num, largest):
            near = float(stats.beta.ppf(alpha, count, trials - count + 1))
            lower = bounds.clopper_pearson_lower(count, trials, alpha)
            assert tail(count, trials, lower) <= mpmath.mpf(alpha)
            assert near * (1 - 1e-10) <= lower <= near * (1 + 1e-13)
            too_large += tail(count, trials, near) > mpmath.mpf(alpha)
            if lower > 0.5:
                radius = robustness.radius(lower, 0.3)
                assert mpmath.mpf(0.3) * quantile(lower) >= mpmath.mpf(radius) >= 0
                assert radius == pytest.approx(0.3 * stats.norm.ppf(lower), rel=1e-12, abs=1e-14)
    return too_large


def quantile(p):
    """Quantile of the standard normal distribution."""
    return mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1)


def test_no_bound_exceeds_mpmath():
    # The test could fail: scipy rounds to nearest at best.
    assert check(200, 500) > 20


@pytest.mark.slow
def test_no_bound_exceeds_mpmath_often():
    assert check(10_000, 100_000) > 1000


@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05, 0.5])
def test_bounds_hold_in_rational_numbers(alpha):
    for trials in (1, 2, 7, 20, 33):
        for count in range(1, trials + 1):
            p = fractions.Fraction(bounds.clopper_pearson_lower(count, trials, alpha))
            exact = sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(count, trials + 1))
            assert exact <= fractions.Fraction(alpha)
            logarithm = outward.log_binomial_tail(count, trials, float(p))
            assert 0 <= logarithm - math.log(exact) < 1e-11
            q = fractions.Fraction(bounds.clopper_pearson_upper(trials - count, trials, alpha))
            assert q >= 1 - p


def test_any_approximation_becomes_safe():
    # Values far above and far below; those below are kept.
    for near in (0.2, 0.9, 0.95, 0.999999):
        lower = outward.binomial_lower(near, 950, 1000, 0.001)
        assert lower <= near and stats.binom.sf(949, 1000, lower) <= 0.001
    assert outward.normal_lower(1.9, 0.975) == 1.9
    assert stats.norm.cdf(outward.normal_lower(3.0, 0.975)) <= 0.975
    assert robustness.radius(0.5 + 2**-53, 0.5) == robustness.radius(0.5, 0.5) == 0
    assert robustness.radius(1.0, 0.5) == math.inf


def test_differences_of_bounds_are_outward():
    rng = np.random.default_rng(1)
    for _ in range(100):
        count, lost = int(rng.integers(600, 1001)), int(rng.integers(0, 30))
        pairs = bounds.Pairs(200, lost, 0.0001)
        found = bounds.paired_lower(count, 1000, pairs, 0.0009)
        lower = fractions.Fraction(bounds.clopper_pearson_lower(count, 1000, 0.0009))
        assert fractions.Fraction(found) <= lower - fractions.Fraction(
            bounds.clopper_pearson_upper(lost, 200, 0.0001)
        )


@pytest.mark.parametrize(
    ("count", "trials", "alpha"), [(10, 10, 1 - 2.0**-53), (10**7, 10**7, 1 - 1e-10), (1, 2, 5e-310), (1, 1, 0.5)]
)
def test_extreme_counts_have_bounds(count, trials, alpha):
    """Where the approximation is 1, or so small that its steps underflow."""
    lower = bounds.clopper_pearson_lower(count, trials, alpha)
    assert 0 <= lower < 1
    assert lower == 0 or outward.log_binomial_tail(count, trials, lower) <= math.log(alpha) * (1 - 1e-12) + 1e-15
