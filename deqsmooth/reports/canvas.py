"""Figures as images (matplotlib), and the marks and texts that all of them share.

A figure is rendered when one of its images is first asked for. This module writes no files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import io
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Canvas

ADVICE = "pip install matplotlib"
"""What to do where figures cannot be drawn."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#882255")
_DASHES = ("-", "--", ":", "-.")
_COLOURS_OF_PAGE = {
    "light": {"text": "#1a1a1a", "grid": "#d9d9d9"},
    "dark": {"text": "#e6e6e6", "grid": "#444444"},
}
_MOST_INSIDE = 10
_LONGEST_NAME = 60
# Inches.
_SIZE = (7, 4.2)
_LINE = 0.22


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
        with _canvas(page) as canvas, warnings.catch_warnings():
            # A name may have letters that the font lacks; they are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph")
            axes = canvas.add_subplot()
            self.draw(axes)
            _make_room(canvas, axes)
            content = io.BytesIO()
            # Without a date, and with fixed element names, the file depends on the data alone.
            metadata = {"Date": None} if kind == "svg" else None
            canvas.savefig(content, format=kind, metadata=metadata, transparent=kind == "svg", dpi=200)
            return content.getvalue()


def is_possible() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def check() -> None:
    """Raises ValueError if matplotlib is not installed."""
    if not is_possible():
        raise ValueError(f"figures are drawn with matplotlib, which is not installed: {ADVICE}")


def entry(name: str) -> str:
    """The name as text of a legend or an axis: no formula, not too long, not hidden by an underscore."""
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME // 2]}…{name[-_LONGEST_NAME // 2 :]}"
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def line_styles() -> Iterator[dict[str, Any]]:
    """Colour and dash of each run; they repeat after 32 runs."""
    for dash, colour in itertools.cycle(itertools.product(_DASHES, COLOURS)):
        yield {"color": colour, "linestyle": dash}


def _make_room(canvas: Canvas, axes: Axes) -> None:
    """Puts a legend of many entries below the axes, and makes the figure higher by it."""
    legend = axes.get_legend()
    if legend is None or len(legend.get_texts()) <= _MOST_INSIDE:
        return
    legend.remove()
    handles, labels = axes.get_legend_handles_labels()
    canvas.set_figheight(_SIZE[1] + _LINE * (len(labels) + 1))
    canvas.legend(handles, labels, loc="outside lower left")


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
        yield figure.Figure(figsize=_SIZE, layout="constrained")
