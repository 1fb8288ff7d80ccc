"""Confidence bounds on the probability of a class, from counts of votes.

Every bound holds with probability at least 1 - alpha over the noise and, where votes are audited, over the random
draw of the audit. See Cohen et al. 2019, section 3.2, and Gao et al. 2024, section 4.3. Bounds are rounded
outward: no lower bound is above the exact number that it stands for, and no upper bound below it; see
`deqsmooth.statistics.outward`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import scipy

from deqsmooth.statistics import outward

# Relative; far above that of scipy's distribution function.
_HYPERGEOMETRIC_ERROR = 1e-6


class Audit(NamedTuple):
    """The audit of serial votes: some votes for the selected class are solved again with the reference classifier.

    Attributes:
      num: votes audited, drawn at random without replacement among the votes for the class.
      mismatches: audited votes that the reference does not give to the class.
      alpha: failure probability spent on the audit.
      formula: name of the bound: `exact`, `paper` or `reference-code`.
    """

    num: int
    mismatches: int
    alpha: float
    formula: str = "exact"


class Pairs(NamedTuple):
    """Samples on which two classifiers are evaluated: f, whose votes are counted, and f', which is certified.

    Attributes:
      num: independent samples.
      lost: samples to which f gives the class and f' does not.
      alpha: failure probability spent on the pairs.
    """

    num: int
    lost: int
    alpha: float


def clopper_pearson_lower(successes: int, trials: int, alpha: float) -> float:
    """Lower confidence bound on a binomial probability (Clopper & Pearson 1934).

    Args:
      successes: between 0 and `trials`; 0 gives 0.
      trials: independent trials.
      alpha: largest probability that the bound exceeds the truth.

    Example:
      >>> round(clopper_pearson_lower(99, 100, 0.001), 4)
      0.9114
    """
    if successes == 0:
        return 0.0
    approximate = float(scipy.special.betaincinv(successes, trials - successes + 1, alpha))
    return outward.binomial_lower(approximate, successes, trials, alpha)


def clopper_pearson_upper(successes: int, trials: int, alpha: float) -> float:
    """Upper confidence bound on a binomial probability (Clopper & Pearson 1934).

    Args:
      successes: between 0 and `trials`; `trials` gives 1.
      trials: independent trials.
      alpha: largest probability that the bound is below the truth.

    Example:
      >>> round(clopper_pearson_upper(1, 100, 0.001), 4)
      0.0886
    """
    lower = clopper_pearson_lower(trials - successes, trials, alpha)
    return math.nextafter(1.0 - lower, 1.0)


def binomial_interval(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Two-sided confidence interval of a binomial probability (Clopper & Pearson 1934).

    Args:
      successes: between 0 and `trials`.
      trials: independent trials.
      alpha: largest probability that the interval misses.

    Example:
      >>> [round(end, 3) for end in binomial_interval(45, 50, 0.05)]
      [0.782, 0.967]
    """
    return (
        clopper_pearson_lower(successes, trials, alpha / 2),
        clopper_pearson_upper(successes, trials, alpha / 2),
    )


def hypergeometric_upper(marked_drawn: int, drawn: int, population: int, alpha: float) -> int:
    """Upper confidence bound on the number of marked members of a population, from a draw without replacement.

    It is the largest number M for which drawing at most `marked_drawn` marked members has probability above alpha.

    Args:
      marked_drawn: marked members in the draw.
      drawn: size of the draw.
      population: size of the population.
      alpha: largest probability that the bound is below the truth.

    Example:
      >>> hypergeometric_upper(0, 400, 10_000, 0.0005)
      184
    """
    most, least = population - (drawn - marked_drawn), marked_drawn
    while least < most:
        middle = (least + most + 1) // 2
        if scipy.stats.hypergeom.cdf(marked_drawn, population, middle, drawn) > alpha * (
            1 - _HYPERGEOMETRIC_ERROR
        ):
            least = middle
        else:
            most = middle - 1
    return least


def exact_lower(count: int, trials: int, audit: Audit, alpha_count: float) -> float:
    """Lower bound on P(f = A) from audited votes, by the hypergeometric distribution.

    A vote for A is wrong if f gives its sample another class. With probability at least 1 - audit.alpha at most M
    votes are wrong. M is a bound over the random draw of the audit, so that it holds for any dependence between
    votes. Then f gives A to at least `count - M` of `trials` independent samples, to which Clopper-Pearson applies
    at alpha_count. By the union bound the failure probability is at most audit.alpha + alpha_count.

    Args:
      count: serial votes for A, at least 1.
      trials: serial samples.
      audit: of these votes; its formula is not read.
      alpha_count: failure probability spent on the count.
    """
    wrong = hypergeometric_upper(audit.mismatches, audit.num, count, audit.alpha)
    return clopper_pearson_lower(count - wrong, trials, alpha_count)


def paper_lower(count: int, trials: int, audit: Audit, alpha_count: float) -> float:
    """The bound as published (Gao et al. 2024, section 4.3).

    It multiplies the count by a binomial lower bound on the share of votes that the reference confirms, and then
    applies Clopper-Pearson. It is valid and a little looser than `deqsmooth.statistics.bounds.exact_lower`.

    Args:
      count: serial votes for A, at least 1.
      trials: serial samples.
      audit: of these votes; its formula is not read.
      alpha_count: failure probability spent on the count.
    """
    surviving = math.nextafter(count * _surviving(audit), 0.0)
    return clopper_pearson_lower(math.floor(surviving), trials, alpha_count)


