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
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from deqsmooth.statistics import bands

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Canvas

ADVICE = "pip install matplotlib"
"""What to do where figures cannot be drawn."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#882255")
"""Colours of lines and marks (Okabe & Ito 2008, and two more)."""
TEXT = "#1a1a1a"
"""Colour of text."""
FAINT = "#d9d9d9"
"""Colour of grids and borders."""
PAPER = "#fefefe"
"""Colour of an area that hides what lies below it."""
_DASHES = ("-", "--", ":", "-.")
# What a dark page shows instead of a colour.
_ON_DARK = {
    TEXT: "#e6e6e6",
    FAINT: "#444444",
    PAPER: "#161616",
    "#0072b2": "#4aa8e0",
    "#882255": "#d1709b",
    "#56b4e9": "#bfe6ff",
}
_MOST_INSIDE = 10
_LONGEST_NAME = 60
ABOVE_ALL = 102
"""Upper end of an axis of percentages, so that a curve at 100 % is seen."""
PAGE = (9.2, 3.5)
"""Width and height in inches of a drawing that is as wide as a page."""
# Inches.
_WIDE, _NARROW = (8.0, 3.8), (5.0, 3.6)
_LINE, _LETTER, _HANDLE = 0.2, 0.068, 0.6
# Points, and the largest share of the width of a narrow drawing that a legend inside the axes takes.
_SMALL, _INSIDE = 8.5, 0.4


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure, whose images are rendered on demand and kept.

    Attributes:
      name: stem of its files.
      caption: one or more sentences on what it shows.
      draw: function that draws the figure on matplotlib axes.
      size: width and height of the wide drawing in inches.

    Raises:
      ValueError: matplotlib is not installed.
    """

    name: str
    caption: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = _WIDE

    def __post_init__(self) -> None:
        check()

    @functools.cached_property
    def wide(self) -> str:
        """SVG for a page of 600 pixels or more, with a transparent background; it follows light and dark pages."""
        return self._render(self.size, "svg").decode()

    @functools.cached_property
    def narrow(self) -> str:
        """The same for a narrower page or half the width of a wide one."""
        return self._render(_NARROW, "svg").decode()

    @functools.cached_property
    def png(self) -> bytes:
        """PNG with a white background."""
        return self._render(self.size, "png")

    def _render(self, size: tuple[float, float], kind: Literal["svg", "png"]) -> bytes:
        with _canvas(size) as canvas, warnings.catch_warnings():
            # A name may have letters that the font lacks; they are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph")
            axes = canvas.add_subplot()
            self.draw(axes)
            _make_room(canvas, axes)
            content = io.BytesIO()
            # Without a date, and with fixed element names, the file depends on the data alone.
            metadata = {"Date": None} if kind == "svg" else None
            canvas.savefig(content, format=kind, metadata=metadata, transparent=kind == "svg", dpi=200)
            return _adaptive(content.getvalue()) if kind == "svg" else content.getvalue()


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


def fill_band(
    axes: Axes, places: Sequence[float], shares: Sequence[float], num: int, alpha: float, colour: str
) -> None:
    """Draws a confidence band around falling steps; see `deqsmooth.statistics.bands.half_width`.

    Args:
      axes: to draw on.
      places: where the steps fall.
      shares: of images, in percent, at these places.
      num: images.
      alpha: 1 minus the confidence level.
      colour: of the band.
    """
    width = 100 * bands.half_width(num, alpha)
    lower, upper = [max(x - width, 0) for x in shares], [min(x + width, 100) for x in shares]
    axes.fill_between(places, lower, upper, step="pre", color=colour, alpha=0.15, linewidth=0)


def _make_room(canvas: Canvas, axes: Axes) -> None:
    """Puts a legend of many entries, or of long ones in a narrow drawing, below the axes; the figure grows."""
    legend = axes.get_legend()
    if legend is None:
        return
    handles, labels = axes.get_legend_handles_labels()
    width = _LETTER * max(map(len, labels)) + _HANDLE
    is_narrow = width > _INSIDE * canvas.get_figwidth() and canvas.get_figwidth() <= _NARROW[0]
    if len(labels) <= _MOST_INSIDE and not is_narrow:
        return
    legend.remove()
    columns = max(1, int(canvas.get_figwidth() / width))
    canvas.set_figheight(canvas.get_figheight() + _LINE * (-(-len(labels) // columns) + 1))
    canvas.legend(handles, labels, loc="outside lower left", ncols=columns, fontsize=_SMALL)


def _adaptive(svg: bytes) -> bytes:
    """The drawing with the colours of a dark page for readers who prefer one; paper keeps the light ones."""
    rules = (
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}'
        for light, dark in _ON_DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media screen and (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"
    head, tag, rest = svg.partition(b"<defs>")
    return head + style.encode() + tag + rest


@contextlib.contextmanager
def _canvas(size: tuple[float, float]) -> Iterator[Canvas]:
    """An empty matplotlib figure, with the settings that apply while something is drawn on it."""
    import matplotlib
    from matplotlib import figure

    settings: dict[Any, Any] = {
        "svg.hashsalt": "deqsmooth",
        "axes.edgecolor": FAINT,
        "axes.grid": True,
        "axes.labelcolor": TEXT,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "text.color": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
        "font.size": 10,
    }
    with matplotlib.rc_context(settings):
        yield figure.Figure(figsize=size, layout="constrained")
