"""Figure of votes: how the share of votes for the selected class, and its lower bound, are spread over images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from deqsmooth.certificates import record
from deqsmooth.reports import canvas

if TYPE_CHECKING:
    from deqsmooth.reports.canvas import Axes

# The estimates of more runs than this are left out.
_MOST_ESTIMATES = 5
# Shares that the axis has ticks for, and the distance to 0 and 1 below which it does not tell shares from them.
_TICKS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.99999)
_NEAR = 1e-6
_MARGIN = 0.15
_ALPHA = 0.05


def votes(runs: Mapping[str, Sequence[record.Certificate]]) -> canvas.Figure:
    """Distribution over images of the share of votes for the selected class, and of its lower bound.

    Shares are stretched like the inverse of the normal distribution, so that radii are lengths on it. The
    estimates of many runs are left out.
    """
    has_estimates = len(runs) <= _MOST_ESTIMATES
    one_sided = all(c.p_upper is None for found in runs.values() for c in found)
    bounds = {name: [_probit(c.p_lower) for c in found] for name, found in runs.items()}
    estimates = {name: [_estimate(c) for c in found] for name, found in runs.items()}
    drawn = [x for found in (*bounds.values(), *(estimates.values() if has_estimates else ())) for x in found]
    low, high = min(*drawn, 0.0) - _MARGIN, max(*drawn, 0.0) + _MARGIN
    ticks = [share for share in _TICKS if low <= _probit(share) <= high]

    def draw(axes: Axes) -> None:
        for (name, found), style in zip(bounds.items(), canvas.line_styles(), strict=False):
            places, shares = _share_above(found, low, high)
            axes.plot(places, shares, drawstyle="steps-pre", label=canvas.entry(name), **style)
            if has_estimates:
                canvas.fill_band(axes, places, shares, len(found), _ALPHA, style["color"])
                points = _share_above(estimates[name], low, high)
                axes.plot(*points, drawstyle="steps-pre", color=style["color"], linewidth=1, alpha=0.5)
        if one_sided:
            axes.axvline(0, color=axes.xaxis.label.get_color(), linewidth=0.8)
        axes.set(xlabel="probability of the selected class under noise", ylabel="images, %")
        axes.set_xlim(low, high)
        axes.set_ylim(0, canvas.ABOVE_ALL)
        axes.set_xticks([_probit(share) for share in ticks], [f"{100 * share:g} %" for share in ticks])
        axes.legend()

    caption = (
        "Share of images whose selected class has at least this probability under noise (p_A), by the lower bound "
        "that the certificate rests on."
    )
    if has_estimates:
        caption += (
            f" Bands: with {100 * (1 - _ALPHA):g} % confidence, the curve of all images that these were drawn "
            "from lies inside everywhere. Thin lines: by the share of votes that was counted; unanimous votes are "
            "half a vote below 100 %."
        )
    if one_sided:
        caption += (
            " Images below 50 % have no certificate. Equal distances on the axis are equal differences of radius."
        )
    return canvas.Figure("votes", caption, draw, canvas.PAGE)


def _estimate(c: record.Certificate) -> float:
    """The share of votes that was counted, on the axis. It has no 1: unanimous votes are half a vote below it."""
    num = max(c.num_estimation, 1)
    return _probit(min(c.count / num, 1 - 0.5 / num))


def _probit(share: float) -> float:
    """The inverse of the normal distribution; shares that no axis shows are moved to its ends."""
    inside = min(max(share, _NEAR), 1 - _NEAR) if share == share else _NEAR
    return statistics.NormalDist().inv_cdf(inside)


def _share_above(values: Sequence[float], low: float, high: float) -> tuple[list[float], list[float]]:
    """Each value, and the share in percent of those that are at least as large: the corners of falling steps."""
    ordered = np.sort(values)
    places = np.unique([low, *values, high])
    shares = 100 * (1 - np.searchsorted(ordered, places) / len(ordered))
    return places.tolist(), shares.tolist()