def reference_code_lower(count: int, trials: int, audit: Audit, alpha_count: float) -> float:
    """The formula of the code that Gao et al. (2024) released. NOT A VALID BOUND.

    It multiplies the count and the number of trials by the same bound on the share of confirmed votes. Their ratio
    stays the same, so that wrong votes are not subtracted, and the result exceeds the truth far more often than
    alpha. It exists to reproduce published tables.

    Args:
      count: serial votes for A, at least 1.
      trials: serial samples.
      audit: of these votes; its formula is not read.
      alpha_count: failure probability spent on the count.
    """
    surviving = _surviving(audit)
    return clopper_pearson_lower(math.floor(count * surviving), math.floor(trials * surviving), alpha_count)


class Formula(NamedTuple):
    """A bound from audited votes.

    Attributes:
      lower: (votes for the class, samples, audit, failure probability of the count) -> lower bound.
      is_valid: whether it holds with probability 1 - alpha.
    """

    lower: Callable[[int, int, Audit, float], float]
    is_valid: bool


AUDITED = {
    "exact": Formula(exact_lower, True),
    "paper": Formula(paper_lower, True),
    "reference-code": Formula(reference_code_lower, False),
}
"""The bounds of audited votes by their names in settings and records; the first is the default."""
PAIRED = "paired"
"""Name in settings and records of the bound from paired samples; see `paired_lower`."""
TWO_SIDED = "two-sided"
"""Name in settings and records of the bounds on the class and on every other one; see `others_upper`."""
CLOPPER_PEARSON = "clopper-pearson"
"""Name in records of the bound from independent votes of the certified classifier itself."""
NONE = "none"
"""Name in records where no sample was drawn to bound a probability: the bound is 0."""


def audited_lower(count: int, trials: int, audit: Audit, alpha_count: float) -> float:
    """Lower bound on P(f = A) from audited serial votes; f is the reference classifier.

    Args:
      count: serial votes for A; 0 gives 0.
      trials: serial samples.
      audit: of these votes; its `formula` names the bound.
      alpha_count: failure probability spent on the count.

    Raises:
      ValueError: the formula is unknown.

    Example:
      >>> lower = audited_lower(9900, 10_000, Audit(400, 2, 0.0005), 0.0005)
      >>> lower < clopper_pearson_lower(9900, 10_000, 0.001)
      True
    """
    if audit.formula not in AUDITED:
        raise ValueError(f"bound is {audit.formula!r}; it must be one of {', '.join(AUDITED)}")
    return AUDITED[audit.formula].lower(count, trials, audit, alpha_count) if count else 0.0


def paired_lower(count: int, trials: int, pairs: Pairs, alpha_count: float) -> float:
    """Lower bound on P(f' = A) from votes of f, and from samples on which both f and f' were evaluated.

    P(f' = A) >= P(f = A) - P(f = A, f' != A). Both terms have binomial bounds, since the samples are independent.
    The union bound gives alpha_pairs + alpha_count in all (Ugare et al. 2024).

    Args:
      count: votes of f for A.
      trials: independent samples.
      pairs: samples on which both were evaluated.
      alpha_count: failure probability spent on the count.

    Example:
      >>> lower = paired_lower(9900, 10_000, Pairs(2000, 0, 0.0001), 0.0009)
      >>> lower < clopper_pearson_lower(9900, 10_000, 0.001)
      True
    """
    lost = clopper_pearson_upper(pairs.lost, pairs.num, pairs.alpha)
    return max(0.0, math.nextafter(clopper_pearson_lower(count, trials, alpha_count) - lost, 0.0))


def lower_bound(
    count: int, trials: int, alpha_count: float, *, audit: Audit | None = None, pairs: Pairs | None = None
) -> float:
    """Lower bound on the probability of a class, from whatever is known of its votes.

    Args:
      count: votes for the class.
      trials: samples.
      alpha_count: failure probability spent on the count.
      audit: of serial votes; None if every vote is the certified classifier's own.
      pairs: samples on which f and f' were evaluated, if the votes are those of f and f' is certified; see
        `deqsmooth.statistics.bounds.paired_lower`.
    """
    if audit is not None:
        return audited_lower(count, trials, audit, alpha_count)
    if pairs is not None:
        return paired_lower(count, trials, pairs, alpha_count)
    return clopper_pearson_lower(count, trials, alpha_count)


def others_upper(counts: Sequence[int], selected: int, alpha: float) -> float:
    """Upper bound that holds for the probabilities of all classes but one, together with probability 1 - alpha.

    Every other class takes an equal part of alpha, so that the bound is that of the most frequent one
    (Clopper-Pearson and Bonferroni). Votes for no class may be for any.

    Args:
      counts: votes by class [classes + 1]; the last entry counts votes for no class.
      selected: the class that is left out.
      alpha: largest probability that the bound is below one of these probabilities.

    Example:
      >>> round(others_upper([60, 30, 10, 0], 0, 0.001), 3)
      0.467
    """
    *votes, unknown = counts
    others = [*votes[:selected], *votes[selected + 1 :]]
    return clopper_pearson_upper(max(others) + unknown, sum(counts), alpha / len(others))


def least_count(trials: int, alpha: float, probability: float) -> int:
    """The least count whose Clopper-Pearson bound reaches a probability; above `trials` if none does.

    Args:
      trials: independent trials.
      alpha: failure probability of the bound.
      probability: that the bound must reach.

    Example:
      >>> least_count(100, 0.001, 0.9), clopper_pearson_lower(99, 100, 0.001) >= 0.9
      (99, True)
    """
    return int(scipy.stats.binom.isf(alpha, trials, probability)) + 1


def _surviving(audit: Audit) -> float:
    """Lower confidence bound on the share of votes that the reference confirms."""
    return math.nextafter(1.0 - clopper_pearson_upper(audit.mismatches, audit.num, audit.alpha), 0.0)
