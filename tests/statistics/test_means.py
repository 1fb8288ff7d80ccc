"""Intervals of a mean: their coverage, by enumeration and on simulated draws."""

import itertools

import numpy as np
import pytest

from deqsmooth.statistics import means


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_coverage_of_coins_by_enumeration(alpha):
    """Every sequence of eight tosses, weighted by its probability; the interval is of twice the toss."""
    num = 8
    ends = {
        toss: means.interval(2.0 * np.array(toss), 2.0, alpha) for toss in itertools.product([0, 1], repeat=num)
    }
    for p in np.linspace(0.0, 1.0, 41):
        missed = sum(
            p ** sum(toss) * (1 - p) ** (num - sum(toss))
            for toss, (lower, upper) in ends.items()
            if not lower <= 2 * p <= upper
        )
        assert missed <= alpha


def test_coverage_of_radii_by_simulation():
    rng = np.random.default_rng(1)
    alpha, trials, cap = 0.1, 800, 1.5
    truth = 0.7 * cap * 0.4
    missed = 0
    for _ in range(trials):
        radii = cap * rng.beta(2, 3, 60) * (rng.random(60) < 0.7)
        lower, upper = means.interval(radii, cap, alpha)
        missed += not lower <= truth <= upper
    # Four standard errors above alpha.
    assert missed / trials <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / trials)


def test_interval_is_narrow_where_draws_agree():
    """Far below Hoeffding's inequality, which does not know the spread, and not below the normal quantile."""
    draws = np.random.default_rng(2).normal(0.5, 0.05, 500).clip(0, 1)
    lower, upper = means.interval(draws, 1.0, 0.05)
    assert lower < draws.mean() < upper
    assert 1.96 * draws.std() / np.sqrt(500) < (upper - lower) / 2 < 0.25 * np.sqrt(np.log(40) / 1000)


def test_extremes_stay_within_the_range():
    assert means.interval([0.0] * 50, 2.0, 0.05)[0] == 0.0
    assert means.interval([2.0] * 50, 2.0, 0.05)[1] == 2.0
    lower, upper = means.interval([1.0], 2.0, 0.05)
    assert 0.0 <= lower <= 1.0 <= upper <= 2.0
    assert means.interval([0.0, 0.0], 0.0, 0.05) == (0.0, 0.0)


@pytest.mark.parametrize("draws", [[], [-0.1], [1.1], [0.5, float("nan")]])
def test_bad_draws_are_refused(draws):
    with pytest.raises(ValueError, match=r"at least one value|must be from 0 to 1"):
        means.interval(draws, 1.0, 0.05)
