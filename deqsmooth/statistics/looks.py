"""Looks: numbers of samples at which a certificate may be read, and rules that stop there.

A bound that holds at every look, each at its part of alpha, holds wherever a run stops, whatever made it stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deqsmooth.statistics import bounds

PROPORTIONAL, EQUAL = SPENDING = ("proportional", "equal")
_HOPE = 0.025


def alphas(alpha: float, sizes: Sequence[int], spending: str = PROPORTIONAL) -> dict[int, float]:
    """The part of alpha that each look takes; together they take alpha (Bonferroni).

    Args:
      alpha: failure probability of all the looks.
      sizes: numbers of samples at which the counts may be read, increasing.
      spending: `proportional` to the samples of a look, so that the last ones, which most images reach, lose
        little, or `equal`.

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
    """Whether sampling may end at a look: at the last one, without hope of a certificate, and by choice earlier.

    Args:
      count: votes for A so far.
      trials: samples so far, those of a look.
      parts: failure probability of each look, as `alphas` gives them.
      sigma: standard deviation of the noise.
      stop_radius: radius that is wanted; reaching it ends the sampling, and so does having no hope of it.
      stop_gain: least gain for which sampling goes on: what the radius would grow by if the rest voted for A as
        often as the votes so far let one hope, at the upper end of A's 95 % interval.

    Example:
      >>> is_last(60, 100, alphas(0.001, (100, 10_000)), sigma=0.5)
      False
      >>> is_last(20, 100, alphas(0.001, (100, 200)), sigma=0.5)
      True
    """
    total = max(parts)
    if trials == total:
        return True

    def reached(count, trials):
        return bounds.radius(bounds.clopper_pearson_lower(count, trials, parts[trials]), sigma)

    now, best = reached(count, trials), reached(count + total - trials, total)
    if best == 0 or (stop_radius is not None and (now >= stop_radius or best < stop_radius)):
        return True
    if stop_gain is None:
        return False
    hoped = int(bounds.clopper_pearson_upper(count, trials, _HOPE) * (total - trials))
    return reached(count + hoped, total) - now <= stop_gain
