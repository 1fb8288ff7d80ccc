"""Tables of a report: the settings, certified accuracy and averages of runs, and their comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deqsmooth.certificates import record, rounding, statements
from deqsmooth.reports import summary, tables
from deqsmooth.reports.runs import Run

ALPHA = 0.05
"""Largest probability that an interval over images misses."""
LEVEL = f"{100 * (1 - ALPHA):g} %"
"""Confidence level of these intervals, as text."""
_WORST = 10


def overview(runs: Sequence[Run]) -> Iterator[tables.Table]:
    """Yields tables of settings, certified accuracy and averages, and two for each run compared to the first."""
    yield tables.Table(
        "the runs",
        ("", "images", "classifier", "sigma", "samples", "alpha", "sampler", "bound"),
        tuple((run.label, str(len(run.found)), *_settings(run)) for run in runs),
    )
    radii = _radii(runs)
    yield _certified_accuracy(runs, radii)
    headings = ("", "ACR", "mean radius", "abstentions", "evaluations", "s/image", "mismatches")
    title = f"averages over images ({LEVEL} intervals for the images that these were drawn from)"
    averages = tables.Table(title, headings, tuple(_averages(run) for run in runs))
    yield tables.without_empty_end(averages)
    for run in runs[1:]:
        yield _comparison(runs[0], run, radii)
        yield _disagreements(runs[0], run)


def mean_cost(found: Sequence[record.Certificate]) -> tuple[str, str, str]:
    """Returns cells with the mean evaluations and seconds per image, and the share of wrong audited votes."""
    audited = sum(c.num_audit for c in found)
    return (
        rounding.evaluations(float(np.mean([c.evaluations for c in found]))),
        rounding.seconds(float(np.mean([c.seconds for c in found]))),
        rounding.errors(sum(c.mismatches for c in found), audited) if audited else "",
    )


def mean_radii(found: Sequence[statements.Image]) -> tuple[str, str]:
    """Returns cells with two mean radii, rounded down: wrong predictions count 0 (ACR), or with their radius."""
    return (
        rounding.radius(statements.average_certified_radius(found)),
        rounding.radius(statements.mean_radius(found)),
    )


def _certified_accuracy(runs: Sequence[Run], radii: Sequence[float]) -> tables.Table:
    """Certified accuracy of each run, and with the radii that hold for all images simultaneously."""
    rows = []
    for run in runs:
        rows.append((run.label, *map(_percent, statements.accuracies(run.found, radii, ALPHA))))
        if run.is_certified:
            found = _simultaneous(run)
            shares = (rounding.percent(statements.certified_accuracy(found, r)) for r in radii)
            rows.append((f"{run.label}, all at once", *shares))
    title = f"certified accuracy, % ({LEVEL} intervals for the images that these were drawn from)"
    return tables.Table(title, ("radius", *(f"{radius:g}" for radius in radii)), tuple(rows))


def _settings(run: Run) -> tuple[str, ...]:
    if run.checked is None:
        return ("published, counts unknown", "", "", "", "", "")
    settings = run.checked.settings
    try:
        classifier = _classifier(run.checked.header["reference"])
    except (KeyError, TypeError, ValueError):
        # Verification says that the header was changed.
        classifier = "unknown"
    return (
        classifier,
        f"{settings.sigma:g}",
        f"{settings.num_estimation:,}",
        f"{settings.alpha:g}",
        str(settings.sampler),
        run.checked.found[0].bound,
    )


def _classifier(reference: dict[str, Any]) -> str:
    """What is certified, in a few words."""
    text = "explicit"
    if reference["solver"] is not None:
        stop = "" if reference["tolerance"] is None else f" to {reference['tolerance']:g}"
        text = f"{reference['solver']} {reference['budget']}{stop} from {reference['start']}"
    return f"{text} of {reference['checkpoint'][:8]}" if reference["checkpoint"] else text


def _averages(run: Run) -> tuple[str, ...]:
    radii, cost = mean_radii(run.found), ("", "", "")
    if run.checked is not None:
        cost = mean_cost(run.checked.found)
        if run.is_sound:
            # The interval needs to know the largest possible radius, which settings that do not hold do not tell.
            whole = summary.summary(run.checked.found, alpha=ALPHA)
            radii = (str(whole.acr), str(whole.mean_radius))
    abstentions = sum(line.prediction is None for line in run.found)
    return (run.label, *radii, str(abstentions), *cost)


def _comparison(first: Run, second: Run, radii: Sequence[float]) -> tables.Table:
    found = [statements.compare(first.found, second.found, radius, ALPHA) for radius in radii]
    rows = tuple(
        (f"{x.radius:g}", str(x.only_first), str(x.only_second), _points(x), f"{x.p_value:.2g}") for x in found
    )
    return tables.Table(
        f"{second.label} against {first.label}, {found[0].num_images} images (p: McNemar's exact test)",
        ("radius", "only the first", "only the second", "second less first, points", "p"),
        rows,
    )


def _points(found: statements.Comparison) -> str:
    interval = f"{rounding.percent(found.lower)} to {rounding.percent(found.upper, up=True)}"
    return f"{100 * found.difference:+.1f} ({interval})"


def _disagreements(first: Run, second: Run) -> tables.Table:
    pairs = statements.paired(first.found, second.found)
    worst = sorted(pairs, key=lambda pair: -abs(_signed(pair[0]) - _signed(pair[1])))[:_WORST]
    rows = tuple((str(a.index), str(a.label), *_outcome(a), *_outcome(b)) for a, b in worst)
    headings = ("image", "label", "first says", "radius", "second says", "radius")
    return tables.Table(f"images on which {second.label} and {first.label} differ most", headings, rows)


def _signed(line: statements.Image) -> float:
    """The radius, negative if the prediction is wrong."""
    return line.radius if line.correct else -line.radius


def _outcome(line: statements.Image) -> tuple[str, str]:
    return "abstains" if line.prediction is None else str(line.prediction), rounding.radius(line.radius)


def _radii(runs: Sequence[Run]) -> list[float]:
    """Radii of the tables, up to the largest of any run, of runs that verify if there are any."""
    sigma = min((run.checked.settings.sigma for run in runs if run.checked is not None), default=1.0)
    certified = [run for run in runs if run.is_sound] or runs
    return statements.radii(sigma, max(line.radius for run in certified for line in run.found))


def _percent(accuracy: statements.Accuracy) -> str:
    interval = f"{rounding.percent(accuracy.lower)}-{rounding.percent(accuracy.upper, up=True)}"
    return f"{rounding.percent(accuracy.share)} ({interval})"


def _simultaneous(run: Run) -> list[record.Certificate]:
    """The certificates with radii that hold for all images simultaneously."""
    found = [] if run.checked is None else run.checked.found
    together = zip(found, statements.simultaneous_radii(found), strict=True)
    return [
        dataclasses.replace(c, radius=radius, correct=bool(c.correct and radius > 0)) for c, radius in together
    ]
