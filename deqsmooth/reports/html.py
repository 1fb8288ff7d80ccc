"""The report: from runs to an HTML page with tables and figures, and to the same as separate files.

The page embeds its figures and loads nothing from a network.
"""

from __future__ import annotations

import base64
import html
import os
import pathlib
from collections.abc import Iterator, Sequence

from deqsmooth.certificates import attempts, cohen
from deqsmooth.reports import figures, summary, tables
from deqsmooth.reports.runs import Run

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --faint: #666; --rule: #d9d9d9;
        --alarm: #b00020; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #161616; --faint: #a0a0a0; --rule: #444; --alarm: #ff8a80; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
caption { text-align: left; color: var(--faint); padding-bottom: 0.4rem; }
th, td { text-align: right; padding: 0.25rem 0.7rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; }
figcaption, .faint { color: var(--faint); font-size: 0.9rem; }
.alarm { color: var(--alarm); font-weight: 600; }
"""


def write(runs: Sequence[Run], out: str | os.PathLike[str]) -> None:
    """Writes `index.html`, its tables as `tables.md`, its figures as SVG and PNG, and the results as TSV.

    Args:
      runs: runs to report; each is compared with the first.
      out: folder that is written to; it is made if it does not exist.

    Raises:
      ValueError: two runs have no image in common or different labels, the folder cannot be written, or matplotlib
        is not installed.
    """
    all_tables, all_figures = list(summary.overview(runs)), list(figures_of(runs))
    page, out = _page(runs, all_tables, all_figures), pathlib.Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "index.html").write_text(page)
        (out / "tables.md").write_text("\n".join(map(tables.to_markdown, all_tables)))
        for figure in all_figures:
            file = out / f"{figure.name.replace('/', '-')}.svg"
            file.write_text(figure.light)
            file.with_suffix(".png").write_bytes(figure.png)
        for run in runs:
            if run.checked is not None:
                cohen.write(out / f"{run.name.replace('/', '-')}.tsv", run.checked.found)
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror}") from None


def figures_of(runs: Sequence[Run]) -> Iterator[figures.Figure]:
    """Yields certified accuracy, cost, residuals and mismatches, and a scatter plot for each comparison."""
    attacked = {run.name: attempts.robust_accuracy(run.attempts) for run in runs if run.attempts}
    yield figures.certified_accuracy({run.name: run.found for run in runs}, attacked, summary.ALPHA)
    own = {run.name: run.checked.found for run in runs if run.checked is not None}
    if own:
        found = (figures.cost(own), figures.residuals(own), figures.mismatches(own))
        yield from (figure for figure in found if figure is not None)
    for run in runs[1:]:
        yield figures.scatter((runs[0].name, runs[0].found), (run.name, run.found))


def _page(runs: Sequence[Run], all_tables: Sequence[tables.Table], all_figures: Sequence[figures.Figure]) -> str:
    title = "Certified robustness" + (f" of {runs[0].name}" if len(runs) == 1 else f": {len(runs)} runs")
    body = [
        f"<h1>{html.escape(title)}</h1>",
        *map(_verdict, runs),
        tables.to_html(all_tables[0]),
        "<h2>Certified accuracy</h2>",
        _picture(all_figures[0]),
        *map(tables.to_html, all_tables[1:3]),
        "<h2>What this means</h2>",
        *(f"<p>{html.escape(text)}</p>" for text in _meaning(runs)),
        *(["<h2>Comparisons</h2>"] if len(runs) > 1 else []),
        *map(tables.to_html, all_tables[3:]),
        *(["<h2>Behind the numbers</h2>"] if len(all_figures) > 1 else []),
        *map(_picture, all_figures[1:]),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _verdict(run: Run) -> str:
    alarming = not run.is_sound or (run.checked is not None and not run.is_certified)
    text = html.escape(f"{run.name}: {run.verdict()}.")
    return f"<p{' class=alarm' if alarming else ''}>{text}</p>"


def _meaning(runs: Sequence[Run]) -> Iterator[str]:
    """Yields paragraphs that explain the guarantee."""
    yield (
        "The classifier that is certified adds Gaussian noise to an image many times, lets the network classify "
        "every noisy copy, and answers with the class of most votes. A certificate with radius r says: no change "
        "of the image of L2 length below r, pixels being numbers in [0, 1], changes that answer. It speaks of "
        "this smoothed classifier, run exactly as the record names it; not of the network without noise, of other "
        "kinds of change, or of whether the answer is right."
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


def _picture(figure: figures.Figure) -> str:
    """The figure as HTML; the browser chooses the copy for a light or a dark page."""
    light, dark = (base64.b64encode(text.encode()).decode() for text in (figure.light, figure.dark))
    kind = "data:image/svg+xml;base64,"
    return (
        f'<figure><picture><source srcset="{kind}{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{kind}{light}" alt="{html.escape(figure.caption)}"></picture>'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )
