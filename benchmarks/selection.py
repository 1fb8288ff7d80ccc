"""Selection from samples of its own, or from those of the estimation: the expected radius, by enumeration.

If the class is the one with the most votes of the estimation itself, its bound must hold for every class that may
be chosen. The expected number of classes with probability at most 1/2 whose bound exceeds 1/2 is largest if two
classes have 1/2 each, since the tail of a binomial distribution is convex there. So Clopper-Pearson at alpha / 2
covers, whatever the number of classes. This is what the samples of a selection are worth.

The radius is expected over all counts at a probability of the class. All others have the rest as one class, which
is the hardest to tell from it. A wrong selection counts 0.

    python benchmarks/selection.py > results/two_sides/selection.txt
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import tyro
from scipy import stats

from deqsmooth.statistics import bounds, robustness


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare selections at equal numbers of samples in all.

    Attributes:
      alpha: failure probability of a certificate.
      sigma: standard deviation of the noise.
      totals: samples in all.
      selections: samples of a selection of its own; those below half of all are compared.
      probabilities: of the class.
    """

    alpha: float = 0.001
    sigma: float = 0.5
    totals: tuple[int, ...] = (100, 200, 500, 1000, 10_000)
    selections: tuple[int, ...] = (10, 20, 50, 100)
    probabilities: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


def radii(num: int, alpha: float, sigma: float) -> np.ndarray:
    """Radius of every count from 0 to `num`."""
    lower = [bounds.clopper_pearson_lower(count, num, alpha) for count in range(num + 1)]
    return np.array([robustness.radius(one, sigma) for one in lower])


def expected(found: np.ndarray, p: float) -> float:
    """The mean radius, given that of every count."""
    num = len(found) - 1
    return float(stats.binom.pmf(np.arange(num + 1), num, p) @ found)


def main() -> int:
    """Prints the table."""
    arguments = tyro.cli(Benchmark)
    print(f"Expected radius; alpha {arguments.alpha:g}, sigma {arguments.sigma:g}\n")
    print(f"{'samples':>8}  {'selection':<16}" + "".join(f"{f'p {p:g}':>9}" for p in arguments.probabilities))
    for total in arguments.totals:
        for selection in arguments.selections:
            if 2 * selection < total:
                own = radii(total - selection, arguments.alpha, arguments.sigma)
                row = [
                    expected(own, p) * float(stats.binom.sf(selection // 2, selection, p))
                    for p in arguments.probabilities
                ]
                print(f"{total:>8,}  {f'{selection} of them':<16}" + "".join(f"{x:>9.4f}" for x in row))
        joint = radii(total, arguments.alpha / 2, arguments.sigma)
        row = [expected(joint, p) for p in arguments.probabilities]
        print(f"{total:>8,}  {'none of its own':<16}" + "".join(f"{x:>9.4f}" for x in row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
