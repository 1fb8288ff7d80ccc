"""What more votes say of bounds: independent votes of the very classifier, or an audit of all serial votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deqsmooth.certificates import record
from deqsmooth.statistics import bounds


def intervals(
    found: Sequence[record.Certificate], independent: Sequence[record.Certificate]
) -> list[tuple[float, float]]:
    """Intervals of the probabilities that certificates bound, each end missing with their alpha at most.

    Args:
      found: certificates.
      independent: certificates of independent sampling of the classifier that they are about, of the same images.
    """
    counts = {c.index: c.counts for c in independent}
    return [
        bounds.binomial_interval(counts[c.index][c.selected], sum(counts[c.index]), 2 * c.alpha) for c in found
    ]


def above(found: Sequence[record.Certificate], independent: Sequence[record.Certificate]) -> int:
    """How many lower bounds are above what independent votes of the same classifier leave possible.

    A valid bound is, for an image, with probability 2 alpha at most: its own alpha, and that of the upper end of
    the interval (Clopper & Pearson 1934).

    Args:
      found: see `intervals`.
      independent: see `intervals`.
    """
    return sum(c.p_lower > upper for c, (_, upper) in zip(found, intervals(found, independent), strict=True))


def gaps(found: Sequence[record.Certificate], wrong: Mapping[int, int]) -> list[int]:
    """The bound of each audit on the wrong votes of an image, less their number.

    Args:
      found: certificates of the serial sampler.
      wrong: numbers of wrong votes by image.
    """
    return [
        bounds.hypergeometric_upper(c.mismatches, c.num_audit, c.count, c.alpha_audit) - wrong[c.index]
        for c in found
    ]
