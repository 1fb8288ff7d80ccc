"""Sections of a report: from runs and pictures to what the page shows, in its order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deqsmooth.certificates import attempts, statements
from deqsmooth.reports import canvas, comparisons, figures, overview, pictures, trade, verdicts, votes
from deqsmooth.reports.runs import Run
from deqsmooth.reports.tables import Table

_LEAST_FOR_TRADE = 3
# With more runs, only the first figure has their names.
_MOST_NAMES = 8

Part = str | Table | canvas.Figure | pictures.Row
"""A paragraph, a table, a figure or a row of pictures."""


class Section(NamedTuple):
    """A part of the page with a heading.

    Attributes:
      heading: the heading; empty for what the page begins with.
      parts: what it shows, in this order.
      is_folded: whether a reader has to open it.
    """

    heading: str
    parts: list[Part]
    is_folded: bool = False


def sections(runs: Sequence[Run], album: pictures.Album | None) -> list[Section]:
    """The sections of a page below its verdict; those without content are left out.

    Args:
      runs: the runs; each is compared with the first.
      album: pictures of images; None to show none.
    """
    radii = overview.radii(runs)
    drawn = canvas.is_possible()
    found = [
        Section("", [*_accuracy(runs, drawn), overview.overview(runs)]),
        Section("What this means", [*verdicts.meaning(runs), *_checking(runs)]),
        Section("Pictures", list(album.extremes) if album else []),
        Section("Accuracy against evaluations", list(_trade(runs)) if drawn else []),
        Section("Probability of the class under noise", list(_votes(runs)) if drawn else []),
        *_comparisons(runs, radii, album, drawn),
        Section("Intervals", [overview.intervals(runs, radii), overview.averages(runs)], is_folded=True),
        Section("Cost, residuals and audit", [*overview.costs(runs), *_behind(runs, drawn)], is_folded=True),
        Section("Settings", list(overview.settings(runs)), is_folded=True),
        Section("Files", [overview.files(runs)], is_folded=True),
    ]
    return [section for section in found if section.parts]


def _accuracy(runs: Sequence[Run], drawn: bool) -> Iterator[canvas.Figure]:
    if drawn:
        attacked = {run.label: attempts.robust_accuracy(run.attempts) for run in runs if run.attempts}
        yield figures.certified_accuracy({run.label: run.found for run in runs}, attacked, overview.ALPHA)


def _trade(runs: Sequence[Run]) -> Iterator[canvas.Figure]:
    points = []
    for run in runs:
        if run.checked is not None:
            cost = sum(c.evaluations for c in run.checked.found) / len(run.found)
            radius = statements.average_certified_radius(run.found)
            points.append(trade.Point(run.label, run.short, cost, radius))
    points = [point for point in points if point.evaluations > 0]
    if len(points) >= _LEAST_FOR_TRADE:
        yield trade.trade(points, overview.evaluations(runs))


def _votes(runs: Sequence[Run]) -> Iterator[canvas.Figure]:
    own = {_entry(run, runs): run.checked.found for run in runs if run.checked is not None}
    if own:
        yield votes.votes(own)


def _comparisons(
    runs: Sequence[Run], radii: Sequence[float], album: pictures.Album | None, drawn: bool
) -> Iterator[Section]:
    """Yields the comparison of two runs; of more, all at a glance, and each in a section that is folded."""
    if len(runs) == 1:
        return
    first, *others = runs
    convention = comparisons.convention(runs)
    if len(others) > 1:
        yield Section("Comparisons", [convention, *comparisons.together(runs, radii)])
    for place, run in enumerate(others):
        parts: list[Part] = [comparisons.averages(first, run), comparisons.comparison(first, run, radii)]
        if drawn:
            axes = (first.label, first.found), (run.label, run.found)
            parts.append(figures.scatter(f"radii-{run.stem}", *axes))
        if album and album.differing[place].pictures:
            parts.append(album.differing[place])
        elif (table := comparisons.disagreements(first, run)).rows:
            parts.append(table)
        if len(others) == 1:
            yield Section("Comparison", [convention, *parts])
        else:
            yield Section(f"{run.short} minus {first.short}", parts, is_folded=True)


def _behind(runs: Sequence[Run], drawn: bool) -> Iterator[canvas.Figure]:
    """Yields figures of cost, residuals and mismatches."""
    own = {_entry(run, runs): run.checked.found for run in runs if run.checked is not None}
    if own and drawn:
        found = (figures.cost(own, overview.evaluations(runs)), figures.residuals(own), figures.mismatches(own))
        yield from (figure for figure in found if figure is not None)


def _entry(run: Run, runs: Sequence[Run]) -> str:
    """How figures after the first name a run: by its letter if there are many."""
    return run.label if len(runs) <= _MOST_NAMES else run.short


def _checking(runs: Sequence[Run]) -> Iterator[str]:
    """Yields how a reader checks the files."""
    if any(run.checked is not None for run in runs):
        yield (
            "For this page every bound and radius was computed again from the votes that the files state, as "
            "`deqsmooth-verify FILE` does. The votes themselves were not drawn again: `deqsmooth-verify FILE "
            "--replay N` does that for N images, with the model and the data."
        )
