"""Statements over a data set: certified accuracy, average radii, and comparisons of runs, from records alone."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from deqsmooth.certificates import bound, cohen, record
from deqsmooth.config import checks
from deqsmooth.statistics import bounds, robustness, significance

_MOST_RADII = 20

Image = record.Certificate | cohen.Published
"""The result of one image."""


@runtime_checkable
class Result(Protocol):
    """Anything with a verdict and a radius: a certificate, a published line, an attack's certificate."""

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is the label; None if the label is unknown."""
        ...

    @property
    def radius(self) -> float:
        """Certified radius."""
        ...


class Accuracy(NamedTuple):
    """Certified accuracy at a radius.

    Attributes:
      radius: the radius.
      share: of the images whose prediction is correct with at least this radius.
      lower: lower end of the interval over images.
      upper: upper end.
    """

    radius: float
    share: float
    lower: float
    upper: float


class Comparison(NamedTuple):
    """Two runs at a radius, image by image.

    Attributes:
      radius: the radius.
      num_images: images that both have.
      only_first: images that only the first certifies as correct there.
      only_second: images that only the second does.
      difference: certified accuracy of the second minus that of the first.
      lower: lower end of its interval over images.
      upper: upper end.
      p_value: two-sided, of the hypothesis that both kinds of image are equally likely.
    """

    radius: float
    num_images: int
    only_first: int
    only_second: int
    difference: float
    lower: float
    upper: float
    p_value: float


def radii(sigma: float, largest: float) -> list[float]:
    """The radii of a table: 0, 0.25, ... up to the first that no certificate can reach, at least to 0.5.

    Args:
      sigma: standard deviation of the noise; below 0.2 the step is 0.125. It doubles until there are at most
        20 radii.
      largest: largest radius that a certificate can have.

    Example:
      >>> radii(0.5, 0.8)
      [0.0, 0.25, 0.5, 0.75]
    """
    step = 0.25 if sigma >= 0.2 else 0.125
    while largest / step >= _MOST_RADII:
        step *= 2
    return [step * i for i in range(max(int(largest / step) + 1, 3))]


def certified_accuracy(found: Sequence[Result], radius: float) -> float:
    """Share of images whose prediction is correct with a certified radius of at least `radius`."""
    return sum(_is_certified(one, radius) for one in found) / len(found)


def average_certified_radius(found: Sequence[Result]) -> float:
    """ACR: mean over all images of the radius if the prediction is correct, else 0 (Zhai et al. 2020).

    Args:
      found: the images, whose labels are known.
    """
    return float(np.mean([one.radius if one.correct else 0.0 for one in found]))


def mean_radius(found: Sequence[Result]) -> float:
    """Mean radius over all images, wrong predictions included, abstentions as 0.

    The code that Gao et al. (2024) released reports this under the name of ACR.

    Args:
      found: the images.
    """
    return float(np.mean([one.radius for one in found]))


def accuracies(found: Sequence[Result], at: Sequence[float], alpha: float = 0.05) -> list[Accuracy]:
    """Certified accuracy at some radii, each with a confidence interval over images (Clopper & Pearson 1934).

    Args:
      found: the images, at least one, whose labels are known.
      at: the radii.
      alpha: largest probability that the interval of a radius misses.

    Returns:
      An accuracy for each radius, in their order.
    """
    return _shares([one.radius for one in found if one.correct], len(found), at, alpha)


def certified(found: Sequence[Image], at: Sequence[float], alpha: float = 0.05) -> list[Accuracy]:
    """Share of images that have a certificate of at least some radii, whether their class is right or not.

    Args:
      found: the images, whose labels need not be known.
      at: the radii.
      alpha: see `accuracies`.
    """
    return _shares([one.radius for one in found if one.prediction is not None], len(found), at, alpha)


def largest_radius(c: record.Certificate) -> float:
    """A radius that no certificate with these settings exceeds: that of unanimous votes, at the whole alpha."""
    return _unanimous(max(c.looks or (c.num_estimation,)), c.alpha, c.sigma)


def impossible(found: Sequence[Image]) -> str | None:
    """Says what the first radius, time or cost is that is no finite number from 0; None if there is none."""
    for one in found:
        for name in ("radius", "seconds", "evaluations"):
            value = getattr(one, name, 0)
            if not 0 <= value <= sys.float_info.max:
                return f"{name} of image {one.index} is {value}; it must be a finite number from 0"
    return None


def compare(first: Sequence[Image], second: Sequence[Image], radius: float, alpha: float = 0.05) -> Comparison:
    """Compares two runs on the images that both have, by the exact test of McNemar (1947).

    The interval combines those of both shares of images on which the runs disagree, each at half of alpha. It
    covers with at least its probability and is a little wide.

    Args:
      first: images of a run.
      second: images of the other.
      radius: the radius.
      alpha: largest probability that the interval misses.

    Raises:
      ValueError: they have no image in common, or give one of them different labels.
    """
    pairs = paired(first, second)
    verdicts = [(_is_certified(a, radius), _is_certified(b, radius)) for a, b in pairs]
    only_first, only_second = verdicts.count((True, False)), verdicts.count((False, True))
    lost, gained = (bounds.binomial_interval(x, len(pairs), alpha / 2) for x in (only_first, only_second))
    return Comparison(
        radius,
        len(pairs),
        only_first,
        only_second,
        (only_second - only_first) / len(pairs),
        gained[0] - lost[1],
        gained[1] - lost[0],
        significance.sign_test(only_first, only_second),
    )


def paired(first: Sequence[Image], second: Sequence[Image]) -> list[tuple[Image, Image]]:
    """What two runs say of the images that both have, in the order of the first.

    Raises:
      ValueError: there is none, or one has different labels.
    """
    by_index = {line.index: line for line in second}
    pairs = [(line, by_index[line.index]) for line in first if line.index in by_index]
    if not pairs:
        raise ValueError("the runs have no image in common")
    for one, other in pairs:
        if one.label != other.label:
            raise ValueError(
                f"image {one.index} has label {one.label} in one run and {other.label} in the other: "
                "they are not of the same data"
            )
    return pairs


def simultaneous_radii(found: Sequence[record.Certificate]) -> list[float]:
    """Radii that hold for all images together with probability at least 1 - alpha.

    Every bound is computed again from its counts, at alpha divided by the number of images (Bonferroni).

    Args:
      found: the certificates, at least one.

    Returns:
      A radius for each certificate, in their order.
    """
    return [_bounded(c, *_probabilities(c, num=len(found))).radius for c in found]


def under(formula: str, c: record.Certificate) -> record.Certificate:
    """The certificate that another formula makes of the same audited votes."""
    return _bounded(dataclasses.replace(c, bound=formula), *_probabilities(c, formula=formula))


def _bounded(c: record.Certificate, p_lower: float, p_upper: float | None) -> record.Certificate:
    """A certificate with other bounds, and what follows from them."""
    prediction = c.selected if bound.is_certified(p_lower, p_upper) else None
    return dataclasses.replace(
        c,
        p_lower=p_lower,
        p_upper=p_upper,
        prediction=prediction,
        radius=robustness.radius(p_lower, c.sigma, p_upper),
        correct=record.is_correct(prediction, c.label),
    )


@functools.cache
def _unanimous(trials: int, alpha: float, sigma: float) -> float:
    """Radius of unanimous votes, for settings that all images of a run share."""
    return robustness.radius(bounds.clopper_pearson_lower(trials, trials, alpha), sigma)


def two_sided(c: record.Certificate, share: float = 0.1) -> record.Certificate:
    """The certificate that the two-sided bound makes of the same votes.

    Args:
      c: with the bound of Clopper and Pearson, or none.
      share: of its `alpha_count` that the bound on the other classes takes.

    Raises:
      ValueError: it has another bound, whose audit or pairs would be lost.
    """
    if c.bound == bounds.NONE:
        return c
    checks.holds(c.bound == bounds.CLOPPER_PEARSON, "bound", repr(c.bound), f"{bounds.CLOPPER_PEARSON!r}")
    parted = dataclasses.replace(
        c, bound=bounds.TWO_SIDED, alpha_count=_alpha_count(c) * (1 - share), alpha_upper=_alpha_count(c) * share
    )
    return _bounded(parted, *_probabilities(parted))


def _probabilities(c: record.Certificate, num: int = 1, formula: str | None = None) -> tuple[float, float | None]:
    """The bounds of a certificate again, at a fraction of its alpha or by another formula of audited votes."""
    alpha_count = _alpha_count(c)
    audit = bounds.Audit(c.num_audit, c.mismatches, c.alpha_audit / num, formula or c.bound)
    return bound.probabilities(
        c.count,
        c.num_estimation,
        alpha_count / num,
        upper=bounds.others_upper(c.counts, c.selected, c.alpha_upper / num) if c.alpha_upper else None,
        noise_error=c.noise_error,
        audit=audit if c.bound in bounds.AUDITED else None,
        pairs=bounds.Pairs(c.num_pairs, c.lost, c.alpha_pairs / num) if c.bound == bounds.PAIRED else None,
    )


def _alpha_count(c: record.Certificate) -> float:
    """The part of alpha that the count takes, which old files do not name: there, looks have equal parts."""
    if c.alpha_count is not None:
        return c.alpha_count
    return (c.alpha - c.alpha_audit - c.alpha_pairs) / len(c.looks or (1,))


def _is_certified(one: Result, radius: float) -> bool:
    return bool(one.correct and one.radius >= radius)


def _shares(reached: Sequence[float], num: int, at: Sequence[float], alpha: float) -> list[Accuracy]:
    """Share of images, of so many, whose radius is at least each radius, given the radii of those that count."""
    ordered = np.sort(np.asarray(reached, float))
    counts = (len(ordered) - np.searchsorted(ordered, np.asarray(at, float))).tolist()
    ends = {count: bounds.binomial_interval(count, num, alpha) for count in set(counts)}
    return [Accuracy(radius, count / num, *ends[count]) for radius, count in zip(at, counts, strict=True)]
