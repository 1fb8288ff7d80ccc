"""Numbers as text that never states more than they are."""

from __future__ import annotations

import decimal
import math


def down(value: float, digits: int) -> str:
    """Decimal text that never states more than the value.

    Example:
      >>> down(0.9999, 3)
      '0.999'
    """
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def percent(share: float) -> str:
    """A share in percent with one decimal that never states more; of a ratio of counts the exact one.

    Example:
      >>> percent(29 / 100), percent(2 / 3)
      ('29.0', '66.6')
    """
    exact = 100 * decimal.Decimal(repr(float(share)))
    return str(exact.quantize(decimal.Decimal("0.1"), decimal.ROUND_FLOOR))
