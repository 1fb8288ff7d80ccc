"""What is said of runs in tables: what they are, what they certify, what they cost and how they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from deqsmooth.certificates import record, rounding, statements
from deqsmooth.reports import tables
from deqsmooth.reports.runs import Run

ALPHA = 0.05
"""Probability that an interval over images misses."""
_WORST = 10


def overview(runs: Sequence[Run]) -> Iterator[tables.Table]:
    """What the runs are, certified accuracy, cost, and comparisons with the first."""
    yield tables.Table(
        "the runs", ("", "images", "classifier", "sigma", "samples", "alpha", "sampler", "bound"), _settings(runs)
    )
    radii = _radii(runs)
    rows = []
    for run in runs:
        rows.append((run.name, *(_percent(statements.accuracy(run.found, r, ALPHA)) for r in radii)))
        if run.is_certified:
            together = _at_once(run)
            rows.append(
                (
                    f"{run.name}, all at once",
                    *(rounding.percent(statements.accuracy(together, r).share) for r in radii),
                )
            )
    headings = ("radius", *(f"{radius:g}" for radius in radii))
    yield tables.Table(
        f"certified accuracy, % (interval over images, {100 * (1 - ALPHA):g} %)", headings, tuple(rows)
    )
    headings = ("", "ACR", "mean radius", "abstentions", "evaluations", "s/image", "mismatches")
    rows = [_averages(run) for run in runs]
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    yield tables.Table("averages over images", headings, tuple(rows))
    for run in runs[1:]:
        yield _comparison(runs[0], run, radii)
        yield _disagreements(runs[0], run)


def _settings(runs) -> tuple[tuple[str, ...], ...]:
    return tuple((run.name, str(len(run.found)), *_settings_of(run)) for run in runs)


def _settings_of(run: Run) -> tuple[str, ...]:
    if run.checked is None:
        return ("published, counts unknown", "", "", "", "", "")
    settings, solve = run.checked.settings, run.checked.header["reference"]
    classifier = "explicit"
    if solve["solver"] is not None:
        stop = "" if solve["tolerance"] is None else f" to {solve['tolerance']:g}"
        classifier = f"{solve['solver']} {solve['budget']}{stop} from {solve['start']}"
    classifier += f" of {solve['checkpoint'][:8]}" if solve["checkpoint"] else ""
    return (
        classifier,
        f"{settings.sigma:g}",
        f"{settings.num_estimation:,}",
        f"{settings.alpha:g}",
        settings.sampler,
        run.checked.found[0].bound,
    )


def _averages(run: Run) -> tuple[str, ...]:
    means = (
        rounding.down(statements.average_certified_radius(run.found), 3),
        rounding.down(statements.mean_radius(run.found), 3),
    )
    if run.checked is None:
        return (run.name, *means, str(sum(line.prediction is None for line in run.found)), "", "", "")
    found = run.checked.found
    audited = sum(c.num_audit for c in found)
    return (
        run.name,
        *means,
        str(sum(c.prediction is None for c in found)),
        f"{np.mean([c.evaluations for c in found]):,.0f}",
        f"{np.mean([c.seconds for c in found]):.2f}",
        f"{100 * sum(c.mismatches for c in found) / audited:.2f} %" if audited else "",
    )


def _comparison(first: Run, second: Run, radii) -> tables.Table:
    found = [statements.compare(first.found, second.found, radius, ALPHA) for radius in radii]
    rows = tuple(
        (f"{x.radius:g}", str(x.only_first), str(x.only_second), _points(x), f"{x.p_value:.2g}") for x in found
    )
    return tables.Table(
        f"{second.name} against {first.name}, {found[0].num_images} images (p: McNemar's exact test)",
        ("radius", "only the first", "only the second", "second less first, points", "p"),
        rows,
    )


def _points(found: statements.Comparison) -> str:
    return f"{100 * found.difference:+.1f} ({100 * found.lower:+.1f} to {100 * found.upper:+.1f})"


def _disagreements(first: Run, second: Run) -> tables.Table:
    pairs = statements.paired(first.found, second.found)
    worst = sorted(pairs, key=lambda pair: -abs(_signed(pair[0]) - _signed(pair[1])))[:_WORST]
    rows = tuple((str(a.index), str(a.label), *_outcome(a), *_outcome(b)) for a, b in worst)
    headings = ("image", "label", "first says", "radius", "second says", "radius")
    return tables.Table(f"images on which {second.name} and {first.name} differ most", headings, rows)


def _signed(line) -> float:
    return line.radius if line.correct else -line.radius


def _outcome(line) -> tuple[str, str]:
    return "abstains" if line.prediction is None else str(line.prediction), rounding.down(line.radius, 3)


def _radii(runs: Sequence[Run]) -> list[float]:
    """Radii of the table, as far as any certificate reaches."""
    sigma = min((run.checked.settings.sigma for run in runs if run.checked is not None), default=1.0)
    return statements.radii(sigma, max(line.radius for run in runs for line in run.found))


def _percent(accuracy: statements.Accuracy) -> str:
    interval = f"{rounding.percent(accuracy.lower)}-{rounding.percent(accuracy.upper, up=True)}"
    return f"{rounding.percent(accuracy.share)} ({interval})"


def _at_once(run: Run) -> list[record.Certificate]:
    """The certificates with the radii that hold all at once."""
    found = [] if run.checked is None else run.checked.found
    together = zip(found, statements.simultaneous_radii(found), strict=True)
    return [
        dataclasses.replace(c, radius=radius, correct=bool(c.correct and radius > 0)) for c, radius in together
    ]
