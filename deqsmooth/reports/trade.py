"""Figure of the trade of accuracy against evaluations, one point for each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deqsmooth.reports import canvas

if TYPE_CHECKING:
    from deqsmooth.reports.canvas import Axes

# More names than this are in a legend.
_MOST_NAMES = 8
_FEWEST_TICKS = 3
_MARKERS = "os^Dv"
# Share of the height of the axes that a name takes, and of their width between a point and its name.
_HEIGHT, _GAP = 0.07, 0.015


def trade(points: Mapping[str, tuple[float, float]]) -> canvas.Figure:
    """Average certified radius against the mean evaluations of an image, one point for each run.

    Args:
      points: (mean evaluations, average certified radius) by name of the run.
    """
    has_names = len(points) <= _MOST_NAMES

    def draw(axes: Axes) -> None:
        for place, (name, (cost, radius)) in enumerate(points.items()):
            colour = canvas.COLOURS[place % len(canvas.COLOURS)]
            marker = _MARKERS[place // len(canvas.COLOURS) % len(_MARKERS)]
            axes.plot(cost, radius, marker, color=colour, ms=6, label=canvas.entry(name))
        axes.set(xlabel="evaluations per image", ylabel="average certified radius", xscale="log")
        axes.margins(x=0.1, y=0.15)
        ticks = _ticks(*axes.get_xlim())
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
        if has_names:
            _write_names(axes, points)
        else:
            axes.legend()

    caption = (
        "What accuracy costs: the average certified radius of each run against the network evaluations that "
        "it spent on an image. Up and to the left is better."
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


def _write_names(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Writes the name of each point beside it, towards the middle, so that no name lies on another."""
    (left, right), (bottom, top) = np.log(axes.get_xlim()), axes.get_ylim()
    free = {True: bottom, False: bottom}
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        is_left = bool(np.log(x) < (left + right) / 2)
        place = max(y, free[is_left])
        free[is_left] = place + _HEIGHT * (top - bottom)
        beside = x * np.exp((_GAP if is_left else -_GAP) * (right - left))
        axes.text(beside, place, canvas.entry(name), fontsize=9, va="center", ha="left" if is_left else "right")
