"""What the votes on one image prove: counts in, a bound with its radius out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from deqsmooth import config
from deqsmooth.statistics import bounds, robustness

NOT_VALID = "not a valid bound"


@dataclasses.dataclass(frozen=True)
class Bound:
    """Bounds on the probability of the selected class and of the others, and everything that they follow from.

    Attributes:
      selected: class with the most votes of the selection; the lowest one of a tie.
      prediction: the selected class if it is certified, else None.
      p_lower: lower bound on its probability under noise.
      p_upper: upper bound on that of every other class; None if it is 1 - p_lower.
      radius: certified L2 radius, in the unit of sigma; 0 if nothing is certified.
      cap: radius of unanimous votes without a mismatch by the same settings.
      count: votes of the estimation for the selected class.
      counts_selection: votes of the selection by class; the last entry counts samples that were not finite.
      counts: the same of the estimation.
      alpha: largest probability that the bound is false.
      alpha_count: part of alpha that this reading of the count takes.
      alpha_upper: part of it that p_upper takes.
      noise_error: taken off p_lower, and added to p_upper; see `ds.Smoothing.noise_error`.
      audit: of serial votes, else None.
      pairs: if the votes are those of another classifier, else None.
    """

    selected: int
    prediction: int | None
    p_lower: float
    p_upper: float | None
    radius: float
    cap: float
    count: int
    counts_selection: tuple[int, ...]
    counts: tuple[int, ...]
    alpha: float
    alpha_count: float
    alpha_upper: float
    noise_error: float
    audit: bounds.Audit | None
    pairs: bounds.Pairs | None

    @property
    def formula(self) -> str:
        """Name of the bound in records."""
        if not sum(self.counts):
            return bounds.NONE
        if self.audit is not None:
            return self.audit.formula
        if self.p_upper is not None:
            return bounds.TWO_SIDED
        return bounds.CLOPPER_PEARSON if self.pairs is None else bounds.PAIRED

    @property
    def warning(self) -> str | None:
        """`NOT_VALID` if the formula is no valid bound, else None."""
        return None if self.audit is None or bounds.AUDITED[self.audit.formula].is_valid else NOT_VALID


def selected_class(counts_selection: Sequence[int]) -> int:
    """The class with the most votes, the lowest one of a tie; the last entry of the counts never wins."""
    *votes, _ = counts_selection
    return votes.index(max(votes))


def of_votes(
    settings: config.Smoothing,
    counts_selection: Sequence[int],
    counts: Sequence[int],
    *,
    noise_error: float = 0.0,
    audit: bounds.Audit | None = None,
    pairs: bounds.Pairs | None = None,
) -> Bound:
    """Bounds the probability of the class that the selection chose.

    Args:
      settings: of the certificate, with a sampler; the estimation must end at one of its looks, or have no votes
        at all, which gives an abstention.
      counts_selection: votes of the selection by class [classes + 1]; the last entry never wins.
      counts: votes of the estimation by class [classes + 1].
      noise_error: of a sample of the image; see `ds.Smoothing.noise_error`.
      audit: of serial votes.
      pairs: if the votes are those of another classifier.

    Example:
      >>> import deqsmooth as ds
      >>> settings = ds.Smoothing(sampler="independent", sigma=0.5, num_estimation=1000)
      >>> bound = of_votes(settings, [98, 2, 0], [990, 10, 0])
      >>> bound.prediction, round(bound.p_lower, 3), round(bound.radius, 3)
      (0, 0.976, 0.989)
    """
    selected = selected_class(counts_selection)
    count, trials = int(counts[selected]), int(sum(counts))
    alpha_count, alpha_upper = (parts.get(trials, 0.0) for parts in (settings.look_alphas, settings.upper_alphas))
    if not trials:
        audit = pairs = None
    upper = bounds.others_upper(counts, selected, alpha_upper) if alpha_upper else None
    p_lower, p_upper = probabilities(
        count, trials, alpha_count, upper=upper, noise_error=noise_error, audit=audit, pairs=pairs
    )
    return Bound(
        selected=selected,
        prediction=selected if is_certified(p_lower, p_upper) else None,
        p_lower=p_lower,
        p_upper=p_upper,
        radius=robustness.radius(p_lower, settings.sigma, p_upper),
        cap=settings.cap,
        count=count,
        counts_selection=tuple(map(int, counts_selection)),
        counts=tuple(map(int, counts)),
        alpha=settings.alpha,
        alpha_count=alpha_count,
        alpha_upper=alpha_upper,
        noise_error=noise_error,
        audit=audit,
        pairs=pairs,
    )


def probabilities(
    count: int,
    trials: int,
    alpha_count: float,
    *,
    upper: float | None = None,
    noise_error: float = 0.0,
    audit: bounds.Audit | None = None,
    pairs: bounds.Pairs | None = None,
) -> tuple[float, float | None]:
    """Lower bound on the probability of a class, and upper bound on that of every other one.

    Args:
      count: votes for the class, which none of these votes has chosen.
      trials: samples.
      alpha_count: failure probability of the count.
      upper: upper bound for the other classes by their counts alone; None gives None.
      noise_error: see `of_votes`.
      audit: of serial votes.
      pairs: if the votes are those of another classifier.
    """
    p_lower = bounds.lower_bound(count, trials, alpha_count, audit=audit, pairs=pairs)
    if noise_error:
        p_lower = max(0.0, math.nextafter(p_lower - noise_error, 0.0))
    if upper is None:
        return p_lower, None
    return p_lower, robustness.rest(p_lower, upper + noise_error)


def is_certified(p_lower: float, p_upper: float | None) -> bool:
    """Whether a class with these bounds is that of the smoothed classifier."""
    return p_lower > (0.5 if p_upper is None else p_upper)
