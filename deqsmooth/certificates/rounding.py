"""Numbers as text: every radius, share, time and cost is written by one function, wherever it is shown.

What is certified is rounded down, and the upper end of an interval up, so that no text says more than its value.
"""

from __future__ import annotations

import decimal
import math

_RADIUS_DIGITS = 3
_PERCENT_DIGITS = 1


def radius(value: float, *, up: bool = False) -> str:
    """A radius, or a mean of radii, with three decimals, rounded down or up.

    Example:
      >>> radius(0.48199), radius(0.48199, up=True)
      ('0.481', '0.482')
    """
    if not math.isfinite(value):
        return str(value)
    # Digits for the largest float; the shortest decimal number that stands for a float is exact enough.
    with decimal.localcontext(prec=400):
        return _rounded(decimal.Decimal(repr(float(value))), _RADIUS_DIGITS, up)


def percent(share: float, *, up: bool = False) -> str:
    """A share in percent with one decimal, rounded down or up; exact for the ratio of two counts.

    Example:
      >>> percent(29 / 100), percent(2 / 3), percent(2 / 3, up=True)
      ('29.0', '66.6', '66.7')
    """
    return _rounded(100 * decimal.Decimal(repr(float(share))), _PERCENT_DIGITS, up)


def errors(num: int, of: int) -> str:
    """A share of errors that was counted, in percent with two decimals, rounded to the nearest.

    Example:
      >>> errors(1, 300)
      '0.33 %'
    """
    return f"{100 * num / of:.2f} %"


def number(value: int, noun: str) -> str:
    """A number of things, with a noun whose plural ends in s.

    Example:
      >>> number(1, "image"), number(2000, "image")
      ('1 image', '2,000 images')
    """
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def at_most(value: float) -> str:
    """A number with two digits, rounded up; what lies within the rounding of a sum of it is that number.

    Example:
      >>> at_most(0.0421), at_most(0.3 - 0.1)
      ('0.043', '0.2')
    """
    with decimal.localcontext(prec=2, rounding=decimal.ROUND_CEILING):
        return f"{+decimal.Decimal(f'{value:.9g}'):g}"


def seconds(value: float) -> str:
    """A time per image in seconds, rounded to the nearest: two decimals, or one significant digit if it is less.

    Example:
      >>> seconds(9.976), seconds(0.0004)
      ('9.98', '0.0004')
    """
    return f"{value:.2f}" if value >= 0.005 or value == 0 else f"{value:.1g}"


def duration(value: float) -> str:
    """A time in seconds as whole seconds below two minutes, whole minutes below two hours, or hours.

    Example:
      >>> duration(119), duration(200), duration(9000)
      ('119 s', '3 min', '2.5 h')
    """
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def evaluations(value: float) -> str:
    """A number of evaluations, or their mean over images, rounded to a whole number.

    Example:
      >>> evaluations(62_300.4)
      '62,300'
    """
    return f"{value:,.0f}"


def _rounded(value: decimal.Decimal, digits: int, up: bool) -> str:
    direction = decimal.ROUND_CEILING if up else decimal.ROUND_FLOOR
    return str(value.quantize(decimal.Decimal(1).scaleb(-digits), direction))
