"""Comparisons of runs, image by image: every difference is that of the later run minus the first, "B minus A"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deqsmooth.certificates import rounding, statements
from deqsmooth.reports import overview, summary, tables
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
        f"{overview.LEVEL} interval, over images, and each p stands by itself. The interval is put together from "
        "two Clopper-Pearson intervals, which makes it wider than the test: it may contain 0 where p is small. "
        "That of ACR holds for any distribution of the radii, and so is wide for few images. "
        "+0.0 with 0 images on both sides means that no image differed; the interval then says by how much other "
        "images like these may."
    )


def together(runs: Sequence[Run], radii: Sequence[float]) -> Iterator[tables.Table]:
    """Yields the differences of all runs to the first: certified accuracy at a few radii, and averages."""
    few = radii[:: -(-len(radii) // _MOST_RADII)]
    rows = []
    for run in runs[1:]:
        found = [statements.compare(runs[0].found, run.found, radius, overview.ALPHA) for radius in few]
        rows.append((run.label, str(found[0].num_images), *map(_points, found)))
    title = f"Certified accuracy minus that of {runs[0].label}, points ({overview.LEVEL} interval)"
    yield tables.Table(title, ("", "images", *(f"r = {radius:g}" for radius in few)), tuple(rows))
    averages = tuple((run.label, _acr(runs[0], run), _evaluations(runs[0], run)) for run in runs[1:])
    title = (
        f"ACR minus that of {runs[0].label} ({overview.LEVEL} interval); evaluations compared with those of "
        f"{runs[0].short}"
    )
    yield tables.without_empty_end(tables.Table(title, ("", "ACR", "evaluations"), averages))


def averages(first: Run, second: Run) -> tables.Table:
    """ACR of two runs and their evaluations, on the images that both have."""
    pairs = statements.paired(first.found, second.found)
    radii = (rounding.radius(statements.average_certified_radius(run)) for run in zip(*pairs, strict=True))
    rows = [("ACR", *radii, _acr(first, second))]
    if ratio := _evaluations(first, second):
        costs = (rounding.evaluations(one) for one in _costs(first, second))
        rows.append((f"{overview.evaluations([first, second])} of an image", *costs, ratio))
    a, b = first.short, second.short
    headings = ("", a, b, f"{b} minus {a} ({overview.LEVEL} interval)")
    return tables.Table(f"{b} minus {a}, averages over {_images(len(pairs))}", headings, tuple(rows))


def comparison(first: Run, second: Run, radii: Sequence[float]) -> tables.Table:
    """Certified accuracy of two runs at each radius, compared image by image."""
    found = [statements.compare(first.found, second.found, radius, overview.ALPHA) for radius in radii]
    rows = tuple(
        (f"{x.radius:g}", str(x.only_first), str(x.only_second), _points(x), f"{x.p_value:.2g}") for x in found
    )
    a, b = first.letter, second.letter
    headings = ("radius", f"only {a}", f"only {b}", f"{b} minus {a}, points ({overview.LEVEL} interval)", "p")
    title = f"{second.short} minus {first.short}, certified accuracy of {_images(found[0].num_images)}"
    return tables.Table(title, headings, rows)


def disagreements(first: Run, second: Run) -> tables.Table:
    """The images on which two runs differ most."""
    rows = tuple(
        (str(a.index), str(a.label), *outcome(a), *outcome(b)) for a, b in differing(first, second, _WORST)
    )
    headings = (
        "image", "label", f"{first.letter} says", f"radius {first.letter}", f"{second.letter} says",
        f"radius {second.letter}",
    )  # fmt: skip
    return tables.Table(f"Images on which {second.short} and {first.short} differ most", headings, rows)


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


def _acr(first: Run, second: Run) -> str:
    """The difference of ACR, with its interval if both runs verify."""
    if first.checked is None or second.checked is None or not (first.is_sound and second.is_sound):
        # The interval needs to know the largest possible radius, which settings that do not hold do not tell.
        pairs = statements.paired(first.found, second.found)
        a, b = (statements.average_certified_radius(run) for run in zip(*pairs, strict=True))
        return f"{b - a:+.3f}"
    found = summary.difference(first.checked.found, second.checked.found, overview.ALPHA)
    ends = f"{rounding.radius(found.lower)} to {rounding.radius(found.upper, up=True)}"
    return f"{found.value:+.3f} ({ends})"


def _evaluations(first: Run, second: Run) -> str:
    """How many times fewer or more evaluations the second run needs; empty if it is not known."""
    costs = _costs(first, second)
    if min(costs) <= 0:
        return ""
    a, b = costs
    if a == b:
        return "equal"
    return f"{max(a / b, b / a):.3g} times {'fewer' if b < a else 'more'}"


def _costs(first: Run, second: Run) -> list[float]:
    """Mean evaluations of each run, on the images that both have; 0 of published results."""
    pairs = statements.paired(first.found, second.found)
    return [float(np.mean([getattr(one, "evaluations", 0) for one in run])) for run in zip(*pairs, strict=True)]


def _images(num: int) -> str:
    return rounding.number(num, "image")


def _signed(line: statements.Image) -> float:
    """The radius, negative if the prediction is wrong."""
    return line.radius if line.correct else -line.radius
