"""Confidence bands: how far a distribution over images may be from that of a sample, everywhere at once."""

from __future__ import annotations

import math


def half_width(num: int, alpha: float) -> float:
    """Half of the width of a band around an empirical distribution function (Massart 1990).

    With probability at least 1 - alpha no share of the images is off by more than this, at any value at once,
    whatever the distribution (Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant).

    Args:
      num: images drawn independently, at least 1.
      alpha: largest probability that the distribution leaves the band anywhere.

    Example:
      >>> round(half_width(500, 0.05), 4)
      0.0607
    """
    return math.sqrt(math.log(2 / alpha) / (2 * num))
