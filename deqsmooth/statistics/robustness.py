"""The certified radius that follows from bounds on the probabilities of classes (Cohen et al. 2019, theorem 1).

Radii are rounded outward: none is above the exact number that it stands for; see `deqsmooth.statistics.outward`.
"""

from __future__ import annotations

import math

import scipy

from deqsmooth.statistics import outward


def radius(p_lower: float, sigma: float, p_upper: float | None = None) -> float:
    """Certified L2 radius, in the unit of sigma (Cohen et al. 2019, theorem 1).

    It is sigma / 2 (Phi^-1(p_lower) - Phi^-1(p_upper)), and sigma Phi^-1(p_lower) where nothing is known of the
    other classes, so that p_upper is 1 - p_lower.

    Args:
      p_lower: lower bound on the probability of the class under noise.
      sigma: standard deviation of the noise.
      p_upper: upper bound on that of every other class; at least p_lower gives 0.

    Example:
      >>> round(radius(0.99, 0.5), 3), radius(0.5, 0.5), round(radius(0.4, 0.5, 0.3), 3)
      (1.163, 0.0, 0.068)
    """
    if p_upper is None:
        if p_lower <= 0.5:
            return 0.0
        quantile = _quantile(p_lower)
        return math.nextafter(sigma * quantile, 0.0) if p_lower < 1 else quantile
    if p_lower <= p_upper:
        return 0.0
    difference = math.nextafter(_quantile(p_lower) + _quantile(math.nextafter(1.0 - p_upper, 0.0)), -math.inf)
    return max(math.nextafter(sigma * difference / 2, -math.inf), 0.0)


def _quantile(probability: float) -> float:
    """Lower bound on a quantile of the standard normal distribution."""
    approximate = float(scipy.special.ndtri(probability))
    return outward.normal_lower(approximate, probability) if 0 < probability < 1 else approximate


def rest(p_lower: float, upper: float) -> float:
    """Upper bound on the probability of every other class: what the first class leaves, or a bound of their own.

    Args:
      p_lower: lower bound on the probability of the class.
      upper: upper bound that holds at the same time; see `deqsmooth.statistics.bounds.others_upper`.
    """
    return math.nextafter(min(upper, 1.0 - p_lower), 1.0)


def probability(radius: float, sigma: float) -> float:
    """Probability of a class that gives a radius: Phi(radius / sigma).

    Args:
      radius: L2 radius.
      sigma: standard deviation of the noise, in the same unit.

    Example:
      >>> round(probability(1.163, 0.5), 3)
      0.99
    """
    return float(scipy.stats.norm.cdf(radius / sigma))
