"""Samples that ways of stopping early need for a table of certified accuracy, by exact enumeration.

An image is sampled until the largest radius of a grid that it can be certified for is decided: it stops at a size
where the next radius is out of reach (`deqsmooth.statistics.looks.within_reach`, for every way). The ways
differ in the bound that certifies a radius: Clopper-Pearson at looks that share alpha, or a confidence sequence
that is read at looks. The distribution of the count from look to look is computed and not sampled, so that the
tables have no error but that of rounding. Its tails below 1e-13 are left out.

The tables have the share of N that is drawn on average. The loss is the probability of certifying a radius with N
samples at once minus that of the way, averaged over images, at the radius where this is largest; in points of
certified accuracy. Probabilities of images come from kept counts: four quantiles of the posterior of each image
(Jeffreys' prior). No votes are drawn.

    python benchmarks/stopping.py > results/stopping/tables.txt
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import record
import tyro
from scipy import optimize, signal, special, stats

from deqsmooth.certificates import jsonl
from deqsmooth.statistics import bounds, looks, robustness

ROOT = pathlib.Path(__file__).parents[1]
_TAIL = 1e-13
_QUANTILES = (np.arange(4) + 0.5) / 4
Reached = Callable[[float], np.ndarray]
"""Probability p -> the least count at each size that certifies that the class has at least p."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare ways of stopping early.

    Attributes:
      sizes: numbers of estimation samples (N).
      alpha: failure probability of a certificate.
      step: step of the grid of radii.
      sigma: standard deviation of the noise.
      records: folders of kept certificates, and the row whose counts are taken.
      row: see `records`.
    """

    sizes: tuple[int, ...] = (10_000, 100_000)
    alpha: float = 0.001
    step: float = 0.25
    sigma: float = 0.5
    records: tuple[str, ...] = ("cifar10-0.5", "digits-0.5")
    row: str = "zero-30"


class Case(NamedTuple):
    """A probability of the selected class, with its weight among images.

    Attributes:
      p: the probability.
      weight: share of images that have it.
      correct: share of images that have it and whose selected class is their label.
    """

    p: float
    weight: float
    correct: float


class Way:
    """A way of stopping: sizes, and at each size the counts that certify a radius or put it out of reach."""

    def __init__(self, sizes: Sequence[int], reached: Reached, grid: Sequence[float]) -> None:
        self.sizes = sizes
        total = sizes[-1]
        # A claim of a probability includes the claims of all smaller ones.
        self.certifies = np.maximum.accumulate([np.minimum(reached(p), np.add(sizes, 1)) for p in grid])
        never = np.add(sizes, 1)
        self.open = np.array([*(self._open(row[-1], total) for row in self.certifies), never])

    def _open(self, goal: int, total: int) -> list[int]:
        """The least count at each size from which a count in the end is within reach."""
        return [
            least(0, size, lambda count, size=size: goal <= looks.within_reach(count, size, total))
            for size in self.sizes
        ]

    def expect(self, p: float) -> tuple[float, np.ndarray]:
        """The expected number of samples, and the probability that each radius of the grid is certified."""
        chance, first, before, samples = np.ones(1), 0, 0, 0.0
        certified = np.zeros(len(self.certifies))
        for place, size in enumerate(self.sizes):
            samples += chance.sum() * (size - before)
            chance, first = later(chance, first, size - before, p)
            counts, before = np.arange(first, first + len(chance)), size
            level = (counts[:, None] >= self.certifies[:, place]).sum(1)
            stops = (counts < self.open[level, place]) | (size == self.sizes[-1])
            certified += [(chance * stops)[level > radius].sum() for radius in range(len(certified))]
            chance = chance * ~stops
            if stops.all():
                break
        return samples, certified


def later(chance: np.ndarray, first: int, drawn: int, p: float) -> tuple[np.ndarray, int]:
    """The distribution of a count after more samples; distributions are arrays with their first count."""
    spread = 8 * np.sqrt(drawn * p * (1 - p)) + 8
    least_, most = max(0, int(drawn * p - spread)), min(drawn, int(drawn * p + spread))
    added = stats.binom.pmf(np.arange(least_, most + 1), drawn, p)
    found = np.maximum(signal.convolve(chance, added), 0)
    kept = np.flatnonzero(found > _TAIL)
    if not len(kept):
        return np.zeros(1), first + least_
    return found[kept[0] : kept[-1] + 1], first + least_ + kept[0]


def least(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least number from `low` to `high` for which a monotone statement holds; `high` + 1 if it never does."""
    high += 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def geometric(total: int, ratio: float) -> tuple[int, ...]:
    """Sizes by a ratio, multiples of 100 except the last."""
    shares = total / ratio ** np.arange(1, np.log(total / 100) / np.log(ratio) + 1e-9)
    return tuple(sorted({total, *(round(size / 100) * 100 for size in shares.tolist())}))


def bonferroni(alphas: dict[int, float]) -> Reached:
    """Clopper-Pearson at looks that share alpha."""
    return lambda p: np.array([bounds.least_count(size, part, p) for size, part in alphas.items()])


