"""Bands: how often a distribution leaves them, against that of Kolmogorov and by simulation."""

import numpy as np
import pytest
from scipy import stats

from deqsmooth.statistics import bands


@pytest.mark.parametrize("num", [5, 60, 500])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_band_covers_at_every_value_at_once(num, alpha):
    """Against the distribution of the largest deviation, which all continuous ones share (Kolmogorov)."""
    missed = stats.kstwo.sf(bands.half_width(num, alpha), num)
    assert 0.3 * alpha < missed <= alpha


def test_band_of_discrete_shares_covers():
    """With ties, as of images without a certificate, the deviation is smaller."""
    rng, width = np.random.default_rng(0), bands.half_width(40, 0.1)
    truth = np.array([0.5, 0.7, 0.9, 1.0])
    draws = rng.choice(4, (4000, 40), p=np.diff([0, *truth]))
    found = np.stack([(draws <= value).mean(1) for value in range(4)], 1)
    missed = (np.abs(found - truth) > width).any(1).mean()
    assert 0 < missed <= 0.1
