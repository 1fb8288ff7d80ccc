"""The rounded normal distribution: exact probabilities of a normal variable that is rounded to a grid.

They are computed with integers of many bits, so that every machine finds the same numbers.
"""

from __future__ import annotations

import fractions
import functools
import math
from collections.abc import Callable

import numpy as np

BITS = 63
"""Random bits of a magnitude; see `thresholds`."""
# Fractional bits of the computation, and a squared argument at which erf is 1 up to 2^-280.
_PRECISION, _LARGE = 256, 195


@functools.lru_cache(maxsize=8)
def thresholds(sigma: float, grid: int) -> np.ndarray:
    """Thresholds by which uniform integers become magnitudes of rounded normal variables.

    Let J be the integer nearest to `grid` times a normal variable of standard deviation `sigma`. The threshold T_j
    is the integer nearest to 2^63 P(|J| >= j). So the number of thresholds above a uniform integer of 63 bits has
    the distribution of |J|, up to `total_variation`.

    Args:
      sigma: standard deviation; every bit of it counts.
      grid: points of the grid in a unit.

    Returns:
      T_1, T_2, … down to the last that is not 0, uint64. They are not writeable.

    Example:
      >>> found = thresholds(0.5, 255)
      >>> len(found), round(int(found[127]) / 2**63, 6)
      (1167, 0.317311)
    """
    scaled = fractions.Fraction(sigma) * grid
    one, found, magnitude = 1 << _PRECISION, [], 1
    whole = _error_function(fractions.Fraction(_LARGE))
    while True:
        # P(|J| >= j) is that of a standard normal beyond x = (j - 1/2) / scaled: 1 - erf(x / sqrt(2)).
        half = fractions.Fraction(2 * magnitude - 1, 2) / scaled
        if half * half / 2 > _LARGE:
            break
        tail = one - _error_function(half * half / 2) * one // whole
        threshold = (tail + (1 << (_PRECISION - BITS - 1))) >> (_PRECISION - BITS)
        if not threshold:
            break
        found.append(threshold)
        magnitude += 1
    array = np.array(found, np.uint64)
    array.flags.writeable = False
    return array


def total_variation(sigma: float, grid: int, num: int) -> float:
    """Bound on the total variation distance of drawn integers from rounded normal variables.

    P(|J| >= j) is off by at most 2^-64 at each threshold, and magnitudes beyond the last one have together less
    probability than this. The distance of one integer is at most the sum of these, and that of several at most the
    sum of theirs.

    Args:
      sigma: standard deviation.
      grid: points of the grid in a unit.
      num: integers that are drawn.

    Example:
      >>> total_variation(0.5, 255, 32 * 32 * 3) < 1e-12
      True
    """
    return math.nextafter(num * (len(thresholds(sigma, grid)) + 2) * 2.0 ** (-BITS - 1), 1.0)


def _error_function(square: fractions.Fraction) -> int:
    """A multiple of erf(sqrt(square)), the same for all arguments, with `_PRECISION` fractional bits.

    erf(x) is 2 x / sqrt(pi) exp(-x^2) times the sum of (2 x^2)^n / (2 n + 1)!!, whose terms are positive.
    """
    argument = (square.numerator << _PRECISION) // square.denominator
    root = math.isqrt(argument << _PRECISION)
    series = _sum(argument, lambda n: (2, 2 * n + 1))
    return (root * series >> _PRECISION) * (1 << _PRECISION) // _sum(argument, lambda n: (1, n))


def _sum(argument: int, ratio: Callable[[int], tuple[int, int]]) -> int:
    """The sum of the terms 1, a_1 x, a_1 a_2 x^2, … at an argument with `_PRECISION` fractional bits."""
    term = total = 1 << _PRECISION
    n = 0
    while term:
        n += 1
        numerator, denominator = ratio(n)
        term = (term * argument >> _PRECISION) * numerator // denominator
        total += term
    return total
