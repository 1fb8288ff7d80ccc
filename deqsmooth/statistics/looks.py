"""Looks: numbers of samples at which sampling may stop (interim analyses), and the rules by which it stops.

Each look has its part of alpha, and the parts add up to alpha. So the bounds of all looks hold together with
probability at least 1 - alpha, and the bound at the look where sampling stops holds whatever the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deqsmooth.statistics import bounds

PROPORTIONAL, EQUAL = SPENDING = ("proportional", "equal")
_TAIL = 0.025


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


def is_last(
    count: int,
    trials: int,
    parts: Mapping[int, float],
    *,
    sigma: float,
    stop_radius: float | None = None,
    stop_gain: float | None = None,
) -> bool:
    """Whether sampling stops at a look.

    It stops at the last look, and where even unanimous further votes would certify nothing. With `stop_radius` it
    also stops once that radius is certified, or once even unanimous further votes could not reach it. With
    `stop_gain` it also stops where sampling to the last look would add at most `stop_gain` to the radius, if the
    class got the upper end of its 95 % Clopper-Pearson interval as its share of the further votes.

    Args:
      count: votes for the class so far.
      trials: samples so far; one of the looks.
      parts: failure probability of each look; see `deqsmooth.statistics.looks.alphas`.
      sigma: standard deviation of the noise.
      stop_radius: radius that is wanted.
      stop_gain: least gain of radius for which sampling goes on.

    Example:
      >>> is_last(60, 100, alphas(0.001, (100, 10_000)), sigma=0.5)
      False
      >>> is_last(20, 100, alphas(0.001, (100, 200)), sigma=0.5)
      True
    """
    total = max(parts)
    if trials == total:
        return True

    def reached(count: int, trials: int) -> float:
        return bounds.radius(bounds.clopper_pearson_lower(count, trials, parts[trials]), sigma)

    now, best = reached(count, trials), reached(count + total - trials, total)
    if best == 0 or (stop_radius is not None and (now >= stop_radius or best < stop_radius)):
        return True
    if stop_gain is None:
        return False
    further = int(bounds.clopper_pearson_upper(count, trials, _TAIL) * (total - trials))
    return reached(count + further, total) - now <= stop_gain
