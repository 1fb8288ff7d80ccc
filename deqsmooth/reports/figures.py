"""Figures of reports and experiments, each drawn for a light and for a dark page (matplotlib).

Takes runs of certificates, or numbers made from them, and writes no file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deqsmooth.certificates import record, statements

_POINTS = 200
_STYLES = {
    "light": {"text": "#1a1a1a", "grid": "#d9d9d9"},
    "dark": {"text": "#e6e6e6", "grid": "#444444"},
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#882255")
_DASHES = ("-", "--", ":", "-.")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
      name: of its files.
      caption: what it shows, a sentence.
      light: SVG on a light page.
      dark: SVG on a dark page.
      png: PNG on white.
    """

    name: str
    caption: str
    light: str
    dark: str
    png: bytes


def certified_accuracy(
    runs: Mapping[str, Sequence[statements.Image]],
    attacked: Mapping[str, list[tuple[float, float]]],
    alpha: float = 0.05,
) -> Figure:
    """Certified accuracy against the radius, with its interval over images, and what attacks leave.

    Args:
      runs: images by name of the run.
      attacked: radii and robust accuracies by name of the run.
      alpha: probability that an interval misses, at most.
    """
    largest = max(line.radius for found in runs.values() for line in found) or 1.0
    radii = np.linspace(0, 1.05 * largest, _POINTS)

    def draw(axes):
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
    return _figure("certified-accuracy", caption, draw)


def cost(runs: Mapping[str, Sequence[record.Certificate]]) -> Figure:
    """Cell evaluations against the radius that they bought, a point an image."""

    def draw(axes):
        for (name, found), style in zip(runs.items(), _line_styles(), strict=False):
            spent = [c.evaluations for c in found]
            axes.plot([c.radius for c in found], spent, "o", ms=4, alpha=0.6, color=style["color"], label=name)
        axes.set(xlabel="certified radius", ylabel="cell evaluations", yscale="log")
        axes.legend()

    return _figure(
        "cost", "What each image cost, against the radius that was certified. Abstentions are at 0.", draw
    )


def residuals(runs: Mapping[str, Sequence[record.Certificate]]) -> Figure | None:
    """Histogram over images of the median relative residual; None if nothing was solved."""
    solved = {name: [c.residuals[0] for c in found if c.residuals] for name, found in runs.items()}
    positive = [x for found in solved.values() for x in found if x > 0]
    if not positive:
        return None
    bins = np.geomspace(min(positive) / 1.1, 1.1 * max(positive), 30)

    def draw(axes):
        for (name, found), style in zip(solved.items(), _line_styles(), strict=False):
            if found:
                axes.hist(found, bins, histtype="step", label=name, **style)
        axes.set(xlabel="median relative residual of an image's solves", ylabel="images", xscale="log")
        axes.legend()

    return _figure("residuals", "How far from the equilibrium the solves ended.", draw)


def mismatches(runs: Mapping[str, Sequence[record.Certificate]]) -> Figure | None:
    """Histogram over images of the share of audited votes that were wrong; None if nothing was audited."""
    audited = {
        name: [100 * c.mismatches / c.num_audit for c in found if c.num_audit] for name, found in runs.items()
    }
    shares = [x for found in audited.values() for x in found]
    if not shares:
        return None
    bins = np.linspace(0, max(max(shares), 1.0), 30)

    def draw(axes):
        for (name, found), style in zip(audited.items(), _line_styles(), strict=False):
            if found:
                axes.hist(found, bins, histtype="step", label=name, **style)
        axes.set(xlabel="votes that the reference does not confirm, %", ylabel="images")
        axes.legend()

    return _figure("mismatches", "Audited votes that are not those of the classifier that is certified.", draw)


def scatter(
    first: tuple[str, Sequence[statements.Image]], second: tuple[str, Sequence[statements.Image]]
) -> Figure:
    """Radii of the images that two runs have in common, one against the other."""
    pairs = [(a.radius, b.radius) for a, b in statements.paired(first[1], second[1])]
    change = [100 * (b / a - 1) for a, b in pairs if a > 0]

    def draw(axes):
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
    return _figure(f"radii-{second[0]}", caption, draw)


def beside_truth(
    name: str, caption: str, possible: Sequence[tuple[float, float]], bounds: Mapping[str, Sequence[float]]
) -> Figure:
    """Certified radii by several formulas beside those that are possible, a column an image.

    Args:
      name: of the figure.
      caption: what it shows.
      possible: the least and the largest radius of every image that its votes leave possible; may be infinite.
      bounds: certified radii of the images, by the names of three formulas, the last of which is not valid.
    """
    order = np.lexsort(np.transpose(possible))
    lower, upper = np.transpose(possible)[:, order]
    places = np.arange(len(order))
    largest = max(x for values in (lower, upper, *bounds.values()) for x in values if np.isfinite(x)) or 1.0
    top = 1.05 * largest

    def draw(axes):
        grey = axes.xaxis.label.get_color()
        axes.bar(places, np.minimum(upper, top) - lower, 0.8, lower, color=grey, alpha=0.3, label="possible")
        colours = (_COLOURS[place] for place in (0, 2, 1))
        for (bound, radii), marker, colour in zip(bounds.items(), "o+x", colours, strict=True):
            axes.plot(places, np.asarray(radii)[order], marker, ms=5, color=colour, label=bound)
        axes.set(xlabel="images, by what is possible", ylabel="radius (pixels in [0, 1])", ylim=(-0.02 * top, top))
        axes.set_xticks([])
        axes.legend()

    return _figure(name, caption, draw)


def gaps(name: str, caption: str, shares: Mapping[str, Sequence[float]]) -> Figure:
    """Histogram over images of how far bounds on wrong votes lie above their number.

    Args:
      name: of the figure.
      caption: what it shows.
      shares: of every image, in percent of the votes, by the name of the audit.
    """
    every = [x for found in shares.values() for x in found]
    bins = np.linspace(min(0.0, *every), max(every), 30)

    def draw(axes):
        for (audit, found), style in zip(shares.items(), _line_styles(), strict=False):
            axes.hist(found, bins, histtype="step", label=audit, **style)
        axes.set(xlabel="bound on wrong votes less their number, % of the votes", ylabel="images")
        axes.legend()

    return _figure(name, caption, draw)


def check() -> None:
    """Raises `ValueError` where nothing can be drawn, because matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("figures are drawn with matplotlib: pip install 'deqsmooth[plot]'")


def _line_styles() -> Iterator[dict[str, Any]]:
    for dash in _DASHES:
        for colour in _COLOURS:
            yield {"color": colour, "linestyle": dash}


def _figure(name: str, caption: str, draw: Callable[[Any], None]) -> Figure:
    light = _render(draw, "light", "svg").decode()
    dark = _render(draw, "dark", "svg").decode()
    return Figure(name, caption, light, dark, _render(draw, "light", "png"))


def _render(draw, style, kind) -> bytes:
    with _drawing(style) as (figure, axes):
        draw(axes)
        content = io.BytesIO()
        # Without a date and with fixed names of its parts a figure depends on its data alone.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(content, format=kind, metadata=metadata, transparent=kind == "svg", dpi=200)
        return content.getvalue()


@contextlib.contextmanager
def _drawing(style):
    check()
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    text, grid = _STYLES[style]["text"], _STYLES[style]["grid"]
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
        canvas = Canvas(figsize=(7, 4.2), layout="constrained")
        yield canvas, canvas.add_subplot()
