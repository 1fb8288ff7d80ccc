"""Confidence intervals of the mean of a bounded quantity, from any number of independent draws of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LARGEST_BET = 0.75
_STEPS = 60


def interval(values: Sequence[float] | np.ndarray, largest: float, alpha: float) -> tuple[float, float]:
    """Two-sided confidence interval of a mean, by betting (Waudby-Smith & Ramdas 2024, JRSS B 86, section 4).

    It covers with probability at least 1 - alpha, whatever the distribution and the number of draws, and it is
    the narrower the less the draws vary. The method takes the draws one after another. They are first shuffled
    with a fixed seed, so that draws that are given class by class do no harm.

    Args:
      values: independent draws of the quantity, each between 0 and `largest`; at least one.
      largest: value that the quantity never exceeds, known before the draws.
      alpha: largest probability that the interval misses.

    Raises:
      ValueError: there is no draw, or a draw is not between 0 and `largest`.

    Example:
      >>> [round(end, 2) for end in interval([0.0, 0.5, 1.0, 0.5] * 25, 1.0, 0.05)]
      [0.42, 0.6]
    """
    draws = np.asarray(values, float)
    if draws.size == 0:
        raise ValueError("a mean needs at least one value")
    if not ((draws >= 0) & (draws <= largest)).all():
        raise ValueError(f"values go from {draws.min():g} to {draws.max():g}; they must be from 0 to {largest:g}")
    if largest == 0:
        return 0.0, 0.0
    shares = np.random.default_rng(0).permutation(draws / largest)
    mean = float(shares.mean())
    lower, upper = _lower(shares, alpha / 2), 1.0 - _lower(1.0 - shares, alpha / 2)
    return largest * min(lower, mean), largest * max(upper, mean)


def _lower(draws: np.ndarray, alpha: float) -> float:
    """Lower bound on the mean of draws from [0, 1], which exceeds it with probability at most alpha.

    A gambler bets before each draw that it is larger than m. If the mean is m, no strategy is expected to gain,
    and the capital ever reaches 1 / alpha with probability at most alpha (Ville's inequality). The bound is the
    largest m at which it does.
    """
    num = len(draws)
    # Mean and variance of the draws so far, and of one draw at 1/2 with variance 1/4 before them.
    means = (0.5 + np.cumsum(draws)) / np.arange(2, num + 2)
    variances = (0.25 + np.cumsum((draws - means) ** 2)) / np.arange(2, num + 2)
    bets = np.sqrt(2 * np.log(1 / alpha) / (num * np.concatenate([[0.25], variances[:-1]])))
    least, most = 0.0, 1.0
    for _ in range(_STEPS):
        mean = (least + most) / 2
        # The capital falls as m grows, so that bisection finds the largest m.
        capital = np.cumsum(np.log1p(np.minimum(bets, _LARGEST_BET / mean) * (draws - mean)))
        least, most = (mean, most) if capital.max() >= np.log(1 / alpha) else (least, mean)
    return least
