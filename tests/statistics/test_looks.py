"""Looks: their sizes, what is out of reach, and the coverage of every bound at its worst probabilities."""

import itertools

import numpy as np
import pytest
from scipy import stats

from deqsmooth.statistics import bounds, looks, robustness

RADII = (0.0, 0.25, 0.5, 0.75)


@pytest.mark.parametrize("total", [1, 99, 100, 126, 1000, 12_345, 100_000])
def test_geometric_sizes_grow_by_a_quarter(total):
    sizes = looks.geometric(total)
    assert sizes[-1] == total and sizes == tuple(sorted(set(sizes)))
    assert all(size % 100 == 0 for size in sizes[:-1])
    assert all(b - a <= max(100, 0.25 * a + 101) for a, b in itertools.pairwise(sizes))
    assert total < 125 or sizes[0] <= 200


@pytest.mark.parametrize(("trials", "total"), [(100, 1000), (500, 1000), (900, 1000), (2000, 10_000)])
def test_reach_is_that_of_beta_binomial(trials, total):
    for count in (trials // 2, 3 * trials // 4, 9 * trials // 10):
        further = stats.betabinom(total - trials, count + 0.5, trials - count + 0.5)
        # What is beyond has a tail of two standard deviations.
        assert 0.004 < further.sf(looks.within_reach(count, trials, total) - count) < 0.04
    assert looks.within_reach(trials, trials, total) == total


def test_grid_of_radii_decides():
    parts = looks.alphas(0.001, (1000, 10_000))

    def stops(count, radii=RADII):
        return looks.is_last(count, 1000, parts, sigma=0.5, stop_radii=radii)

    def reached(count):
        return robustness.radius(bounds.clopper_pearson_lower(count, 1000, parts[1000]), 0.5)

    # 0.25 is certified and 0.5 far away; 0.5 may be reached; the whole grid is certified; nothing can be.
    assert 0.25 < reached(775) < 0.5 and stops(775)
    assert 0.25 < reached(840) < 0.5 and not stops(840)
    assert reached(980) > 0.75 and stops(980) and not stops(980, (*RADII, 1.0))
    assert stops(450) and not stops(505)
    assert looks.is_last(505, 1000, parts, sigma=0.5, stop_radii=RADII, stop_radius=0.7) is False


def any_look(parts, lower, p):
    """Exact probability that the bound of any look is at least p: the distribution of the count, look by look."""
    chances, missed, before = {0: 1.0}, 0.0, 0
    for size in parts:
        added = stats.binom.pmf(np.arange(size - before + 1), size - before, p)
        after: dict[int, float] = {}
        for count, chance in chances.items():
            for more, probability in enumerate(added):
                after[count + more] = after.get(count + more, 0.0) + chance * probability
        missed += sum(chance for count, chance in after.items() if lower[size][count] >= p)
        chances = {count: chance for count, chance in after.items() if lower[size][count] < p}
        before = size
    return missed


@pytest.mark.parametrize("spending", looks.SPENDING)
def test_any_look_covers_worst_probability(spending):
    """Just below the values of the bounds, where a miss is most likely; stopping at once would break alpha."""
    alpha, sizes = 0.05, (10, 20, 40)
    parts = looks.alphas(alpha, sizes, spending)

    def largest(parts):
        lower = {n: [bounds.clopper_pearson_lower(k, n, part) for k in range(n + 1)] for n, part in parts.items()}
        return max(any_look(parts, lower, p) for own in lower.values() for p in own[1::3])

    assert 0.5 * alpha < largest(parts) <= alpha
    assert largest(dict.fromkeys(sizes, alpha)) > alpha


def test_images_at_once_cover_worst_probability():
    alpha, images, n = 0.05, 20, 60
    lower = [bounds.clopper_pearson_lower(k, n, alpha / images) for k in range(n + 1)]
    missed = [stats.binom.sf(k - 1, n, lower[k]) for k in range(1, n + 1)]
    assert 0.9 * alpha < 1 - (1 - max(missed)) ** images <= alpha


def test_paired_bound_covers_worst_probability():
    """Every lost sample was one of the class, and both bounds are at their worst."""
    alpha, alpha_pairs, n, num = 0.05, 0.025, 60, 40
    lower = np.array(
        [
            [
                bounds.paired_lower(k, n, bounds.Pairs(num, lost, alpha_pairs), alpha - alpha_pairs)
                for k in range(n + 1)
            ]
            for lost in range(num + 1)
        ]
    )
    found = []
    for p in [bounds.clopper_pearson_lower(k, n, alpha - alpha_pairs) for k in range(20, n + 1, 4)]:
        for q in [bounds.clopper_pearson_upper(lost, num, alpha_pairs) for lost in range(6)]:
            votes = stats.binom.pmf(np.arange(n + 1), n, p)
            pairs = stats.binom.pmf(np.arange(num + 1), num, q)
            found.append(float(pairs @ (lower >= p - q - 1e-12) @ votes) if p > q else 0.0)
    assert 0 < max(found) <= alpha
