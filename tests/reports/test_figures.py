"""Figures: what is drawn, read from the axes."""

import re
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from deqsmooth.certificates import cohen, statements
from deqsmooth.reports import canvas, figures


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
