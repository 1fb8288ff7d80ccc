"""Radii from bounds on two sides: against mpmath, and no certificate above the truth by enumeration."""

import itertools

import mpmath
import numpy as np
import pytest
from scipy import stats

from deqsmooth.certificates import bound
from deqsmooth.statistics import bounds, outward, robustness


def exact(p_lower, sigma, p_upper):
    """Sigma / 2 times the difference of the quantiles, to 60 digits."""
    quantiles = [mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1) for p in (p_lower, p_upper)]
    return mpmath.mpf(sigma) / 2 * (quantiles[0] - quantiles[1])


def test_two_sided_radii_are_outward():
    rng = np.random.default_rng(0)
    with mpmath.workdps(60):
        for _ in range(200):
            low, high = np.sort(rng.beta(0.7, 0.7, 2))
            found = robustness.radius(high, 0.3, low)
            assert 0 <= found <= exact(high, 0.3, low)
            assert found == pytest.approx(float(exact(high, 0.3, low)), rel=1e-9, abs=1e-13)
    assert robustness.radius(0.3, 0.5, 0.3) == robustness.radius(0.2, 0.5, 0.3) == 0
    assert robustness.radius(0.9, 0.5, 1 - 0.9) == pytest.approx(robustness.radius(0.9, 0.5), rel=1e-12)


def test_quantiles_below_one_half_are_safe():
    for probability in (1e-12, 0.001, 0.2, 0.499999, 0.5):
        for approximate in (stats.norm.ppf(probability), stats.norm.ppf(probability) + 1e-9, 0.3):
            lower = outward.normal_lower(float(approximate), probability)
            with mpmath.workdps(60):
                assert mpmath.ncdf(lower) <= mpmath.mpf(probability)


def test_votes_for_no_class_are_any_ones():
    assert bounds.others_upper([50, 30, 10, 10], 0, 0.01) == bounds.others_upper([50, 40, 10, 0], 0, 0.01)
    assert bounds.others_upper([50, 30, 20, 0], 1, 0.01) == bounds.clopper_pearson_upper(50, 100, 0.005)


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_two_sided_radius_covers_by_enumeration(num_classes):
    """Every outcome of a few samples, at probabilities on a grid: false with probability at most alpha."""
    alpha, num, steps = 0.1, 12, 9
    outcomes = [c for c in itertools.product(range(num + 1), repeat=num_classes) if sum(c) == num]
    certified = {}
    for counts in outcomes:
        lower, upper = bound.probabilities(
            counts[0], num, 0.6 * alpha, upper=bounds.others_upper([*counts, 0], 0, 0.4 * alpha)
        )
        certified[counts] = bound.is_certified(lower, upper) and robustness.radius(lower, 1.0, upper)
    worst = 0.0
    for parts in itertools.product(range(1, steps), repeat=num_classes):
        if sum(parts) == steps:
            p = np.array(parts) / steps
            true = robustness.radius(p[0], 1.0, max(p[1:])) if p[0] > max(p[1:]) else -1.0
            chances = stats.multinomial.pmf(outcomes, num, p)
            false = [certified[c] is not False and certified[c] > true for c in outcomes]
            worst = max(worst, float(chances @ np.array(false)))
    assert 0 < worst <= alpha
