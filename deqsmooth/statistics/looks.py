"""Looks: numbers of samples at which sampling may stop (interim analyses), and the rules by which it stops.

Each look has its part of alpha, and the parts add up to alpha. So the bounds of all looks hold together with
probability at least 1 - alpha, and the bound at the look where sampling stops holds whatever the rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from deqsmooth.statistics import bounds, robustness

PROPORTIONAL, EQUAL = SPENDING = ("proportional", "equal")
_TAIL = 0.025
_RATIO, _STEP = 1.25, 100
_DEVIATIONS = 2.0


def alphas(alpha: float, sizes: Sequence[int], spending: str = PROPORTIONAL) -> dict[int, float]:
    """The part of alpha that each look takes; the parts add up to alpha (Bonferroni).

    Args:
      alpha: failure probability of all looks together.
      sizes: numbers of samples of the looks, increasing.
      spending: `equal` parts, or parts `proportional` to the samples of a look. The latter lowers the bound least
        at the last looks, which most images reach.

    Example:
      >>> {look: round(part, 6) for look, part in alphas(0.001, (500, 2000, 10_000)).items()}
      {500: 4e-05, 2000: 0.00016, 10000: 0.0008}
    """
    weights = {look: look if spending == PROPORTIONAL else 1 for look in sizes}
    return {look: alpha * weight / sum(weights.values()) for look, weight in weights.items()}


def geometric(total: int) -> tuple[int, ...]:
    """Sizes of many looks, each about a quarter larger than the one before; all but the last are multiples of 100.

    Args:
      total: samples of the last look.

    Example:
      >>> geometric(1000)
      (100, 200, 300, 400, 500, 600, 800, 1000)
    """
    size, sizes = total / _RATIO, {total}
    while size >= _STEP:
        sizes.add(round(size / _STEP) * _STEP)
        size /= _RATIO
    return tuple(sorted(sizes))


def within_reach(count: int, trials: int, total: int) -> int:
    """The largest count in the end that the votes so far make likely.

    With Jeffreys' prior the count in the end has a beta-binomial distribution. A count is likely if it is at most
    two standard deviations above the mean of this distribution. No bound depends on this.

    Args:
      count: votes for the class so far.
      trials: samples so far.
      total: samples in the end.

    Example:
      >>> within_reach(60, 100, 1000)
      691
    """
    left, for_class, others = total - trials, count + 0.5, trials - count + 0.5
    mean = count + left * for_class / (trials + 1)
    variance = left * for_class * others * (total + 1) / ((trials + 1) ** 2 * (trials + 2))
    return min(count + left, math.floor(mean + _DEVIATIONS * math.sqrt(variance) + 0.5))


def is_last(
    count: int,
    trials: int,
    parts: Mapping[int, float],
    *,
    sigma: float,
    other: int = 0,
    upper_parts: Mapping[int, float] | None = None,
    stop_radius: float | None = None,
    stop_gain: float | None = None,
    stop_radii: Sequence[float] | None = None,
) -> bool:
    """Whether sampling stops at a look.

    It stops at the last look, and where even unanimous further votes would certify nothing. With `stop_radius` it
    also stops once that radius is certified, or once even unanimous further votes could not reach it. With
    `stop_gain` it also stops where sampling to the last look would add at most `stop_gain` to the radius, if the
    class got the upper end of its 95 % Clopper-Pearson interval as its share of the further votes. With
    `stop_radii` it also stops where the next radius of this grid is not `within_reach`, or there is none.

    Args:
      count: votes for the class so far.
      trials: samples so far; one of the looks.
      parts: failure probability of each look; see `deqsmooth.statistics.looks.alphas`.
      sigma: standard deviation of the noise.
      other: votes for the class with most of the other votes so far; not read without `upper_parts`.
      upper_parts: failure probability, at each look, of an upper bound on the probability of one other class; None
        if there are no such bounds.
      stop_radius: radius that is wanted.
      stop_gain: least gain of radius for which sampling goes on.
      stop_radii: grid of radii at which certified accuracy is read, increasing.

    Example:
      >>> is_last(60, 100, alphas(0.001, (100, 10_000)), sigma=0.5)
      False
      >>> is_last(20, 100, alphas(0.001, (100, 200)), sigma=0.5)
      True
    """
    total = max(parts)
    left = total - trials
    if not left:
        return True

    def reached(count: int, other: int, trials: int) -> float:
        p_lower, p_upper = bounds.clopper_pearson_lower(count, trials, parts[trials]), None
        if upper_parts is not None:
            p_upper = robustness.rest(p_lower, bounds.clopper_pearson_upper(other, trials, upper_parts[trials]))
        return robustness.radius(p_lower, sigma, p_upper)

    now, best = reached(count, other, trials), reached(count + left, other, total)
    if best == 0 or (stop_radius is not None and (now >= stop_radius or best < stop_radius)):
        return True
    if stop_radii is not None:
        # A radius of 0 asks for a class that is certified at all.
        coming = [radius for radius in stop_radii if now < radius or now == 0]
        if not coming:
            return True
        most, least = within_reach(count, trials, total), total - within_reach(trials - other, trials, total)
        likely = reached(most, least, total)
        if likely == 0 or likely < coming[0]:
            return True
    if stop_gain is None:
        return False
    further = int(bounds.clopper_pearson_upper(count, trials, _TAIL) * left)
    others_further = int(bounds.clopper_pearson_lower(other, trials, _TAIL) * left)
    return reached(count + further, other + others_further, total) - now <= stop_gain
