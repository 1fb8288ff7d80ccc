"""Statements over a data set: from the certificates of images to what can be said of all of them.

Needs no more than the certificates: neither JAX nor the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deqsmooth.certificates import cohen, record
from deqsmooth.statistics import bounds

Line = record.Certificate | cohen.Published
"""What is known of an image."""


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
      only_first: images that the first alone certifies as correct there.
      only_second: images that the second alone does.
      difference: certified accuracy of the second less that of the first.
      lower: lower end of its interval for the images that these were drawn from.
      upper: upper end.
      p_value: of the hypothesis that an image is as likely to be the one as the other, two-sided.
    """

    radius: float
    num_images: int
    only_first: int
    only_second: int
    difference: float
    lower: float
    upper: float
    p_value: float


def accuracy(found: Sequence[Line], radius: float, alpha: float = 0.05) -> Accuracy:
    """Certified accuracy, with an interval for the images that these were drawn from (Clopper & Pearson 1934).

    Args:
      found: the images.
      radius: the radius.
      alpha: probability that the interval misses, at most.
    """
    reached = sum(_is_certified(line, radius) for line in found)
    lower, upper = bounds.binomial_interval(reached, len(found), alpha)
    return Accuracy(radius, reached / len(found), lower, upper)


def compare(first: Sequence[Line], second: Sequence[Line], radius: float, alpha: float = 0.05) -> Comparison:
    """Compares two runs on the images that both have, by the exact test of McNemar (1947).

    The interval is that of both shares of images on which they disagree, each at half of alpha: it covers with at
    least its probability, and is a little wide.

    Args:
      first: images of a run.
      second: images of the other.
      radius: the radius.
      alpha: probability that the interval misses, at most.

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
        bounds.sign_test(only_first, only_second),
    )


def paired(first: Sequence[Line], second: Sequence[Line]) -> list[tuple[Line, Line]]:
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
    """Radii that hold for all the images at once, with the probability at which each certificate holds alone.

    Every bound is computed again from its counts, at alpha divided by the number of images (Bonferroni).
    """
    return [bounds.radius(_p_lower(certificate, len(found)), certificate.sigma) for certificate in found]


def _p_lower(certificate, num_images) -> float:
    alpha_count = certificate.alpha_count
    if alpha_count is None:
        alpha_count = (certificate.alpha - certificate.alpha_audit) / len(certificate.looks or (1,))
    return bounds.lower_bound(
        certificate.count,
        certificate.num_estimation,
        alpha_count=alpha_count / num_images,
        mismatches=certificate.mismatches,
        audited=None if certificate.bound == "clopper-pearson" else certificate.num_audit,
        alpha_audit=certificate.alpha_audit / num_images,
        bound=certificate.bound,
    )


def _is_certified(line, radius) -> bool:
    return bool(line.correct and line.radius >= radius)
