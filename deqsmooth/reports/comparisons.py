"""Comparisons of runs, image by image: every difference is that of the later run minus the first, "B minus A"."""

from __future__ import annotations

from collections.abc import Sequence

from deqsmooth.certificates import rounding, statements
from deqsmooth.reports import overview, tables
from deqsmooth.reports.runs import Run

_WORST = 10
_MOST_RADII = 5


def convention(runs: Sequence[Run]) -> str:
    """How to read comparisons, in a paragraph."""
    first, a = runs[0].label, runs[0].letter
    other, b = (runs[1].label, runs[1].letter) if len(runs) == 2 else ("Each other run", "the other run")
    return (
        f"{other} is compared with {first}, on the images that both have. A difference is always {b} "
        f"minus {a}: where it is above 0, {b} certifies more. 'Only {a}' counts the images that only {a} "
        f"classifies correctly and certifies to the radius. p is that of McNemar's exact test. Each "
        f"{overview.LEVEL} interval, over images, and each p stands by itself."
    )


def together(runs: Sequence[Run], radii: Sequence[float]) -> tables.Table:
    """Differences of certified accuracy of all runs to the first, at a few radii."""
    few = radii[:: -(-len(radii) // _MOST_RADII)]
    rows = []
    for run in runs[1:]:
        found = [statements.compare(runs[0].found, run.found, radius, overview.ALPHA) for radius in few]
        rows.append((run.label, str(found[0].num_images), *map(_points, found)))
    title = f"Certified accuracy minus that of {runs[0].label}, points ({overview.LEVEL} interval)"
    return tables.Table(title, ("", "images", *(f"r = {radius:g}" for radius in few)), tuple(rows))


def comparison(first: Run, second: Run, radii: Sequence[float]) -> tables.Table:
    """Certified accuracy of two runs at each radius, compared image by image."""
    found = [statements.compare(first.found, second.found, radius, overview.ALPHA) for radius in radii]
    rows = tuple(
        (f"{x.radius:g}", str(x.only_first), str(x.only_second), _points(x), f"{x.p_value:.2g}") for x in found
    )
    a, b = first.letter, second.letter
    headings = ("radius", f"only {a}", f"only {b}", f"{b} minus {a}, points ({overview.LEVEL} interval)", "p")
    return tables.Table(f"{second.label} minus {first.label}, {found[0].num_images} images", headings, rows)


def disagreements(first: Run, second: Run) -> tables.Table:
    """The images on which two runs differ most."""
    rows = tuple(
        (str(a.index), str(a.label), *outcome(a), *outcome(b)) for a, b in differing(first, second, _WORST)
    )
    headings = (
        "image", "label", f"{first.letter} says", f"radius {first.letter}", f"{second.letter} says",
        f"radius {second.letter}",
    )  # fmt: skip
    return tables.Table(f"Images on which {second.label} and {first.label} differ most", headings, rows)


def differing(first: Run, second: Run, most: int) -> list[tuple[statements.Image, statements.Image]]:
    """What two runs say of the images on which they differ most, the largest difference first.

    The difference is that of the radii, which count as negative where the prediction is wrong.
    """
    pairs = [
        (abs(_signed(a) - _signed(b)), a, b)
        for a, b in statements.paired(first.found, second.found)
        if _signed(a) != _signed(b) or a.prediction != b.prediction
    ]
    return [(a, b) for _, a, b in sorted(pairs, key=lambda pair: -pair[0])[:most]]


def outcome(line: statements.Image) -> tuple[str, str]:
    """The prediction and the radius of an image as text."""
    return "abstains" if line.prediction is None else str(line.prediction), rounding.radius(line.radius)


def _points(found: statements.Comparison) -> str:
    interval = f"{rounding.percent(found.lower)} to {rounding.percent(found.upper, up=True)}"
    return f"{100 * found.difference:+.1f} ({interval})"


def _signed(line: statements.Image) -> float:
    """The radius, negative if the prediction is wrong."""
    return line.radius if line.correct else -line.radius