def union(total: int, alpha: float) -> tuple[tuple[int, ...], Reached]:
    """Looks at powers of 1.1 with parts of alpha that fall like their number squared (Voracek 2024).

    A count that reaches the threshold of a later size reaches it whatever the votes between.
    """
    sizes: list[int] = []
    for k in range(11, 200):
        size = max(int(1.1**k) + 1, sizes[-1] + 1 if sizes else 1)
        if size <= total:
            sizes.append(size)
    parts = [5 * alpha / ((k + 4) * (k + 5)) for k in range(1, len(sizes) + 1)]
    own = bonferroni(dict(zip(sizes, parts, strict=True)))
    return tuple(sizes), lambda p: np.minimum.accumulate(own(p)[::-1])[::-1]


def exact(sizes: Sequence[int], alpha: float) -> Reached:
    """Looks whose joint error at p is at most alpha, computed from look to look and not by Bonferroni.

    Of alpha, a look may have spent its share of the samples. The joint error of a threshold is largest at p among
    all smaller probabilities, because more votes never undo a claim. So for a fixed p it is exact.
    """

    def reached(p: float) -> np.ndarray:
        chance, first, before, spent, found = np.ones(1), 0, 0, 0.0, []
        for size in sizes:
            chance, first = later(chance, first, size - before, p)
            tails, before = np.cumsum(chance[::-1])[::-1], size
            cut = int(np.sum(spent + tails > alpha * size / sizes[-1]))
            found.append(first + cut)
            spent += tails[cut] if cut < len(tails) else 0.0
            chance = chance[:cut] if cut else np.zeros(1)
        return np.array(found)

    return reached


def sequence(sizes: Sequence[int], alpha: float, log_capital: Callable[[int, int, float], float]) -> Reached:
    """A confidence sequence: p is excluded where the capital of a bet against it is 1 / alpha."""

    def reached(p: float) -> np.ndarray:
        return np.array(
            [
                least(int(np.ceil(size * p)), size, lambda s, n=size: log_capital(s, n, p) >= -np.log(alpha))
                for size in sizes
            ]
        )

    return reached


def log_likelihood(count: int, size: int, p: float) -> float:
    """Of a sequence of votes."""
    return float(special.xlogy(count, p) + special.xlog1py(size - count, -p))


def mixture(a: float, b: float, above: float | None = 0.0) -> Callable[[int, int, float], float]:
    """Robbins' mixture of likelihood ratios with a Beta(a, b) prior.

    Args:
      a: of the prior.
      b: of the prior.
      above: the prior is truncated to probabilities above this; None for above the tested p (one-sided).
    """

    def log_capital(count: int, size: int, p: float) -> float:
        cut, after = p if above is None else above, (a + count, b + size - count)
        truncation = stats.beta.logsf(cut, *after) - stats.beta.logsf(cut, a, b)
        return special.betaln(*after) - special.betaln(a, b) + truncation - log_likelihood(count, size, p)

    return log_capital


def betting(num: int = 60) -> Callable[[int, int, float], float]:
    """The mean capital of constant bets on a class (Waudby-Smith & Ramdas 2024), on a logarithmic grid.

    With their predictive bets by the Krichevsky-Trofimov estimator the capital is that of the Beta(1/2, 1/2)
    mixture. A hedge against a large p would only take from the bets, since the bound is one-sided.
    """
    shares = np.geomspace(1e-3, 1, num, endpoint=False)

    def log_capital(count: int, size: int, p: float) -> float:
        bets = count * np.log1p(shares * (1 - p) / p) + (size - count) * np.log1p(-shares)
        return float(special.logsumexp(bets) - np.log(num))

    return log_capital


def by_size(total: int, alpha: float, num: int = 24) -> Callable[[int, int, float], float]:
    """The mean of likelihood ratios, each against the p that about n samples tell from the tested one.

    The n are spaced evenly on a logarithmic scale up to N.
    """
    sizes = np.geomspace(20, total, num)

    @functools.cache
    def alternatives(p: float) -> np.ndarray:
        def divergence(q: float) -> float:
            return float(special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p))

        goals = np.minimum(-np.log(alpha) / sizes, divergence(1.0) * (1 - 1e-9))
        return np.array([optimize.brentq(lambda q, g=goal: divergence(q) - g, p, 1.0) for goal in goals])

    def log_capital(count: int, size: int, p: float) -> float:
        q = alternatives(p)
        ratios = special.xlogy(count, q) + special.xlog1py(size - count, -q)
        return float(special.logsumexp(ratios) - np.log(num)) - log_likelihood(count, size, p)

    return log_capital


