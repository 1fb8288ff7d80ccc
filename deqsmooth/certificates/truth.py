"""Checks of bounds against the truth, which independent votes or an audit of all serial votes show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deqsmooth.certificates import record
from deqsmooth.statistics import bounds


def intervals(
    found: Sequence[record.Certificate], independent: Sequence[record.Certificate]
) -> list[tuple[float, float]]:
    """Clopper-Pearson intervals of the probabilities that certificates bound, from independent votes.

    Each end fails with probability at most the alpha of the certificate.

    Args:
      found: certificates.
      independent: certificates of the same images by independent sampling of the base classifier of `found`.
    """
    counts = {c.index: c.counts for c in independent}
    return [
        bounds.binomial_interval(counts[c.index][c.selected], sum(counts[c.index]), 2 * c.alpha) for c in found
    ]


def above(found: Sequence[record.Certificate], independent: Sequence[record.Certificate]) -> int:
    """The number of lower bounds above the upper ends of `intervals`.

    For a valid bound this happens on an image with probability at most 2 alpha: its own alpha, and that of the
    upper end of the interval.

    Args:
      found: see `intervals`.
      independent: see `intervals`.
    """
    return sum(c.p_lower > upper for c, (_, upper) in zip(found, intervals(found, independent), strict=True))


def gaps(found: Sequence[record.Certificate], wrong: Mapping[int, int]) -> list[int]:
    """For each image, the audit's upper bound on the number of wrong votes minus the true number.

    Args:
      found: certificates of the serial sampler.
      wrong: numbers of wrong votes by image.
    """
    return [
        bounds.hypergeometric_upper(c.mismatches, c.num_audit, c.count, c.alpha_audit) - wrong[c.index]
        for c in found
    ]
