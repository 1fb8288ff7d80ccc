"""The report of some files: verified runs with their tables and figures, shown in a notebook or saved as files."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import rich.text

from deqsmooth.certificates import attempts, cohen, jsonl
from deqsmooth.reports import canvas, figures, html, overview, runs, tables
from deqsmooth.reports.runs import Run


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """The report of some runs. A notebook shows it as a page, a terminal as a verdict on each run.

    Attributes:
      runs: the runs; each is compared with the first.
      left_out: a sentence for each file that is left out, without a full stop.
    """

    runs: Sequence[Run]
    left_out: Sequence[str] = ()

    @property
    def is_sound(self) -> bool:
        """Whether every run verifies and no attack refutes a certificate."""
        return all(run.is_sound for run in self.runs)

    @functools.cached_property
    def tables(self) -> list[tables.Table]:
        """The tables: settings, certified accuracy, averages, and comparisons with the first run."""
        return list(overview.overview(self.runs))

    @functools.cached_property
    def figures(self) -> list[canvas.Figure]:
        """The figures, which are drawn when they are first shown; none if matplotlib is not installed."""
        return list(_figures(self.runs)) if canvas.is_possible() else []

    def save(self, folder: str | os.PathLike[str]) -> pathlib.Path:
        """Writes `index.html`, its tables as `tables.md`, its figures as SVG and PNG, and verified results as TSV.

        Args:
          folder: folder that is written to; it is made if it does not exist.

        Returns:
          The path of the page.

        Raises:
          ValueError: the folder cannot be written, or a file would be replaced that no report wrote.
        """
        out = pathlib.Path(folder)
        contents = {
            "index.html": html.page(self.runs, self._repr_html_()).encode(),
            "tables.md": "\n".join(map(tables.to_markdown, self.tables)).encode(),
        }
        for figure in self.figures:
            contents |= {f"{figure.name}.svg": figure.wide.encode(), f"{figure.name}.png": figure.png}
        results = {
            _file(out, f"{run.name}.tsv"): run.checked.found
            for run in self.runs
            if run.checked is not None and run.is_sound
        }
        inputs = {run.path.absolute() for run in self.runs}
        written = {_file(out, name): content for name, content in contents.items()}
        for path in (*written, *results):
            if path.absolute() in inputs:
                raise ValueError(f"the report would write over {path}, one of its files; give another folder")
            if path.exists() and not html.is_page(out / "index.html"):
                raise ValueError(f"the report would write over {path}, which no report wrote; give another folder")
        try:
            out.mkdir(parents=True, exist_ok=True)
            for path, content in written.items():
                path.write_bytes(content)
        except OSError as error:
            raise ValueError(f"cannot write {out}: {error.strerror}") from None
        for path, found in results.items():
            cohen.write(path, found)
        return out / "index.html"

    def __repr__(self) -> str:
        """A line with the verdict on each run, and one for each file that is left out."""
        lines = [f"{run.path}: {run.verdict()}." for run in sorted(self.runs, key=lambda run: run.is_sound)]
        return "\n".join(lines + [f"{text}." for text in self.left_out])

    def __rich__(self) -> rich.text.Text:
        """The same for a terminal."""
        return rich.text.Text(repr(self))

    def _repr_html_(self) -> str:
        """The page without its head, for a notebook."""
        return html.body(self.runs, self.tables, self.figures, self.left_out)


def report(paths: jsonl.Path | Sequence[jsonl.Path]) -> Report:
    """Verifies files of certificates and reports them: accuracies, costs, comparisons with the first, figures.

    Args:
      paths: one file or several, of certificates (`.jsonl`), of attacks on them, or of published results (`.tsv`),
        also compressed (`.gz`) or archived (`.tar.gz`). Other files of JSON lines are left out.

    Returns:
      The report, also of files that do not verify, whose numbers are then marked; see `Report.is_sound`.

    Raises:
      ValueError: a file cannot be read, is damaged, is given twice, or is of other images than the first; or no
        run is left.
    """
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        paths = [paths]
    return Report(*runs.read(paths))


def _figures(found: Sequence[Run]) -> Iterator[canvas.Figure]:
    """Yields certified accuracy, cost, residuals and mismatches, and a scatter plot for each comparison."""
    attacked = {run.label: attempts.robust_accuracy(run.attempts) for run in found if run.attempts}
    yield figures.certified_accuracy({run.label: run.found for run in found}, attacked, overview.ALPHA)
    own = {run.label: run.checked.found for run in found if run.checked is not None}
    if own:
        drawn = (figures.cost(own), figures.residuals(own), figures.mismatches(own))
        yield from (figure for figure in drawn if figure is not None)
    first = found[0]
    for run in found[1:]:
        yield figures.scatter(f"radii-{run.name}", (first.label, first.found), (run.label, run.found))


def _file(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Path of a file whose name has no slash, in bytes of UTF-8, whatever the locale."""
    return folder / os.fsdecode(name.replace("/", "-").encode())
