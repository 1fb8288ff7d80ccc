"""Figures of reports and experiments: from runs of certificates, or numbers computed from them, to drawings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from deqsmooth.certificates import record, statements
from deqsmooth.reports import canvas
from deqsmooth.reports.canvas import Figure

if TYPE_CHECKING:
    from deqsmooth.reports.canvas import Axes

_POINTS = 1000
_MOST_BANDS = 5
# Inches.
_SQUARE = (5.4, 5.0)


def certified_accuracy(
    runs: Mapping[str, Sequence[statements.Image]],
    attacked: Mapping[str, list[tuple[float, float]]],
    alpha: float = 0.05,
) -> Figure:
    """Certified accuracy against the radius, with confidence bands of few runs, and the accuracy under attack.

    Args:
      runs: results of the images, by name of the run.
      attacked: pairs (radius, robust accuracy in [0, 1]), by name of the run.
      alpha: 1 minus the confidence level of the bands, which hold at all radii at once.
    """
    largest = max(line.radius for found in runs.values() for line in found) or 1.0
    has_bands = len(runs) <= _MOST_BANDS
    end = 1.05 * max(largest, *(points[-1][0] for points in attacked.values()), 0.0)

    def draw(axes: Axes) -> None:
        for (name, found), style in zip(runs.items(), canvas.line_styles(), strict=False):
            radii, reached = _steps(found, end), np.sort([one.radius for one in found if one.correct])
            shares = (100 * (len(reached) - np.searchsorted(reached, radii)) / len(found)).tolist()
            axes.plot(radii, shares, drawstyle="steps-pre", label=canvas.entry(name), **style)
            if has_bands:
                canvas.fill_band(axes, radii, shares, len(found), alpha, style["color"])
            if name in attacked:
                points = np.transpose(attacked[name]) * [[1], [100]]
                legend = canvas.entry(f"{name}, attacked")
                axes.plot(*points, "x--", drawstyle="steps-post", color=style["color"], label=legend)
        axes.set(xlabel="L2 radius (pixels in [0, 1])", ylabel="certified accuracy, %", ylim=(0, canvas.ABOVE_ALL))
        axes.set_xlim(0, end)
        axes.legend()

    caption = "Share of images that are classified correctly and certified to at least this radius."
    if has_bands:
        caption += (
            f" Bands: with {100 * (1 - alpha):g} % confidence, the curve of all images that these were drawn from "
            "lies inside, at every radius at once."
        )
    if attacked:
        caption += " Crosses: the share of the attacked images whose class the attacks could not change."
    return Figure("certified-accuracy", caption, draw, canvas.PAGE)


def cost(runs: Mapping[str, Sequence[record.Certificate]], evaluations: str) -> Figure:
    """Evaluations against the certified radius, one point for each image.

    Args:
      runs: certificates, by name of the run.
      evaluations: what the evaluations are of, such as "cell evaluations".
    """

    def draw(axes: Axes) -> None:
        for (name, found), style in zip(runs.items(), canvas.line_styles(), strict=False):
            points = np.transpose([(c.radius, c.evaluations) for c in found])
            axes.plot(*points, "o", ms=4, alpha=0.6, color=style["color"], label=canvas.entry(name))
        axes.set(xlabel="certified radius", ylabel=evaluations, yscale="log")
        axes.legend()

    return Figure(
        "cost", "What each image cost, against the radius that was certified. Abstentions are at 0.", draw
    )


def residuals(runs: Mapping[str, Sequence[record.Certificate]]) -> Figure | None:
    """Histogram over images of the median relative residual; None if no positive residual is known."""
    solved = {name: [c.residuals[0] for c in found if c.residuals] for name, found in runs.items()}
    solved = {name: [x for x in found if x <= sys.float_info.max] for name, found in solved.items()}
    positive = [x for found in solved.values() for x in found if x > 0]
    if not positive:
        return None
    return _histogram(
        "residuals",
        "How far from the equilibrium the solves ended.",
        solved,
        np.geomspace(min(positive) / 1.1, 1.1 * max(positive), 30),
        xlabel="median relative residual of an image's solves",
        xscale="log",
    )


def mismatches(runs: Mapping[str, Sequence[record.Certificate]]) -> Figure | None:
    """Histogram over images of the share of audited votes that are wrong; None if no vote was audited."""
    audited = {
        name: [100 * c.mismatches / c.num_audit for c in found if c.num_audit] for name, found in runs.items()
    }
    shares = [x for found in audited.values() for x in found]
    if not shares:
        return None
    return _histogram(
        "mismatches",
        "Audited votes that are not those of the classifier that is certified.",
        audited,
        np.linspace(0, max(max(shares), 1.0), 30),
        xlabel="votes that the reference does not confirm, %",
    )


def scatter(
    name: str, first: tuple[str, Sequence[statements.Image]], second: tuple[str, Sequence[statements.Image]]
) -> Figure:
    """Radii of one run against radii of another, one point for each image that both have.

    Args:
      name: stem of the figure's files.
      first: name and results of the run on the horizontal axis.
      second: name and results of the run on the vertical axis.
    """
    pairs = [(a.radius, b.radius) for a, b in statements.paired(first[1], second[1])]
    change = [100 * (b / a - 1) for a, b in pairs if a > 0]

    def draw(axes: Axes) -> None:
        largest = max(max(pair) for pair in pairs) or 1.0
        axes.plot([0, largest], [0, largest], linewidth=1, color=axes.xaxis.label.get_color())
        axes.plot(*zip(*pairs, strict=True), "o", ms=4, alpha=0.6, color=canvas.COLOURS[1])
        names = [canvas.entry(f"radius, {run[0]}") for run in (first, second)]
        axes.set(xlabel=names[0], ylabel=names[1], aspect="equal")

    caption = f"Certified radii of {len(pairs)} images. Above the line, {second[0]} certifies more."
    if change:
        caption += (
            f" Relative difference where {first[0]} certifies: median {np.median(change):+.1f} %, "
            f"from {min(change):+.1f} to {max(change):+.1f} %."
        )
    return Figure(name, caption, draw, _SQUARE)


def possible_radii(
    name: str, caption: str, possible: Sequence[tuple[float, float]], bounds: Mapping[str, Sequence[float]]
) -> Figure:
    """Certified radii by three formulas, and the interval of the true radius, one column for each image.

    Args:
      name: stem of the figure's files.
      caption: see `Figure`.
      possible: confidence interval (least, largest) of the radius at the true class probability, for every image,
        from independent votes; the ends may be infinite.
      bounds: certified radii of the images by the name of the bound, for three bounds; the last is not valid.
    """
    order = np.lexsort(np.transpose(possible))
    lower, upper = np.transpose(possible)[:, order]
    places = np.arange(len(order))
    largest = max(x for values in (lower, upper, *bounds.values()) for x in values if np.isfinite(x)) or 1.0
    top = 1.05 * largest

    def draw(axes: Axes) -> None:
        grey = axes.xaxis.label.get_color()
        axes.bar(places, np.minimum(upper, top) - lower, 0.8, lower, color=grey, alpha=0.3, label="possible")
        colours = (canvas.COLOURS[place] for place in (0, 2, 1))
        for (bound, radii), marker, colour in zip(bounds.items(), "o+x", colours, strict=True):
            axes.plot(places, np.asarray(radii)[order], marker, ms=5, color=colour, label=bound)
        axes.set(xlabel="images, by what is possible", ylabel="radius (pixels in [0, 1])", ylim=(-0.02 * top, top))
        axes.set_xticks([])
        axes.legend()

    return Figure(name, caption, draw)


def slack(name: str, caption: str, slacks: Mapping[str, Sequence[float]]) -> Figure:
    """Histogram over images of the slack of an audit: its bound on the wrong votes minus their number.

    Args:
      name: stem of the figure's files.
      caption: see `Figure`.
      slacks: slack of every image, in percent of the votes, by the name of the audit.
    """
    every = [x for found in slacks.values() for x in found]
    bins = np.linspace(min(0.0, *every), max(every), 30)
    return _histogram(name, caption, slacks, bins, xlabel="bound on wrong votes less their number, % of the votes")


def _steps(found: Sequence[statements.Image], end: float) -> list[float]:
    """The radii at which certified accuracy falls, from 0 to `end`; where there are too many, evenly spaced ones.

    Between two of them it has its value at the larger one, or is above it.
    """
    radii = np.unique([0.0, *(line.radius for line in found if line.correct), end])
    return (radii if len(radii) <= _POINTS else np.linspace(0.0, end, _POINTS)).tolist()


def _histogram(
    name: str, caption: str, values: Mapping[str, Sequence[float]], bins: np.ndarray, **labels: str
) -> Figure:
    """Histograms over images as outlines, by name; a name without values has none.

    Args:
      name: stem of the figure's files.
      caption: see `Figure`.
      values: a value for each image, by name.
      bins: edges of the bins.
      **labels: properties of the axes.
    """

    def draw(axes: Axes) -> None:
        for (label, found), style in zip(values.items(), canvas.line_styles(), strict=False):
            if found:
                axes.hist(found, bins.tolist(), histtype="step", label=canvas.entry(label), **style)
        axes.set(ylabel="images", **labels)
        axes.locator_params(axis="y", integer=True)
        axes.legend()

    return Figure(name, caption, draw)
