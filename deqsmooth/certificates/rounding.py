"""Rounding: numbers as text that is never above the value, or never below it."""

from __future__ import annotations

import decimal
import math


def down(value: float, digits: int) -> str:
    """Decimal text of a number, rounded down.

    Example:
      >>> down(0.9999, 3)
      '0.999'
    """
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def percent(share: float, *, up: bool = False) -> str:
    """A share in percent with one decimal, rounded down or up; exact for the ratio of two counts.

    Example:
      >>> percent(29 / 100), percent(2 / 3), percent(2 / 3, up=True)
      ('29.0', '66.6', '66.7')
    """
    exact = 100 * decimal.Decimal(repr(float(share)))
    return str(exact.quantize(decimal.Decimal("0.1"), decimal.ROUND_CEILING if up else decimal.ROUND_FLOOR))
