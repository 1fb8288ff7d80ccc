"""Figures: what is drawn, read from the axes."""

import itertools
import re
import statistics
import warnings

import numpy as np
import pytest
import support
from matplotlib.figure import Figure

from deqsmooth.certificates import cohen, statements
from deqsmooth.reports import canvas, figures, trade, votes


def line(index, radius, correct=True):
    return cohen.Published(index, 1, 1 if correct else 2, radius, correct, 0.0)


FOUND = [line(0, 0.5), line(1, 0.2), line(2, 0.9, correct=False), line(3, 0.5), line(4, 0.0, correct=False)]


def drawn(figure):
    axes = Figure().add_subplot()
    figure.draw(axes)
    return axes


def test_figures_render_each_image_once(monkeypatch):
    asked = []
    monkeypatch.setattr(canvas.Figure, "_render", lambda _, size, kind: asked.append((size, kind)) or b"")
    figure = figures.slack("name", "caption", {"an audit": [1.0]})
    assert asked == []
    for _ in range(2):
        assert figure.png == b"" and figure.wide == ""
    assert [kind for _, kind in asked] == ["png", "svg"]


@pytest.mark.parametrize("most", [1000, 40])
def test_accuracy_is_drawn_in_steps(most, monkeypatch):
    """A vertical fall at each radius; with few points, never above the accuracy."""
    monkeypatch.setattr(figures, "_POINTS", most)
    found = FOUND if most == 1000 else [line(i, i / 97) for i in range(90)]
    (curve,) = drawn(figures.certified_accuracy({"a": found}, {})).lines
    assert curve.get_drawstyle() == "steps-pre"
    radii, shares = curve.get_xdata(), curve.get_ydata()
    assert len(radii) <= most
    for radius in np.linspace(0, radii[-1], 301):
        place = np.searchsorted(radii, radius)
        truth = 100 * statements.certified_accuracy(found, radius)
        assert shares[place] <= truth + 1e-9
        assert most == 40 or shares[place] == pytest.approx(truth)


def test_curves_at_the_top_are_seen():
    """Below the upper end of the axes, which still has its tick at 100 %."""
    certified = [certificate(95, 0.9), certificate(90, 0.8)]
    for figure in (figures.certified_accuracy({"a": FOUND[:1]}, {}), votes.votes({"a": certified})):
        axes = drawn(figure)
        assert max(max(one.get_ydata()) for one in axes.lines if len(one.get_ydata()) > 2) == 100
        assert 101 < axes.get_ylim()[1] < 105


def test_images_are_counted_in_integers():
    for num in (1, 2, 3, 40):
        axes = drawn(figures.slack("name", "caption", {"an audit": [1.0] * num}))
        ticks = axes.get_yticks()
        assert len(ticks) >= 2 and all(tick == round(tick) for tick in ticks)


def test_attacked_accuracy_is_a_bound():
    """Within a radius that was not tried, attacks leave no more than within the one below."""
    lines = drawn(figures.certified_accuracy({"a": FOUND}, {"a": [(0.25, 0.6), (0.5, 0.4)]})).lines
    assert [one.get_drawstyle() for one in lines] == ["steps-pre", "steps-post"]
    np.testing.assert_allclose(lines[1].get_xydata(), [[0.25, 60], [0.5, 40]])


@pytest.mark.parametrize("num", [2, 30])
def test_legend_names_every_run(num):
    """Also names that look like formulas or are hidden, and more than fit into the axes."""
    names = [f"_a$x$ $\\foo$ 日 {i}" for i in range(num)]
    figure = figures.certified_accuracy(dict.fromkeys(names, FOUND), {})
    shown = [text.get_text() for text in drawn(figure).get_legend().get_texts()]
    assert [text.strip().replace("\\$", "$") for text in shown] == names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figure.wide.startswith("<?xml")


def test_drawing_follows_dark_pages():
    """Every colour that is drawn is replaced where the light one would be hard to read."""
    svg = figures.certified_accuracy({"a": FOUND}, {}).narrow
    style, drawing = re.search(r"<style>@media screen and (.*?)</style>(.*)", svg, re.DOTALL).groups()
    for light, dark in ((canvas.TEXT, "#e6e6e6"), (canvas.FAINT, "#444444"), (canvas.COLOURS[0], "#4aa8e0")):
        assert light in drawing
        assert f'"stroke: {light}"] {{ stroke: {dark}' in style


def certificate(count, p_lower, num=100):
    return support.certificate(0, count=count, num_estimation=num, p_lower=p_lower)


def curves(figure):
    axes = drawn(figure)
    return [one for one in axes.lines if len(one.get_xdata()) > 2], axes


def test_votes_are_drawn_in_steps():
    """At each share the part of the images with at least this share, for bounds and for estimates."""
    found = [certificate(95, 0.9), certificate(100, 0.95), certificate(60, 0.45), certificate(95, 0.9)]
    (bounds, estimates), axes = curves(votes.votes({"a": found}))
    scale = statistics.NormalDist()
    for curve, values in ((bounds, [0.9, 0.95, 0.45, 0.9]), (estimates, [0.95, 0.995, 0.6, 0.95])):
        assert curve.get_drawstyle() == "steps-pre"
        for share in np.linspace(0.4, 0.994, 50):
            place = np.searchsorted(curve.get_xdata(), scale.inv_cdf(share))
            assert curve.get_ydata()[place] == 100 * np.mean(np.asarray(values) >= share)
    ticks = {text.get_text(): tick for tick, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert ticks["90 %"] == pytest.approx(scale.inv_cdf(0.9)) and "50 %" in ticks


@pytest.mark.parametrize("p_lower", [0.0, 1.0, -3.0, 7.0, float("nan"), float("inf")])
def test_impossible_votes_are_drawn(p_lower):
    """Files that do not verify may hold any number."""
    found = [certificate(10**6, p_lower, num=0), certificate(50, 0.4)]
    for curve in curves(votes.votes({"a": found}))[0]:
        assert np.all(np.isfinite(curve.get_xydata()))


def test_many_runs_show_no_estimates():
    found = {str(i): [certificate(95, 0.9), certificate(90, 0.8)] for i in range(6)}
    assert len(curves(votes.votes(found))[0]) == 6


@pytest.mark.parametrize("num", [3, 7, 33])
def test_names_of_points_lie_apart(num):
    """Every point has its name, in full or short, and names do not lie on each other."""
    points = [trade.Point(f"name {i}", f"{i}", 100.0 + i % 5, 0.4 + 0.001 * (i % 3)) for i in range(num)]
    axes = drawn(trade.trade(points, "evaluations"))
    assert [text.get_text() for text in axes.texts] == [p.name if num == 3 else p.short for p in points]
    assert (axes.get_legend() is not None) == (num == 7)
    # What is written does not widen the axes.
    assert axes.get_xlim()[0] > 99 and axes.get_ylim()[0] > 0.39
    places = [text.get_position() for text in axes.texts]
    if num < 33:
        assert all(abs(a[1] - b[1]) > 0.06 or a[0] != b[0] for a, b in itertools.combinations(places, 2))
    marks = [one for one in axes.lines if one.get_marker() != "None"]
    assert [tuple(one.get_xydata()[0]) for one in marks] == [(p.evaluations, p.radius) for p in points]


def test_costs_have_readable_ticks():
    ticks = trade._ticks(8_000, 400_000)
    assert ticks == sorted(ticks) and {10_000, 100_000} <= set(ticks) and len(ticks) >= 3
    assert len(trade._ticks(100, 110)) <= 1
