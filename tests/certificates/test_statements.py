"""Statements over a data set: against enumeration and closed forms."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats
from support import certificate

from deqsmooth.certificates import cohen, statements
from deqsmooth.statistics import bounds, robustness, significance


def line(index, correct, radius, label=1):
    return cohen.Published(index, label, label if correct else label + 1, radius, correct, 0.0)


LINES = [line(0, True, 0.5), line(1, True, 0.2), line(2, False, 0.9), line(3, True, 0.5), line(4, False, 0.0)]


def test_certified_accuracy_and_its_interval():
    first, found, last = statements.accuracies(LINES, [0.0, 0.5, 2.0], 0.1)
    assert found.share == 0.4
    # Clopper and Pearson by their definition: at the ends an outcome so extreme has half of alpha.
    assert stats.binom.sf(1, 5, found.lower) == pytest.approx(0.05)
    assert stats.binom.cdf(2, 5, found.upper) == pytest.approx(0.05)
    assert first.share == 0.6 and last.lower == 0.0


def test_accuracies_equal_single_ones():
    """At radii in any order, on them and between; a radius counts where it is reached exactly."""
    at = [0.9, 0.0, 0.2, 0.21, 0.5, 2.0]
    found = statements.accuracies(LINES, at, 0.1)
    assert found == [statements.accuracies(LINES, [radius], 0.1)[0] for radius in at]
    assert [x.share for x in found] == [statements.certified_accuracy(LINES, radius) for radius in at]


def test_certified_share_ignores_labels():
    lines = [*LINES, cohen.Published(5, 1, None, 0.0, False, 0.0)]
    assert [x.share for x in statements.certified(lines, [0.0, 0.2, 0.6])] == [5 / 6, 4 / 6, 1 / 6]


@pytest.mark.parametrize("largest", [0.0, 0.8, 3.7, 40.0, 1e9, 1e300])
def test_radii_of_tables_are_few(largest):
    for sigma in (0.1, 0.5):
        radii = statements.radii(sigma, largest)
        assert 3 <= len(radii) <= 20 and radii[0] == 0.0 and largest < radii[-1] + radii[1]
        steps = radii[1] / (0.125 if sigma < 0.2 else 0.25)
        assert np.log2(steps) % 1 == 0 and np.allclose(np.diff(radii), radii[1])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"radius": float("nan")}, "radius of image 7 is nan; it must be a finite number from 0"),
        ({"seconds": float("inf")}, "seconds of image 7 is inf"),
        ({"evaluations": -5}, "evaluations of image 7 is -5"),
        ({"evaluations": 10**400}, "evaluations of image 7 is 1000"),
    ],
)
def test_impossible_numbers_are_named(change, problem):
    found = statements.impossible([certificate(3), certificate(7, **change)])
    assert found is None if problem is None else found.startswith(problem)


def test_no_bound_exceeds_the_largest_radius():
    """Unanimous votes under every formula, the one that is not valid included."""
    plain = certificate(
        0, count=1000, num_estimation=1000, sigma=0.5, alpha=0.01, alpha_audit=0.005, alpha_count=0.005,
        num_audit=300, mismatches=0, bound="exact", looks=None,
    )  # fmt: skip
    largest = statements.largest_radius(plain)
    assert largest == pytest.approx(robustness.radius(0.01 ** (1 / 1000), 0.5))
    for name in bounds.AUDITED:
        assert 0 < statements.under(name, plain).radius < largest
    assert statements.largest_radius(dataclasses.replace(plain, num_estimation=60, looks=(60, 1000))) == largest


def test_averages_by_hand():
    found = [line(0, True, 0.5), line(1, True, 0.25), line(2, False, 0.75), line(3, False, 0.0)]
    assert statements.certified_accuracy(found, 0.0) == 0.5
    assert statements.certified_accuracy(found, 0.25) == 0.5
    assert statements.certified_accuracy(found, 0.2500001) == 0.25
    assert statements.average_certified_radius(found) == 0.1875
    assert statements.mean_radius(found) == 0.375


@pytest.mark.parametrize(("wins", "losses"), [(0, 3), (5, 1), (4, 4), (0, 0)])
def test_sign_test_equals_enumeration(wins, losses):
    tosses = [sum(toss) for toss in itertools.product([0, 1], repeat=wins + losses)]
    as_rare = [abs(sum_ - (wins + losses) / 2) >= abs(wins - losses) / 2 for sum_ in tosses]
    assert significance.sign_test(wins, losses) == pytest.approx(np.mean(as_rare))


def test_runs_are_compared_on_common_images():
    other = [line(3, True, 0.1), line(0, True, 0.6), line(2, True, 0.9), line(1, True, 0.3), line(9, True, 0.9)]
    found = statements.compare(LINES, other, 0.25)
    assert (found.num_images, found.only_first, found.only_second) == (4, 1, 2)
    assert found.difference == 0.25 and found.lower < 0.25 < found.upper
    swapped = statements.compare(other, LINES, 0.25)
    assert (swapped.lower, swapped.upper) == (-found.upper, -found.lower) and swapped.p_value == found.p_value
    with pytest.raises(ValueError, match="no image in common"):
        statements.compare(LINES, [line(7, True, 0.1)], 0.25)
    with pytest.raises(ValueError, match="image 3 has label 1 in one run and 4 in the other"):
        statements.compare(LINES, [line(3, True, 0.1, label=4)], 0.25)


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.1, 0.3), (0.0, 0.05)])
def test_difference_interval_covers_the_truth(lost, gained):
    """Every outcome of 30 images, weighted by its probability."""
    missed = 0.0
    for a in range(31):
        for b in range(31 - a):
            first = [line(i, i < a, 1.0) for i in range(30)]
            second = [line(i, a <= i < a + b, 1.0) for i in range(30)]
            found = statements.compare(first, second, 0.5, 0.1)
            if not found.lower <= gained - lost <= found.upper:
                missed += stats.multinomial.pmf([a, b, 30 - a - b], 30, [lost, gained, 1 - lost - gained])
    assert missed <= 0.1


def test_simultaneous_radii_divide_alpha():
    common = {"count": 960, "num_estimation": 1000, "sigma": 0.5, "alpha": 0.01, "label": 1, "alpha_pairs": 0.0}
    plain = certificate(
        0, sampler="independent", bound="clopper-pearson", looks=None, alpha_audit=0.0, alpha_count=0.01, **common
    )
    looked = dataclasses.replace(plain, looks=(500, 1000), alpha_count=0.008)
    before = dataclasses.replace(looked, alpha_count=None)
    serial = certificate(
        1, sampler="serial", bound="exact", looks=None, alpha_audit=0.005, alpha_count=0.005, num_audit=300,
        mismatches=2, **common,
    )  # fmt: skip
    radii = statements.simultaneous_radii([plain, looked, before, serial])
    for place, alpha in enumerate((0.01 / 4, 0.008 / 4, 0.005 / 4)):
        assert radii[place] == robustness.radius(bounds.clopper_pearson_lower(960, 1000, alpha), 0.5)
    lower = bounds.audited_lower(960, 1000, bounds.Audit(300, 2, 0.005 / 4), 0.005 / 4)
    assert radii[3] == robustness.radius(lower, 0.5)
    alone = bounds.audited_lower(960, 1000, bounds.Audit(300, 2, 0.005), 0.005)
    assert statements.simultaneous_radii([serial]) == [robustness.radius(alone, 0.5)]
    # A report shows a file that does not verify, too.
    changed = dataclasses.replace(before, num_estimation=990)
    lower = bounds.clopper_pearson_lower(960, 990, 0.005)
    assert statements.simultaneous_radii([changed]) == [robustness.radius(lower, 0.5)]
