"""Rounding, against integer arithmetic."""

import fractions

import pytest

from deqsmooth.certificates import rounding


def test_rounding_never_exceeds_the_value():
    assert rounding.radius(0.99999) == "0.999"
    assert rounding.radius(1.0) == "1.000"
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


def test_costs_keep_a_digit():
    assert [rounding.seconds(x) for x in (0.0, 0.0004, 0.0049, 0.005, 0.41, 9.976, 120.0)] == [
        "0.00", "0.0004", "0.005", "0.01", "0.41", "9.98", "120.00",
    ]  # fmt: skip
    assert rounding.evaluations(303_000.4) == "303,000" and rounding.errors(1, 300) == "0.33 %"
    assert [rounding.duration(x) for x in (119.4, 120, 7199, 9000)] == ["119 s", "2 min", "120 min", "2.5 h"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.05 + 0.001, "0.051"), (0.05301, "0.054"), (1.0, "1"), (0.0, "0"), (12.34, "13")]
)
def test_expected_number_is_rounded_up(value, text):
    assert rounding.at_most(value) == text


def test_one_thing_is_singular():
    assert [rounding.number(value, "image") for value in (0, 1, 2, 1000)] == [
        "0 images", "1 image", "2 images", "1,000 images",
    ]  # fmt: skip
