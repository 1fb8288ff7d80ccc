"""Figures of reports and experiments: runs of certificates, or numbers computed from them, to images (matplotlib).

A figure is rendered when one of its images is first asked for. This module writes no files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deqsmooth.certificates import record, statements

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_POINTS = 200
_COLOURS_OF_PAGE = {
    "light": {"text": "#1a1a1a", "grid": "#d9d9d9"},
    "dark": {"text": "#e6e6e6", "grid": "#444444"},
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#882255")
_DASHES = ("-", "--", ":", "-.")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure, whose images are rendered on demand and kept.

    Attributes:
      name: stem of its files.
      caption: one or more sentences on what it shows.
      draw: function that draws the figure on matplotlib axes.

    Raises:
      ValueError: matplotlib is not installed.
    """

    name: str
    caption: str
    draw: Callable[[Axes], None]

    def __post_init__(self) -> None:
        check()

    @functools.cached_property
    def light(self) -> str:
        """SVG with a transparent background for a light page."""
        return self._render("light", "svg").decode()

    @functools.cached_property
    def dark(self) -> str:
        """SVG with a transparent background for a dark page."""
        return self._render("dark", "svg").decode()

    @functools.cached_property
    def png(self) -> bytes:
        """PNG with a white background."""
        return self._render("light", "png")

    def _render(self, page: Literal["light", "dark"], kind: Literal["svg", "png"]) -> bytes:
        with _canvas(page) as canvas:
            self.draw(canvas.add_subplot())
            content = io.BytesIO()
            # Without a date, and with fixed element names, the file depends on the data alone.
            metadata = {"Date": None} if kind == "svg" else None
            canvas.savefig(content, format=kind, metadata=metadata, transparent=kind == "svg", dpi=200)
            return content.getvalue()


def certified_accuracy(
    runs: Mapping[str, Sequence[statements.Image]],
    attacked: Mapping[str, list[tuple[float, float]]],
    alpha: float = 0.05,
) -> Figure:
    """Certified accuracy against the radius, with confidence bands, and the accuracy under attack.

    Args:
      runs: results of the images, by name of the run.
      attacked: pairs (radius, robust accuracy in [0, 1]), by name of the run.
      alpha: 1 minus the confidence level of the bands, which are intervals over images.
    """
    largest = max(line.radius for found in runs.values() for line in found) or 1.0
    radii = np.linspace(0, 1.05 * largest, _POINTS)

    def draw(axes: Axes) -> None:
        for (name, found), style in zip(runs.items(), _line_styles(), strict=False):
            curve = [statements.accuracy(found, radius, alpha) for radius in radii]
            shares, lower, upper = (
                100 * np.array([getattr(x, end) for x in curve]) for end in curve[0]._fields[1:]
            )
            axes.plot(radii, shares, label=name, **style)
            axes.fill_between(radii, lower, upper, color=style["color"], alpha=0.15, linewidth=0)
            if name in attacked:
                points = np.array(attacked[name])
                axes.plot(*points.T * [[1], [100]], "x--", color=style["color"], label=f"{name}, attacked")
        axes.set(xlabel="L2 radius (pixels in [0, 1])", ylabel="certified accuracy, %", ylim=(0, 100))
        axes.set_xlim(0, max([radii[-1], *(1.05 * points[-1][0] for points in attacked.values())]))
        axes.legend()

    caption = (
        "Share of images that are classified correctly and certified to at least this radius. Bands: "
        f"{100 * (1 - alpha):g} % interval for the images that these were drawn from, at each radius by itself."
    )
    if attacked:
        caption += " Crosses: the share of the attacked images whose class the attacks could not change."
    return Figure("certified-accuracy", caption, draw)


def cost(runs: Mapping[str, Sequence[record.Certificate]]) -> Figure:
    """Cell evaluations against the certified radius, one point for each image."""

    def draw(axes: Axes) -> None:
        for (name, found), style in zip(runs.items(), _line_styles(), strict=False):
            spent = [c.evaluations for c in found]
            axes.plot([c.radius for c in found], spent, "o", ms=4, alpha=0.6, color=style["color"], label=name)
        axes.set(xlabel="certified radius", ylabel="cell evaluations", yscale="log")
        axes.legend()

    return Figure(
        "cost", "What each image cost, against the radius that was certified. Abstentions are at 0.", draw
    )


def residuals(runs: Mapping[str, Sequence[record.Certificate]]) -> Figure | None:
    """Histogram over images of the median relative residual; None if no positive residual is known."""
    solved = {name: [c.residuals[0] for c in found if c.residuals] for name, found in runs.items()}
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
    first: tuple[str, Sequence[statements.Image]], second: tuple[str, Sequence[statements.Image]]
) -> Figure:
    """Radii of one run against radii of another, one point for each image that both have.

    Args:
      first: name and results of the run on the horizontal axis.
      second: name and results of the run on the vertical axis.
    """
    pairs = [(a.radius, b.radius) for a, b in statements.paired(first[1], second[1])]
    change = [100 * (b / a - 1) for a, b in pairs if a > 0]

    def draw(axes: Axes) -> None:
        largest = max(max(pair) for pair in pairs) or 1.0
        axes.plot([0, largest], [0, largest], linewidth=1, color=axes.xaxis.label.get_color())
        axes.plot(*zip(*pairs, strict=True), "o", ms=4, alpha=0.6, color=_COLOURS[1])
        axes.set(xlabel=f"radius, {first[0]}", ylabel=f"radius, {second[0]}", aspect="equal")

    caption = f"Certified radii of {len(pairs)} images."
    if change:
        caption += (
            f" Relative difference where {first[0]} certifies: median {np.median(change):+.1f} %, "
            f"from {min(change):+.1f} to {max(change):+.1f} %."
        )
    return Figure(f"radii-{second[0]}", caption, draw)


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
        colours = (_COLOURS[place] for place in (0, 2, 1))
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


def check() -> None:
    """Raises ValueError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("figures are drawn with matplotlib: pip install matplotlib")


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
        for (label, found), style in zip(values.items(), _line_styles(), strict=False):
            if found:
                axes.hist(found, bins.tolist(), histtype="step", label=label, **style)
        axes.set(ylabel="images", **labels)
        axes.legend()

    return Figure(name, caption, draw)


def _line_styles() -> Iterator[dict[str, Any]]:
    """Colour and dash of each run; they repeat after 32 runs."""
    for dash, colour in itertools.cycle(itertools.product(_DASHES, _COLOURS)):
        yield {"color": colour, "linestyle": dash}


@contextlib.contextmanager
def _canvas(page: Literal["light", "dark"]) -> Iterator[Canvas]:
    """An empty matplotlib figure, with the settings that apply while something is drawn on it."""
    import matplotlib
    from matplotlib import figure

    text, grid = _COLOURS_OF_PAGE[page]["text"], _COLOURS_OF_PAGE[page]["grid"]
    settings: dict[Any, Any] = {
        "svg.hashsalt": "deqsmooth",
        "axes.edgecolor": grid,
        "axes.grid": True,
        "axes.labelcolor": text,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "text.color": text,
        "xtick.color": text,
        "ytick.color": text,
        "font.size": 10,
    }
    with matplotlib.rc_context(settings):
        yield figure.Figure(figsize=(7, 4.2), layout="constrained")
