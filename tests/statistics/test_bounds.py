"""Bounds against scipy, brute force, enumeration of every outcome, and simulated serial chains."""

import numpy as np
import pytest
from scipy import stats

from deqsmooth.statistics import bounds, robustness
from deqsmooth.statistics.bounds import Audit


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (9, 10), (10, 10), (510, 1000), (9987, 10_000)])
def test_clopper_pearson_is_that_of_scipy(k, n, alpha):
    interval = (
        stats.binomtest(k, n).proportion_ci(confidence_level=1 - 2 * alpha, method="exact")
        if (alpha < 0.5)
        else None
    )
    if interval is not None:
        assert bounds.clopper_pearson_lower(k, n, alpha) == pytest.approx(interval.low, rel=1e-9)
        assert bounds.clopper_pearson_upper(k, n, alpha) == pytest.approx(interval.high, rel=1e-9)
    lower = bounds.clopper_pearson_lower(k, n, alpha)
    # The bound is where seeing this many successes or more has probability alpha.
    assert lower == 0 if k == 0 else stats.binom.sf(k - 1, n, lower) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_clopper_pearson_miscoverage_is_below_alpha(alpha):
    n = 50
    lower = np.array([bounds.clopper_pearson_lower(k, n, alpha) for k in range(n + 1)])
    for p in np.linspace(0.01, 0.99, 99):
        miss = stats.binom.pmf(np.arange(n + 1), n, p)[lower > p].sum()
        assert miss <= alpha * (1 + 1e-9)


@pytest.mark.parametrize("alpha", [0.0005, 0.05])
@pytest.mark.parametrize(("population", "drawn"), [(1, 1), (12, 5), (30, 30), (40, 1), (25, 0)])
def test_hypergeometric_bound_is_largest_plausible_number(population, drawn, alpha):
    for marked in range(drawn + 1):
        plausible = [
            total
            for total in range(marked, population - (drawn - marked) + 1)
            if stats.hypergeom(population, total, drawn).cdf(marked) > alpha
        ]
        assert bounds.hypergeometric_upper(marked, drawn, population, alpha) == max(plausible)


def test_hypergeometric_miscoverage_is_below_alpha():
    population, drawn, alpha = 40, 15, 0.05
    upper = [bounds.hypergeometric_upper(m, drawn, population, alpha) for m in range(drawn + 1)]
    for total in range(population + 1):
        probabilities = stats.hypergeom(population, total, drawn).pmf(np.arange(drawn + 1))
        assert probabilities[np.array(upper) < total].sum() <= alpha * (1 + 1e-9)


def miscoverage(bound, p, n, audited, alpha, wrongly):
    """Exact probability that the audited bound exceeds p, over f's labels and over the audit's draw.

    Of the n samples, Y ~ Binomial(n, p) have label A under f. The serial chain gives A to `wrongly(Y)`
    others, too: the adversary sees all of f's labels, which no real chain can beat.
    """
    miss = 0.0
    for right in range(n + 1):
        wrong = min(wrongly(right), n - right)
        count = right + wrong
        drawn = min(audited, count)
        for mismatches in range(min(drawn, wrong) + 1):
            lower = bounds.audited_lower(count, n, Audit(drawn, mismatches, alpha / 2, bound), alpha / 2)
            if lower > p:
                draw = stats.hypergeom(count, wrong, drawn).pmf(mismatches) if count else 1.0
                miss += stats.binom.pmf(right, n, p) * draw
    return miss


@pytest.mark.parametrize("p", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("wrongly", [lambda y: 0, lambda y: 2, lambda y: y % 5, lambda y: 30])
@pytest.mark.parametrize("bound", ["exact", "paper"])
def test_audited_bounds_hold_against_adversary(bound, p, wrongly):
    alpha = 0.1
    assert miscoverage(bound, p, 30, 8, alpha, wrongly) <= alpha


def test_reference_code_formula_misses_often():
    # Some votes flipped towards A, and the audit sees only that a share of them is wrong: the proportion
    # that is bounded stays that of the flipped votes.
    assert miscoverage("reference-code", 0.6, 30, 8, 0.1, lambda y: 9) > 0.3


@pytest.mark.parametrize(
    ("p", "flipped", "failures"), [(0.7, 0.02, 1629), (0.9, 0.01, 986), (0.97, 0.005, 774), (0.99, 0.005, 1871)]
)
def test_coverage_on_simulated_serial_chains(p, flipped, failures):
    """2,000 chains of N 10,000 with K 400: the sound bound never fails, the released code's does."""
    rng = np.random.default_rng(0)
    n, audited, alpha, runs = 10_000, 400, 0.001, 2000
    right = rng.binomial(n, p, runs)
    wrong = np.minimum(int(flipped * n), n - right)
    mismatches = rng.hypergeometric(wrong, right, audited)
    failed = dict.fromkeys(("exact", "reference-code"), 0)
    cases, times = np.unique(np.stack([right, wrong, mismatches]), axis=1, return_counts=True)
    for (y, w, m), repeated in zip(cases.T.tolist(), times.tolist(), strict=True):
        for bound in failed:
            lower = bounds.audited_lower(y + w, n, Audit(audited, m, alpha / 2, bound), alpha / 2)
            failed[bound] += repeated * (lower > p)
    assert failed["exact"] == 0
    # The numbers of another simulation of the same chains; four binomial standard deviations.
    spread = 4 * np.sqrt(2 * failures * (1 - failures / runs))
    assert abs(failed["reference-code"] - failures) < spread + 0.02 * runs


@pytest.mark.parametrize(
    ("audited", "expected"), [(400, 0.995), (800, 1.120), (1600, 1.231), (4000, 1.368), (8000, 1.477)]
)
def test_audited_cap_equals_published_table(audited, expected):
    lower = bounds.lower_bound(10_000, 10_000, 0.0005, audit=Audit(audited, 0, 0.0005))
    assert robustness.radius(lower, 0.5) == pytest.approx(expected, abs=0.003)


def test_standard_cap_equals_published_value():
    assert robustness.radius(bounds.lower_bound(10_000, 10_000, 0.001), 0.5) == pytest.approx(1.6, abs=1e-3)


def test_exact_bound_is_tighter_than_paper():
    for mismatches in (0, 3, 20):
        exact, paper = (
            bounds.audited_lower(7000, 10_000, Audit(400, mismatches, 0.0005, bound), 0.0005)
            for bound in ("exact", "paper")
        )
        assert paper < exact < paper + 0.005


def test_full_audit_counts_exactly():
    census = bounds.audited_lower(900, 1000, Audit(900, 50, 0.0005), 0.0005)
    assert census == bounds.clopper_pearson_lower(850, 1000, 0.0005)
    for bound in ("exact", "paper"):
        assert bounds.audited_lower(900, 1000, Audit(0, 0, 0.0005, bound), 0.0005) == 0.0
        assert bounds.audited_lower(0, 1000, Audit(0, 0, 0.0005, bound), 0.0005) == 0.0


def test_radius_inverts_normal_distribution():
    assert robustness.radius(stats.norm.cdf(1.5), 0.25) == pytest.approx(0.375, rel=1e-12)
    assert robustness.radius(0.5, 1.0) == robustness.radius(0.2, 1.0) == 0.0


def test_an_unknown_bound_is_refused():
    with pytest.raises(ValueError, match="'exakt'"):
        bounds.audited_lower(9, 10, Audit(5, 0, 0.1, "exakt"), 0.1)
