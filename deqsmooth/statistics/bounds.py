"""From counts to radii, on the host: bounds on a probability, the audit of serial labels, certified accuracy.

Every bound is one-sided and holds with probability at least 1 - alpha over the noise (and, for the
audit, over which samples were drawn). Sections refer to Cohen et al. 2019 and Gao et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy


def clopper_pearson_lower(successes: int, trials: int, alpha: float) -> float:
    """Lower confidence bound on a binomial probability (Clopper & Pearson 1934).

    Args:
      successes: between 0 and `trials`; 0 gives 0.
      trials: independent trials.
      alpha: probability that the bound exceeds the truth, at most.

    Example:
      >>> round(clopper_pearson_lower(99, 100, 0.001), 4)
      0.9114
    """
    if successes == 0:
        return 0.0
    return float(scipy.stats.beta.ppf(alpha, successes, trials - successes + 1))


def clopper_pearson_upper(successes: int, trials: int, alpha: float) -> float:
    """Upper confidence bound on a binomial probability; the mirror image of the lower one."""
    return 1.0 - clopper_pearson_lower(trials - successes, trials, alpha)


def binomial_interval(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Two-sided confidence interval of a binomial probability (Clopper & Pearson 1934).

    Example:
      >>> [round(end, 3) for end in binomial_interval(45, 50, 0.05)]
      [0.782, 0.967]
    """
    return (
        clopper_pearson_lower(successes, trials, alpha / 2),
        clopper_pearson_upper(successes, trials, alpha / 2),
    )


def sign_test(only_first: int, only_second: int) -> float:
    """Two-sided p-value of one as many wins as the other, the ties left out; McNemar's exact test of pairs.

    Example:
      >>> sign_test(8, 1), sign_test(0, 0)
      (0.0390625, 1.0)
    """
    wins = only_first + only_second
    return float(scipy.stats.binomtest(only_first, wins, 0.5).pvalue) if wins else 1.0


def hypergeometric_upper(marked_drawn: int, drawn: int, population: int, alpha: float) -> int:
    """Upper confidence bound on the marked members of a population, from a draw without replacement.

    The largest M for which drawing at most `marked_drawn` marked members is more likely than alpha.

    Args:
      marked_drawn: marked members in the draw.
      drawn: size of the draw.
      population: size of the population.
      alpha: probability that the bound is below the truth, at most.

    Example:
      >>> hypergeometric_upper(0, 400, 10_000, 0.0005)
      184
    """
    most, least = population - (drawn - marked_drawn), marked_drawn
    while least < most:
        middle = (least + most + 1) // 2
        if scipy.stats.hypergeom.cdf(marked_drawn, population, middle, drawn) > alpha:
            least = middle
        else:
            most = middle - 1
    return least


def audited_lower(
    count: int, trials: int, mismatches: int, audited: int, alpha_audit: float, alpha_count: float, bound: str
) -> float:
    """Lower bound on P(f = A) from serial votes, of which some were solved again with f itself.

    `exact`: at most M votes are wrong with probability 1 - alpha_audit, whatever the dependence between
    the votes, because the audit's draw is the only randomness used; so f gave A at least `count - M`
    times in `trials` independent trials, and Clopper-Pearson with alpha_count applies to that. The union
    bound gives alpha_audit + alpha_count in all.

    `paper`: the same with a binomial bound on the share of wrong votes (Gao et al. 2024, section 4.3).
    Valid, a little looser.

    `reference-code`: what the paper's released code computes: count and trials are both multiplied by
    the share of votes that survive. NOT A VALID BOUND: it ignores the wrong votes and exceeds the truth
    far more often than alpha. For redoing published tables only.

    Args:
      count: serial votes for A.
      trials: serial samples.
      mismatches: audited votes that f does not give to A.
      audited: votes audited, drawn at random without replacement among the `count`.
      alpha_audit: failure probability spent on the audit.
      alpha_count: failure probability spent on the count.
      bound: `exact`, `paper` or `reference-code`.

    Raises:
      ValueError: an unknown bound.

    Example:
      >>> lower = audited_lower(9900, 10_000, 2, 400, 0.0005, 0.0005, "exact")
      >>> lower < clopper_pearson_lower(9900, 10_000, 0.001)
      True
    """
    if count == 0:
        return 0.0
    if bound == "exact":
        wrong = hypergeometric_upper(mismatches, audited, count, alpha_audit)
        return clopper_pearson_lower(count - wrong, trials, alpha_count)
    surviving = 1.0 - clopper_pearson_upper(mismatches, audited, alpha_audit)
    if bound == "paper":
        return clopper_pearson_lower(math.floor(count * surviving), trials, alpha_count)
    if bound == "reference-code":
        return clopper_pearson_lower(math.floor(count * surviving), math.floor(trials * surviving), alpha_count)
    raise ValueError(f"bound is {bound!r}; it must be exact, paper or reference-code")