def ways(total: int, alpha: float, grid: Sequence[float]) -> Iterator[tuple[str, Way]]:
    """Every way by its name."""

    def parts(sizes: Sequence[int], spending: str = "proportional") -> dict[int, float]:
        return looks.alphas(alpha, sizes, spending)

    few, many = (total // 20, total // 5, total), looks.geometric(total)
    yield "looks at N/20, N/5 and N", Way(few, bonferroni(parts(few)), grid)
    for ratio in (2, 1.5, 1.25, 1.1):
        sizes = many if ratio == 1.25 else geometric(total, ratio)
        yield f"looks, ratio {ratio}", Way(sizes, bonferroni(parts(sizes)), grid)
    yield "looks, ratio 1.25, equal", Way(many, bonferroni(parts(many, "equal")), grid)
    yield "union bound of RS_conf_seq", Way(*union(total, alpha), grid)
    yield "looks, ratio 1.25, exact joint error", Way(many, exact(many, alpha), grid)
    for a, b in ((0.5, 0.5), (1, 1), (5, 1)):
        yield f"mixture Beta({a}, {b})", Way(many, sequence(many, alpha, mixture(a, b)), grid)
    often = geometric(total, 1.1)
    yield "mixture Beta(0.5, 0.5), ratio 1.1", Way(often, sequence(often, alpha, mixture(0.5, 0.5)), grid)
    yield "mixture Beta(1, 1) above 1/2", Way(many, sequence(many, alpha, mixture(1, 1, 0.5)), grid)
    for a, b in ((0.5, 0.5), (1, 1)):
        yield f"one-sided Beta({a}, {b})", Way(many, sequence(many, alpha, mixture(a, b, None)), grid)
    yield "betting, constant bets", Way(many, sequence(many, alpha, betting()), grid)
    yield "likelihood ratios by size", Way(many, sequence(many, alpha, by_size(total, alpha)), grid)


def at_once(total: int, alpha: float, grid: Sequence[float], p: float) -> np.ndarray:
    """Probability that each radius of the grid is certified by N samples, read once."""
    return np.array([stats.binom.sf(bounds.least_count(total, alpha, one) - 1, total, p) for one in grid])


def cases_of(folder: str, row: str) -> list[Case]:
    """The probabilities of the images of kept certificates."""
    text = record.texts(ROOT / "results" / "certification" / folder)[row]
    found = jsonl.parse(row, text).certificates
    shares: dict[float, np.ndarray] = {}
    for c in found:
        quantiles = special.betaincinv(c.count + 0.5, c.num_estimation - c.count + 0.5, _QUANTILES)
        for p in quantiles.tolist():
            share = np.array([1, c.selected == c.label]) / (len(found) * len(quantiles))
            shares[p] = shares.get(p, np.zeros(2)) + share
    return [Case(p, *share.tolist()) for p, share in shares.items()]


def main() -> None:
    """Prints the tables."""
    arguments = tyro.cli(Benchmark)
    sigma, alpha = arguments.sigma, arguments.alpha
    single = [
        0.5,
        0.52,
        0.55,
        0.6,
        0.65,
        0.7,
        0.75,
        0.8,
        0.85,
        0.9,
        0.95,
        0.98,
        0.99,
        0.995,
        0.999,
        0.9995,
        0.9999,
    ]
    uniform = stats.norm.cdf(np.arange(-0.25, 1.75, 0.025) / sigma).tolist()
    data = {folder: cases_of(folder, arguments.row) for folder in arguments.records}
    data["even"] = [Case(p, 1 / len(uniform), 1 / len(uniform)) for p in uniform]
    for total in arguments.sizes:
        cap = robustness.radius(bounds.clopper_pearson_lower(total, total, alpha), sigma)
        radii = np.arange(0, cap, arguments.step).tolist()
        grid = [robustness.probability(radius, sigma) for radius in radii]
        print(f"N {total:,}, alpha {alpha:g}, sigma {sigma:g}, radii {', '.join(f'{r:g}' for r in radii)}")
        print("\nPercent of N drawn, by the probability of the selected class\n")
        print(" " * 37 + "looks" + "".join(f"{p:>7g}" for p in single))
        found = dict(ways(total, alpha, grid))
        for name, way in found.items():
            drawn = [100 * way.expect(p)[0] / total for p in single]
            print(f"{name:<37}{len(way.sizes):>5}" + "".join(f"{share:7.1f}" for share in drawn), flush=True)
        print(
            "\nPercent of N drawn, of all images (all) and of those whose class is right (right), and the largest"
            "\nloss of certified accuracy (loss); even: radii spread evenly from -0.25 to 1.75\n"
        )
        print(" " * 37 + "".join(f"{name:>26}" for name in data))
        print(" " * 37 + f"{'all':>12}{'right':>7}{'loss':>7}" * len(data))
        fixed = {c.p: at_once(total, alpha, grid, c.p) for own in data.values() for c in own}
        for name, way in found.items():
            cells = ""
            for own in data.values():
                drawn, right, loss = 0.0, 0.0, np.zeros(len(grid))
                for case in own:
                    samples, certified = way.expect(case.p)
                    drawn += 100 * case.weight * samples / total
                    right += 100 * case.correct * samples / total
                    loss += 100 * case.correct * (fixed[case.p] - certified)
                cells += f"{drawn:12.1f}{right:7.1f}{loss.max():7.2f}"
            print(f"{name:<37}{cells}", flush=True)
        print()


if __name__ == "__main__":
    sys.exit(main())
