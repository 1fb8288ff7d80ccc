"""The probability that a bound exceeds the truth, for every bound that the program can print, by enumeration.

The probability that a lower bound is above p grows with p until p passes a value of the bound, and then falls. So
the largest is found just below these values: a row looks there, and counts a bound that is equal to p as above it.
With looks, every look counts, whichever rule stops the sampling. The probabilities are sums over all counts; only
tails below 1e-15 are left out, and no votes are drawn.

    python benchmarks/coverage.py > results/coverage/table.txt
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tyro
from scipy import special, stats

from deqsmooth.certificates import bound
from deqsmooth.statistics import bounds, looks, robustness
from deqsmooth.statistics.bounds import Audit

_TAIL = 1e-15
# Relative error of the sums.
_ERROR = 1e-9


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compute how often bounds exceed the truth.

    Attributes:
      alpha: failure probability of a bound.
      sizes: numbers of samples; audited votes have settings of their own.
      most: largest number of probabilities of a row with looks; if there are more values of the bound, every so
        many are looked at.
    """

    alpha: float = 0.001
    sizes: tuple[int, ...] = (100, 1000, 10_000)
    most: int = 400


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      name: of the bound.
      where: its settings.
      num: number of probabilities that were looked at.
      largest: largest probability that the bound exceeds the truth.
      at: the truth where it does.
      is_valid: whether it must be at most alpha.
    """

    name: str
    where: str
    num: int
    largest: float
    at: float
    is_valid: bool = True


@functools.cache
def lower_bounds(trials: int, alpha: float) -> np.ndarray:
    """Clopper-Pearson bound of every count from 0 to `trials`."""
    return np.array([bounds.clopper_pearson_lower(count, trials, alpha) for count in range(trials + 1)])


def worst(values: Sequence[float], miss: Callable[[float], float]) -> tuple[int, float, float]:
    """How many values were looked at, the largest probability of a miss, and where it is."""
    found = [miss(p) for p in values]
    place = int(np.argmax(found))
    return len(found), found[place], values[place]


def standard(trials: int, alpha: float) -> tuple[int, float, float]:
    """Clopper-Pearson from independent votes."""
    lower = lower_bounds(trials, alpha)[1:]
    missed = stats.binom.sf(np.arange(trials), trials, lower)
    place = int(np.argmax(missed))
    return trials, float(missed[place]), float(lower[place])


def any_look(parts: dict[int, float], p: float) -> float:
    """The probability that the bound of any look is p or more."""
    chance, first, before, missed = np.ones(1), 0, 0, 0.0
    for size, part in parts.items():
        added = stats.binom.pmf(np.arange(size - before + 1), size - before, p)
        used = np.flatnonzero(added > _TAIL)
        chance = np.convolve(chance, added[used[0] : used[-1] + 1])
        first, before = first + int(used[0]), size
        goal = int(np.searchsorted(lower_bounds(size, part), p))
        cut = max(0, goal - first)
        missed += float(chance[cut:].sum())
        chance = chance[:cut]
        if not len(chance):
            return missed
        chance = np.where(chance > _TAIL, chance, 0)
        kept = np.flatnonzero(chance)
        chance, first = chance[kept[0] : kept[-1] + 1], first + int(kept[0])
    return missed


def with_looks(parts: dict[int, float], most: int) -> tuple[int, float, float]:
    """Looks that share alpha."""
    values = np.unique(np.concatenate([lower_bounds(size, part)[1:] for size, part in parts.items()]))
    return worst(values[:: -(-len(values) // most)].tolist(), lambda p: any_look(parts, p))


def audited(formula: str, trials: int, num: int, alpha: float) -> tuple[int, float, float]:
    """Audited votes, of which an adversary who knows the classes of the reference makes the most harmful wrong."""

    def lower(count: int, mismatches: int) -> float:
        audit = Audit(min(num, count), mismatches, alpha / 2, formula)
        return bounds.audited_lower(count, trials, audit, alpha / 2)

    table = np.array([[lower(count, min(m, count)) for m in range(num + 1)] for count in range(trials + 1)])
    right, wrong, seen = np.ogrid[: trials + 1, : trials + 1, : num + 1]
    count = np.minimum(right + wrong, trials)
    drawn = np.where(right + wrong <= trials, stats.hypergeom.pmf(seen, count, wrong, np.minimum(num, count)), 0)
    drawn = np.nan_to_num(drawn)
    bound = table[count[:, :, 0], :]

    def miss(p: float) -> float:
        return float(stats.binom.pmf(np.arange(trials + 1), trials, p) @ (drawn * (bound >= p)).sum(2).max(1))

    values = np.unique(table[table > 0])
    return worst(values[values < 1][:: max(1, len(values) // 300)].tolist(), miss)


def audited_large(formula: str, trials: int, num: int, share: float, alpha: float) -> tuple[int, float, float]:
    """Audited votes of which a share of all samples is wrong, at probabilities of the class from 0.6 to 0.995."""
    wrong = int(share * trials)

    @functools.cache
    def surviving(mismatches: int) -> float:
        return 1 - bounds.clopper_pearson_upper(mismatches, num, alpha / 2)

    def is_above(right: int, mismatches: int, p: float) -> bool:
        count = right + wrong
        if formula == "exact":
            counted, of = count - bounds.hypergeometric_upper(mismatches, num, count, alpha / 2), trials
        else:
            kept = surviving(mismatches)
            counted, of = int(count * kept), trials if formula == "paper" else int(trials * kept)
        return counted >= goal(of, p)

    @functools.cache
    def goal(of: int, p: float) -> int:
        return bounds.least_count(of, alpha / 2, p)

    def miss(p: float) -> float:
        missed, limit = 0.0, trials - wrong
        counts = np.arange(limit + 1)
        chance = stats.binom.pmf(counts, trials, p)
        for mismatches in range(num + 1):
            low, high = 0, limit + 1
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if is_above(middle, mismatches, p) else (middle + 1, high)
            hit = counts[low:]
            seen = stats.hypergeom.pmf(mismatches, hit + wrong, wrong, num)
            missed += float(chance[low:] @ seen)
            if mismatches > num * wrong / (trials * p) + 12 * (num * share) ** 0.5 + 2:
                break
        return missed

    return worst([0.6, 0.7, 0.8, 0.9, 0.97, 0.995 - share], miss)


def paired(trials: int, num: int, alpha: float) -> tuple[int, float, float]:
    """Votes of another classifier, and pairs that bound the share that is lost; all lost samples had the class."""
    alpha_pairs = alpha / 10
    lower = lower_bounds(trials, alpha - alpha_pairs)
    upper = np.array([bounds.clopper_pearson_upper(lost, num, alpha_pairs) for lost in range(num + 1)])
    lost = np.arange(num + 1)

    def miss(p: float, q: float) -> float:
        goals = np.searchsorted(lower, p - q + upper)
        return float(stats.binom.pmf(lost, num, q) @ stats.binom.sf(goals - 1, trials, p))

    pairs = [(p, q) for p in lower[trials // 2 :: max(1, trials // 100)] for q in upper[: num // 4 : 2]]
    found = [miss(p, q) for p, q in pairs]
    place = int(np.argmax(found))
    return len(found), found[place], float(np.subtract(*pairs[place]))


def two_sided(trials: int, alpha: float, others: int) -> tuple[int, float, float]:
    """A bound on the class and on each of so many others; misses of all of them add up, at their worst truths."""
    num, lower, at = standard(trials, 0.9 * alpha)
    return num, lower + others * standard(trials, 0.1 * alpha / others)[1], at


def two_sided_radius(trials: int, alpha: float, steps: int) -> tuple[int, float, float]:
    """The radius from both sides, of three classes whose probabilities are multiples of 1 / steps."""
    counts = np.array([(a, b, trials - a - b) for a in range(trials + 1) for b in range(trials + 1 - a)])
    radii = np.array([_radius(tuple(one), alpha) for one in counts.tolist()])
    logs = special.gammaln(trials + 1) - special.gammaln(counts + 1).sum(1)
    points = [(a, b, steps - a - b) for a in range(1, steps) for b in range(1, steps - a) if steps - a - b <= b]

    def miss(point: tuple[int, ...]) -> float:
        p = np.array(point) / steps
        truth = robustness.radius(p[0], 1.0, p[1]) if p[0] > p[1] else 0.0
        return float(np.exp(logs + counts @ np.log(p)) @ (radii > truth))

    found = [miss(point) for point in points]
    place = int(np.argmax(found))
    return len(points), found[place], points[place][0] / steps


def _radius(counts: tuple[int, ...], alpha: float) -> float:
    """Radius of the first class, for noise of deviation 1; 0 if it is not certified."""
    upper = bounds.others_upper([*counts, 0], 0, 0.1 * alpha)
    lower, upper = bound.probabilities(counts[0], sum(counts), 0.9 * alpha, upper=upper)
    return robustness.radius(lower, 1.0, upper)


def rows(arguments: Benchmark) -> Iterator[Row]:
    """Every row of the table."""
    alpha = arguments.alpha
    for trials in arguments.sizes:
        yield Row("clopper-pearson", f"N {trials:,}", *standard(trials, alpha))
    for trials in arguments.sizes:
        for name, sizes in (
            ("3 looks", (trials // 20, trials // 5, trials)),
            ("geometric looks", looks.geometric(trials)),
        ):
            for spending in looks.SPENDING:
                parts = looks.alphas(alpha, sizes, spending)
                found = with_looks(parts, arguments.most)
                yield Row(f"{name}, {spending}", f"N {trials:,}", *found)
    for trials in arguments.sizes:
        yield Row("two-sided, 10 classes", f"N {trials:,}, sum of misses", *two_sided(trials, alpha, 9))
    yield Row("two-sided, 3 classes", "N 60, false radius", *two_sided_radius(60, alpha, 60))
    for trials in arguments.sizes:
        yield Row("paired", f"N {trials:,}, {trials // 5:,} pairs", *paired(trials, trials // 5, alpha))
    for trials in arguments.sizes:
        for images in (10, 1000):
            num, one, at = standard(trials, alpha / images)
            yield Row(f"{images:,} images at once", f"N {trials:,}", num, 1 - (1 - one) ** images, at)
    for formula, entry in bounds.AUDITED.items():
        where = "N 60, K 15, adversary"
        yield Row(f"audited, {formula}", where, *audited(formula, 60, 15, alpha), entry.is_valid)
    for formula, entry in bounds.AUDITED.items():
        for share in (0.0, 0.005, 0.02):
            found = audited_large(formula, 10_000, 400, share, alpha)
            yield Row(f"audited, {formula}", f"N 10,000, K 400, {share:.1%} wrong", *found, entry.is_valid)


def main() -> int:
    """Prints the table; the exit status is 1 if a valid bound exceeds the truth more often than alpha."""
    arguments = tyro.cli(Benchmark)
    print(f"Largest probability that the bound exceeds the truth; alpha {arguments.alpha:g}\n")
    print(f"{'bound':<34}{'settings':<32}{'values':>7}{'largest':>12}{'of alpha':>10}{'at p':>9}")
    broken = 0
    for row in rows(arguments):
        share = row.largest / arguments.alpha
        broken += row.is_valid and share > 1 + _ERROR
        note = "" if row.is_valid else "  not a valid bound"
        print(
            f"{row.name:<34}{row.where:<32}{row.num:>7,}{row.largest:>12.3g}{share:>10.4f}{row.at:>9.5f}{note}",
            flush=True,
        )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