def paired_lower(
    count: int, trials: int, differing: int, pairs: int, alpha_pairs: float, alpha_count: float
) -> float:
    """Lower bound on P(f' = A) from votes of f, and from noise on which both f and f' were evaluated.

    P(f' = A) >= P(f = A) - P(f = A, f' != A); the pairs are independent, so both have binomial bounds, and the
    union bound gives alpha_pairs + alpha_count in all (Ugare et al. 2024).

    Args:
      count: votes of f for A.
      trials: independent samples.
      differing: pairs in which f gives A and f' does not.
      pairs: samples on which both were evaluated.
      alpha_pairs: failure probability spent on the pairs.
      alpha_count: failure probability spent on the count.

    Example:
      >>> lower = paired_lower(9900, 10_000, 0, 2000, 0.0001, 0.0009)
      >>> lower < clopper_pearson_lower(9900, 10_000, 0.001)
      True
    """
    lost = clopper_pearson_upper(differing, pairs, alpha_pairs)
    return max(0.0, clopper_pearson_lower(count, trials, alpha_count) - lost)


def lower_bound(
    count: int,
    trials: int,
    *,
    alpha_count: float,
    mismatches: int = 0,
    audited: int | None = None,
    alpha_audit: float = 0.0,
    bound: str = "exact",
) -> float:
    """Lower bound on P(f = A), by the name of the bound.

    Args:
      count: votes for A.
      trials: samples.
      alpha_count: failure probability spent on the count.
      mismatches: see `audited_lower`; of `paired` the pairs that differ.
      audited: votes audited, or pairs; None if every vote is f's own, which takes Clopper-Pearson.
      alpha_audit: failure probability spent on the audit, or the pairs.
      bound: `paired`, or one of `audited_lower`.
    """
    if audited is None:
        return clopper_pearson_lower(count, trials, alpha_count)
    if bound == "paired":
        return paired_lower(count, trials, mismatches, audited, alpha_audit, alpha_count)
    return audited_lower(count, trials, mismatches, audited, alpha_audit, alpha_count, bound)


def smoothed_class(counts: Sequence[int], alpha: float) -> int | None:
    """The most probable class, or None where the votes do not tell it from the next (Cohen et al., PREDICT).

    A two-sided binomial test of the two classes with most votes against 1/2 each: a class that is not the
    smoothed classifier's is returned with probability at most alpha (Hung & Fithian 2019).

    Args:
      counts: votes by class.
      alpha: probability of a wrong class, at most.

    Example:
      >>> smoothed_class([3, 80, 17], 0.001), smoothed_class([3, 50, 47], 0.001)
      (1, None)
    """
    second, first = np.argsort(counts, kind="stable")[-2:]
    won, both = int(counts[first]), int(counts[first]) + int(counts[second])
    certain = both > 0 and scipy.stats.binomtest(won, both, 0.5).pvalue <= alpha
    return int(first) if certain else None


def radius(p_lower: float, sigma: float) -> float:
    """Certified L2 radius sigma * Phi^-1(p_lower), in the unit of sigma; 0 for p_lower <= 1/2 (Cohen et al.).

    Example:
      >>> round(radius(0.99, 0.5), 3), radius(0.5, 0.5)
      (1.163, 0.0)
    """
    return float(sigma * scipy.stats.norm.ppf(p_lower)) if p_lower > 0.5 else 0.0


def share(radius: float, sigma: float) -> float:
    """Probability of a class that gives the smoothed classifier a radius: Phi(radius / sigma); inverts `radius`.

    Example:
      >>> round(share(1.163, 0.5), 3)
      0.99
    """
    return float(scipy.stats.norm.cdf(radius / sigma))


def least_count(trials: int, alpha: float, share: float) -> int:
    """The least count whose Clopper-Pearson bound reaches a share; more than `trials` if none does.

    Example:
      >>> least_count(100, 0.001, 0.9), clopper_pearson_lower(99, 100, 0.001) >= 0.9
      (99, True)
    """
    return int(scipy.stats.binom.isf(alpha, trials, share)) + 1


def certified_accuracy(correct: Sequence[bool], radii: Sequence[float], at: float) -> float:
    """Share of images whose prediction is correct with a radius of at least `at`.

    Example:
      >>> certified_accuracy([True, True, False, False], [0.5, 0.25, 0.75, 0.0], 0.5)
      0.25
    """
    return float(np.mean(np.asarray(correct) & (np.asarray(radii) >= at)))


def average_certified_radius(correct: Sequence[bool], radii: Sequence[float]) -> float:
    """ACR: mean over all images of the radius if the prediction is correct, else 0 (Zhai et al. 2020)."""
    return float(np.mean(np.asarray(correct) * np.asarray(radii)))


def mean_radius(radii: Sequence[float]) -> float:
    """Mean radius over all images, wrong predictions included, abstentions as 0.

    The paper's released code reports this under the name of ACR.
    """
    return float(np.mean(radii))
