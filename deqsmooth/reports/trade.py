"""Figure of the trade of accuracy against evaluations, one point for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deqsmooth.reports import canvas

if TYPE_CHECKING:
    from deqsmooth.reports.canvas import Axes

# More runs than this have short names at their points, and more than the second number have no others.
_MOST_AT_POINTS, _MOST_NAMES = 4, 10
_FEWEST_TICKS = 3
_MARKERS = "os^Dv"
# Shares of the height of the axes that a name takes, and of their width between a point and its name.
_HEIGHT, _GAP = 0.07, 0.012
# Inches of a letter; a name of so few letters is always to the right of its point.
_LETTER, _SHORT = 0.075, 4


class Point(NamedTuple):
    """A run.

    Attributes:
      name: its name.
      short: a shorter one.
      evaluations: mean evaluations of an image, positive.
      radius: average certified radius.
    """

    name: str
    short: str
    evaluations: float
    radius: float


def trade(points: Sequence[Point], evaluations: str) -> canvas.Figure:
    """Average certified radius against the mean evaluations of an image, one point for each run.

    Args:
      points: the runs.
      evaluations: what the evaluations are of, such as "cell evaluations".
    """
    at_points = len(points) <= _MOST_AT_POINTS

    def draw(axes: Axes) -> None:
        for place, point in enumerate(points):
            colour = canvas.COLOURS[place % len(canvas.COLOURS)]
            marker = _MARKERS[place // len(canvas.COLOURS) % len(_MARKERS)]
            name = canvas.entry(point.name)
            axes.plot(point.evaluations, point.radius, marker, color=colour, ms=6, label=name)
        axes.set(xlabel=f"{evaluations} per image", ylabel="average certified radius", xscale="log")
        axes.margins(x=0.1, y=0.15)
        ticks = _ticks(*axes.get_xlim())
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
        _write(axes, [(point.name if at_points else point.short, point) for point in points])
        if not at_points and len(points) <= _MOST_NAMES:
            axes.legend()

    caption = (
        f"What accuracy costs: the average certified radius of each run against the {evaluations} that it "
        "spent on an image. Up and to the left is better."
    )
    return canvas.Figure("trade", caption, draw, canvas.PAGE)


def _ticks(low: float, high: float) -> list[int]:
    """The numbers 1, 2 and 5 times powers of ten in a range, or all of one digit if there are few."""
    for digits in ((1,), (1, 2, 5), range(1, 10)):
        found = [digit * 10**power for power in range(16) for digit in digits]
        inside = [tick for tick in found if low <= tick <= high]
        if len(inside) >= _FEWEST_TICKS:
            break
    return inside


def _write(axes: Axes, names: Sequence[tuple[str, Point]]) -> None:
    """Writes each name beside its point, towards the middle, or higher or lower where it would lie on others."""
    (left, right), (bottom, top) = np.log(axes.get_xlim()), axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    letter = _LETTER / figure.get_figwidth()
    at = [
        ((np.log(one.evaluations) - left) / (right - left), (one.radius - bottom) / (top - bottom))
        for _, one in names
    ]
    taken = [(x - _GAP / 2, x + _GAP / 2, y) for x, y in at]
    for (name, _), (x, y) in zip(names, at, strict=True):
        text = canvas.entry(name)
        to_right = x < 0.5 or len(text) <= _SHORT
        beside = x + _GAP if to_right else x - _GAP
        begin = beside if to_right else beside - letter * len(text)
        end = begin + letter * len(text)
        near = [height for begins, ends, height in taken if begin < ends and begins < end]
        steps = sorted(range(-60, 61), key=abs)
        heights = [y + step * _HEIGHT / 6 for step in steps]
        free = (h for h in heights if 0 < h < 1 and all(abs(h - there) >= _HEIGHT for there in near))
        height = next(free, y)
        taken.append((begin, end, height))
        if height != y:
            line, grey = ([x, beside], [y, height]), canvas.TEXT
            axes.plot(*line, color=grey, alpha=0.4, linewidth=0.6, transform=axes.transAxes)
        side = "left" if to_right else "right"
        axes.text(beside, height, text, fontsize=9, va="center", ha=side, transform=axes.transAxes)
