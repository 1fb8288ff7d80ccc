"""HTML of a report: from runs, tables and figures to a page that embeds everything it shows."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Iterator, Sequence

from deqsmooth.reports import canvas, tables
from deqsmooth.reports.runs import Run, readable

_MARK = '<meta name="generator" content="deqsmooth">'
# Every rule is below a class, so that a notebook around the report keeps its own style.
_STYLE = """
.deqsmooth { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --faint: #666; --rule: #d9d9d9;
  --alarm: #b00020; --alarm-page: #fdecea; font: 16px/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--page); overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  .deqsmooth { --text: #e6e6e6; --page: #161616; --faint: #a0a0a0; --rule: #444; --alarm: #ff8a80;
    --alarm-page: #3a1513; }
}
.deqsmooth h1 { font-size: 1.6rem; } .deqsmooth h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.deqsmooth .wide { overflow-x: auto; margin: 1rem 0; }
.deqsmooth table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; margin: 0; }
.deqsmooth caption { text-align: left; color: var(--faint); padding-bottom: 0.4rem; }
.deqsmooth th, .deqsmooth td { text-align: right; vertical-align: top; padding: 0.25rem 0.5rem;
  border-bottom: 1px solid var(--rule); overflow-wrap: normal; }
.deqsmooth th:first-child, .deqsmooth td:first-child { text-align: left; padding-left: 0; min-width: 6rem;
  overflow-wrap: anywhere; }
.deqsmooth figure { margin: 1.5rem 0; } .deqsmooth figure img { max-width: 100%; height: auto; }
.deqsmooth figcaption, .deqsmooth .faint { color: var(--faint); font-size: 0.9rem; }
.deqsmooth .alarm { color: var(--alarm); background: var(--alarm-page); border-left: 4px solid; font-weight: 600;
  padding: 0.5rem 0.75rem; }
@media print {
  .deqsmooth { --text: #000; --page: #fff; --faint: #444; --rule: #999; --alarm: #b00020; --alarm-page: #fff;
    font-size: 10pt; }
  .deqsmooth .wide { overflow-x: visible; } .deqsmooth table { font-size: 7pt; }
  .deqsmooth th, .deqsmooth td { padding: 0.15rem 0 0.15rem 0.4rem; }
  .deqsmooth th:first-child, .deqsmooth td:first-child { min-width: 4rem; }
  .deqsmooth tr, .deqsmooth figure { break-inside: avoid; }
  .deqsmooth h2, .deqsmooth caption { break-after: avoid; }
}
"""
# A page of its own also has margins, and lines that are not too long.
_PAGE_STYLE = """
body { margin: 0; background: #fff; } body > .deqsmooth { max-width: 62rem; margin: 0 auto; padding: 1rem; }
@media (prefers-color-scheme: dark) { body { background: #161616; } }
@media print { body, body > .deqsmooth { max-width: none; padding: 0; background: #fff; } }
"""


def is_page(path: pathlib.Path) -> bool:
    """Whether a file is a page that `page` made."""
    return path.is_file() and _MARK in path.read_text(encoding="utf-8", errors="replace")


def page(runs: Sequence[Run], body: str) -> str:
    """Returns a whole page around a body."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{_MARK}\n'
        f"<title>{html.escape(_title(runs))}</title>\n<style>{_PAGE_STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def body(
    runs: Sequence[Run],
    all_tables: Sequence[tables.Table],
    all_figures: Sequence[canvas.Figure],
    left_out: Sequence[str],
) -> str:
    """Returns the body of a page with its style: verdicts first, then tables, figures and what they mean.

    Args:
      runs: runs of the report.
      all_tables: see `overview.overview`.
      all_figures: certified accuracy and others; none if matplotlib is not installed.
      left_out: a sentence for each file that is not in the report.
    """
    parts = [
        f"<h1>{html.escape(_title(runs))}</h1>",
        *map(_verdict, sorted(runs, key=lambda run: run.is_sound)),
        *(f'<p class="faint">{html.escape(text)}.</p>' for text in left_out),
        tables.to_html(all_tables[0]),
        "<h2>Certified accuracy</h2>",
        _picture(all_figures[0]) if all_figures else f"<p>{_no_figures()}</p>",
        *map(tables.to_html, all_tables[1:3]),
        "<h2>What this means</h2>",
        *(f"<p>{html.escape(text)}</p>" for text in _meaning(runs)),
        *(["<h2>Comparisons</h2>"] if len(runs) > 1 else []),
        *map(tables.to_html, all_tables[3:]),
        *(["<h2>Behind the numbers</h2>"] if len(all_figures) > 1 else []),
        *map(_picture, all_figures[1:]),
    ]
    return readable(f'<div class="deqsmooth"><style>{_STYLE}</style>\n' + "\n".join(parts) + "\n</div>")


def _no_figures() -> str:
    return f"There are no figures, because matplotlib is not installed: <code>{canvas.ADVICE}</code>."


def _title(runs: Sequence[Run]) -> str:
    of = f" of {runs[0].label}" if len(runs) == 1 else f": {len(runs)} runs"
    return f"Certified robustness{of}"


def _verdict(run: Run) -> str:
    alarming = not run.is_sound or (run.checked is not None and not run.is_certified)
    text = html.escape(f"{run.name}: {run.verdict()}.")
    return f'<p class="alarm" role="alert">{text}</p>' if alarming else f"<p>{text}</p>"


def _meaning(runs: Sequence[Run]) -> Iterator[str]:
    """Yields paragraphs that explain the guarantee."""
    yield (
        "The classifier that is certified adds Gaussian noise to an image many times, lets the network classify "
        "every noisy copy, and answers with the class of most votes. A certificate with radius r says: no change "
        "of the image of L2 length below r, pixels being numbers in [0, 1], changes that answer. It speaks of "
        "this smoothed classifier, run exactly as the record names it; not of the network without noise, of other "
        "kinds of change, or of whether the answer is right."
    )
    unsound = [run.name for run in runs if not run.is_sound]
    if unsound:
        yield (
            f"This does not hold for {', '.join(unsound)}. Its numbers are shown as the file states them, to find "
            "out what is wrong; they are no result."
        )
    for run in runs:
        if run.checked is None or not run.is_certified:
            continue
        alphas = [c.alpha for c in run.checked.found if c.prediction is not None]
        if not alphas:
            continue
        total = sum(alphas)
        yield (
            f"{run.name}: each certificate is false with probability at most {alphas[0]:g}, by chance of the "
            f"noise. Of its {len(alphas)} certificates {total:.2g} are false in expectation, at most; with "
            f"probability at least {max(0.0, 1 - total):.3g} none is. The row 'all at once' has smaller radii, of "
            f"which none is false with probability {1 - alphas[0]:g}."
        )


def _picture(figure: canvas.Figure) -> str:
    """The figure as HTML; the browser chooses the copy for the width of the page."""
    wide, narrow = (base64.b64encode(text.encode()).decode() for text in (figure.wide, figure.narrow))
    kind = "data:image/svg+xml;base64,"
    return (
        f'<figure><picture><source srcset="{kind}{narrow}" media="screen and (max-width: 600px)">'
        f'<img src="{kind}{wide}" alt="{html.escape(figure.caption)}"></picture>'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )
