"""Two-sided binomial tests: whether one of two counts is significantly larger than the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy


def sign_test(only_first: int, only_second: int) -> float:
    """Two-sided p-value of the hypothesis that a counted case falls into either count with probability 1/2.

    If the counts are the images that only one of two runs certifies, this is the exact test of McNemar (1947).

    Args:
      only_first: cases that fall into the first count.
      only_second: cases that fall into the second count.

    Example:
      >>> sign_test(8, 1), sign_test(0, 0)
      (0.0390625, 1.0)
    """
    wins = only_first + only_second
    return float(scipy.stats.binomtest(only_first, wins, 0.5).pvalue) if wins else 1.0


def smoothed_class(counts: Sequence[int], alpha: float, unknown: int = 0) -> int | None:
    """Returns the class of the smoothed classifier, or None if the votes do not separate it from the runner-up.

    A two-sided binomial test compares the two classes with the most votes (Cohen et al. 2019, PREDICT). A class
    that is not the smoothed classifier's is returned with probability at most alpha (Hung & Fithian 2019).

    Args:
      counts: votes by class.
      alpha: largest probability of returning a wrong class.
      unknown: further votes, each of which may be for any class; they are taken to be for the runner-up.

    Example:
      >>> smoothed_class([3, 80, 17], 0.001), smoothed_class([3, 50, 47], 0.001)
      (1, None)
      >>> smoothed_class([3, 80, 17], 0.001, unknown=40) is None
      True
    """
    second, first = np.argsort(counts, kind="stable")[-2:]
    won = int(counts[first])
    both = won + int(counts[second]) + unknown
    certain = 2 * won > both and scipy.stats.binomtest(won, both, 0.5).pvalue <= alpha
    return int(first) if certain else None
