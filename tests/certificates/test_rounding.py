"""Rounding, against integer arithmetic."""

import fractions

import pytest

from deqsmooth.certificates import rounding


def test_rounding_never_exceeds_the_value():
    assert rounding.down(0.99999, 3) == "0.999"
    assert rounding.down(1.0, 3) == "1.000"
    for i in range(2000):
        value = i / 977
        assert (
            fractions.Fraction(rounding.radius(value))
            <= value
            <= fractions.Fraction(rounding.radius(value, up=True))
        )


def test_rounded_radii_stay_when_rounded_again():
    """A radius that a file holds with three digits is shown with these, also where its float is a little less."""
    for thousandths in range(5000):
        text = f"{thousandths // 1000}.{thousandths % 1000:03}"
        assert rounding.radius(float(text)) == rounding.radius(float(text), up=True) == text


@pytest.mark.parametrize(("value", "text"), [(float("inf"), "inf"), (1e300, "1" + "0" * 300 + ".000")])
def test_extreme_radii_have_a_text(value, text):
    assert rounding.radius(value) == text


def test_percent_of_counts_is_exact():
    for total in (9, 40, 100, 120, 500):
        for count in range(total + 1):
            tenths = 1000 * count // total
            assert rounding.percent(count / total) == f"{tenths // 10}.{tenths % 10}"
            tenths = -(-1000 * count // total)
            assert rounding.percent(count / total, up=True) == f"{tenths // 10}.{tenths % 10}"
