"""Outward rounding: bounds in floating point that lie on the safe side of the exact real number.

An approximate value is lowered until a check holds that does not depend on how it was found. Each check is an
inequality with a bound on the error of its own floating-point evaluation. It is assumed that additions,
multiplications, divisions and square roots are rounded to nearest (IEEE 754), and that `log` and `erfc` of the C
library are wrong by at most 4 units in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_UNIT = 2.0**-53
# Below, log(n!) is that of the integer. Above, four terms of Stirling's series leave less than 1 / (1188 n^9).
_LEAST_STIRLING = 16
_STIRLING_ERROR = 1000


def binomial_lower(approximate: float, count: int, trials: int, alpha: float) -> float:
    """The largest p found, from an approximation downward, for which P(Binomial(trials, p) >= count) <= alpha.

    Args:
      approximate: the solution of P = alpha, with any error.
      count: from 1 to `trials`.
      trials: independent trials.
      alpha: in (0, 1).

    Example:
      >>> lower = binomial_lower(0.9114, 99, 100, 0.001)
      >>> 0.91 < lower <= 0.9114
      True
    """
    goal = math.log(alpha) * (1 + 16 * _UNIT)
    return _lowered(
        min(approximate, math.nextafter(1.0, 0.0)), lambda p: log_binomial_tail(count, trials, p) <= goal
    )


def normal_lower(approximate: float, probability: float) -> float:
    """The largest x found, from an approximation downward, for which Phi(x) <= probability.

    Args:
      approximate: the quantile of the standard normal distribution, with any error.
      probability: in (0, 1).

    Example:
      >>> 1.959 < normal_lower(1.95996399, 0.975) <= 1.95996399
      True
      >>> -1.961 < normal_lower(-1.95996399, 0.025) <= -1.95996398
      True
    """

    def is_safe(x: float) -> bool:
        # Two roundings of the argument change erfc by a share of at most 2 x^2 + 2 units.
        error = _UNIT * (16 + 8 * x * x)
        tail = 0.5 * math.erfc(abs(x) / math.sqrt(2.0))
        # 1 - probability is exact where it is less than 1/2.
        return tail * (1 + error) <= probability if x < 0 else tail * (1 - error) >= 1.0 - probability

    if probability > 0.5:
        return _lowered(approximate, is_safe)
    return _lowered(approximate, is_safe, least=-math.inf)


def log_binomial_tail(count: int, trials: int, p: float) -> float:
    """An upper bound on the logarithm of P(Binomial(trials, p) >= count).

    The probability of `count` itself is multiplied with the sum of the ratios of all later terms to it. The ratio
    of neighbouring terms falls, so that what is left out is less than a geometric series.

    Args:
      count: from 1 to `trials`.
      trials: independent trials.
      p: in (0, 1).
    """
    left = trials - count
    # All terms that matter, unless p is many standard deviations above the count.
    num = min(left, 50 + 12 * math.isqrt(trials))
    further = np.arange(count, count + num)
    ratios = (trials - further) / (further + 1) * (p / (1.0 - p))
    terms = np.cumprod(ratios)
    total = 1.0 + float(np.sum(terms))
    if num < left:
        if ratios[-1] >= 1:
            return 0.0
        total += float(terms[-1] * ratios[-1] / (1.0 - ratios[-1])) * 1.01
    # A term has at most five roundings for each of its ratios, and the sum one for each term.
    return _log_binomial(count, trials, p) + math.log(total) + _UNIT * (8 * num + 256)


def _log_binomial(count: int, trials: int, p: float) -> float:
    """An upper bound on the logarithm of P(Binomial(trials, p) = count), in Loader's form (2000)."""
    if count == trials:
        found = trials * math.log(p)
        return found + 16 * _UNIT * abs(found)
    others = trials - count
    parts = (
        count * math.log(trials * p / count),
        others * math.log(trials * (1.0 - p) / others),
        0.5 * math.log(trials / (2 * math.pi * count * others)),
        _stirling(trials) - _stirling(count) - _stirling(others),
    )
    # The argument of a large logarithm has at most three roundings, which its factor multiplies.
    error = _UNIT * (4 * trials + 16 * sum(map(abs, parts)) + 3 * _STIRLING_ERROR)
    return sum(parts) + error


def _stirling(n: int) -> float:
    """log(n!) minus (n + 1/2) log(n) - n + log(2 pi) / 2; wrong by less than `_STIRLING_ERROR` units."""
    if n < _LEAST_STIRLING:
        return math.log(math.factorial(n)) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi)
    square = float(n) * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * square)) / square) / square) / n


def _lowered(value: float, is_safe: Callable[[float], bool], least: float = 0.0) -> float:
    """A value, or one below it for which a check holds; the steps grow until it does. `least` needs no check."""
    if not value > least:
        return least
    step = max(abs(value) * 2.0**-50, math.ulp(value))
    while value > least and not is_safe(value):
        value -= step
        step *= 2
    return max(value, least)
