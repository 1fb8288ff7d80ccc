"""Rounding, against integer arithmetic."""

from deqsmooth.certificates import rounding


def test_rounding_never_exceeds_the_value():
    assert rounding.down(0.99999, 3) == "0.999"
    assert rounding.down(1.0, 3) == "1.000"


def test_percent_of_counts_is_exact():
    for total in (9, 40, 100, 120, 500):
        for count in range(total + 1):
            tenths = 1000 * count // total
            assert rounding.percent(count / total) == f"{tenths // 10}.{tenths % 10}"
            tenths = -(-1000 * count // total)
            assert rounding.percent(count / total, up=True) == f"{tenths // 10}.{tenths % 10}"
