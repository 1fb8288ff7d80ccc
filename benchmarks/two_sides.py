"""What an upper bound on the other classes adds: kept votes, read with one side and with two.

No votes are drawn. Each kept run of independent samples without looks is read with the Clopper-Pearson bound at
alpha, and with the two-sided bound that has a part of alpha for the other classes.

    python benchmarks/two_sides.py > results/two_sides/tables.txt
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import record
import tyro

import deqsmooth as ds
from deqsmooth.certificates import jsonl, statements
from deqsmooth.statistics import bounds

_RESULTS = pathlib.Path(__file__).parents[1] / "results" / "certification"
_RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Read kept votes with one side and with two.

    Attributes:
      folders: of results/certification.
      shares: parts of alpha for the other classes, as shares of it; the first is that of the table by image.
    """

    folders: tuple[str, ...] = ("digits-0.25", "digits-0.5", "cifar10-0.25", "cifar10-0.5")
    shares: tuple[float, ...] = (0.1, 0.01, 0.25, 0.5)


def runs(folder: str) -> Iterator[tuple[str, list[ds.Certificate]]]:
    """The runs of a folder whose bound is that of Clopper and Pearson, at the end alone."""
    for name, text in record.texts(_RESULTS / folder).items():
        found = jsonl.parse(name, text).certificates
        if found[0].bound == bounds.CLOPPER_PEARSON and found[0].looks is None:
            yield name, found


def read(found: Sequence[ds.Certificate], share: float) -> np.ndarray:
    """Radius of each image, -1 for none or a wrong class, with a share of alpha for the other classes."""
    made = [statements.two_sided(one, share) if share else one for one in found]
    return np.array([one.radius if one.correct else -1.0 for one in made])


def columns(radii: np.ndarray) -> str:
    """Certified accuracy at some radii, and ACR."""
    shares = "".join(f"{100 * np.mean(radii >= at):8.1f}" for at in _RADII)
    return f"{shares}{np.maximum(radii, 0).mean():9.4f}"


def main() -> int:
    """Prints the tables."""
    arguments = tyro.cli(Benchmark)
    head = f"{'run':<30}{'other classes':>14}" + "".join(f"{f'r {at:g}':>8}" for at in _RADII) + f"{'ACR':>9}"
    losses, compared = [0.0], 0
    for folder in arguments.folders:
        print(f"{folder}\n{head}")
        for name, found in runs(folder):
            one = read(found, 0.0)
            print(f"{name:<30}{'none':>14}{columns(one)}")
            by_share = {share: read(found, share) for share in arguments.shares}
            for share, radii in by_share.items():
                print(f"{'':<30}{f'{share:g} alpha':>14}{columns(radii)}")
            two = by_share[arguments.shares[0]]
            compared += len(found)
            losses += list(np.maximum(one, 0) - np.maximum(two, 0))
        print()
    lost = np.array(losses)
    print(f"{compared:,} certificates with {arguments.shares[0]:g} alpha for the other classes:")
    print(f"  larger with two sides: {np.sum(lost < 0):,}; by {-lost.min():.3f} at most")
    print(f"  smaller: {np.sum(lost > 0):,}; by {lost.max():.4f} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
