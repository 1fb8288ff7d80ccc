"""The rounded normal distribution: thresholds against mpmath, and the distance from the exact distribution."""

import mpmath
import numpy as np
import pytest

from deqsmooth.statistics import rounded_normal

GRIDS = [(0.5, 255), (0.12, 255), (1.0, 256), (0.25, 8), (0.01, 7), (3.0, 600)]


def tail(magnitude, sigma, grid):
    """P(|J| >= magnitude), to 60 digits."""
    return mpmath.erfc((mpmath.mpf(magnitude) - 0.5) / (mpmath.mpf(sigma) * grid * mpmath.sqrt(2)))


@pytest.mark.parametrize(("sigma", "grid"), GRIDS)
def test_thresholds_are_nearest_integers(sigma, grid):
    found = rounded_normal.thresholds(sigma, grid)
    with mpmath.workdps(60):
        chosen = {1, 2, len(found), *range(1, len(found) + 1, 1 + len(found) // 40)}
        for magnitude in chosen & set(range(1, len(found) + 1)):
            exact = tail(magnitude, sigma, grid) * 2**63
            assert abs(int(found[magnitude - 1]) - exact) <= 0.5
        assert tail(len(found) + 1, sigma, grid) * 2**63 < 0.5
    assert (np.diff(found.astype(object)) <= 0).all() and found[-1] > 0


@pytest.mark.parametrize(("sigma", "grid"), [(0.5, 16), (0.01, 7), (0.25, 8)])
def test_total_variation_is_bounded_exactly(sigma, grid):
    """The sum of the absolute differences of all probabilities, halved."""
    found = [2**63, *map(int, rounded_normal.thresholds(sigma, grid)), 0]
    with mpmath.workdps(60):
        exact = [mpmath.mpf(1), *(tail(k, sigma, grid) for k in range(1, len(found) + 40))]
        drawn = [mpmath.mpf(one) / 2**63 for one in found] + [mpmath.mpf(0)] * (len(exact) - len(found))
        differences = [
            abs((a - b) - (c - d)) for a, b, c, d in zip(drawn[:-1], drawn[1:], exact[:-1], exact[1:], strict=True)
        ]
        distance = (sum(differences) + exact[-1]) / 2
        assert 0 < distance <= rounded_normal.total_variation(sigma, grid, 1) < 1e-17
    of_many = rounded_normal.total_variation(sigma, grid, 3072)
    assert of_many == pytest.approx(3072 * rounded_normal.total_variation(sigma, grid, 1), rel=1e-12)


def test_thresholds_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        rounded_normal.thresholds(0.5, 16)[0] = 0


def test_noise_far_below_the_grid_is_nothing():
    assert len(rounded_normal.thresholds(1e-6, 255)) == 0
