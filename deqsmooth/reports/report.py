"""The report of some files: verified runs with their tables and figures, shown in a notebook or saved as files."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Sequence

import rich.text

from deqsmooth import config
from deqsmooth.certificates import cohen, jsonl
from deqsmooth.config import checks
from deqsmooth.reports import canvas, html, names, pictures, runs, sections, tables, verdicts
from deqsmooth.reports.runs import Run


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """The report of some runs. A notebook shows it as a page, a terminal as a verdict on each run.

    Attributes:
      runs: the runs; each is compared with the first.
      left_out: a sentence for each file that is left out, and for pictures that are, without a full stop.
      album: pictures of images; None if there are none.
    """

    runs: Sequence[Run]
    left_out: Sequence[str] = ()
    album: pictures.Album | None = None

    @property
    def is_sound(self) -> bool:
        """Whether every run verifies and no attack refutes a certificate."""
        return all(run.is_sound for run in self.runs)

    @property
    def selection(self) -> config.Selection | None:
        """The images that the headers name; None if there is no header, only published results."""
        return next((run.checked.selection for run in self.runs if run.checked is not None), None)

    @functools.cached_property
    def sections(self) -> list[sections.Section]:
        """What the page shows below its verdict."""
        return sections.sections(self.runs, self.album)

    @property
    def tables(self) -> list[tables.Table]:
        """The tables, in the order of the page."""
        return [part for section in self.sections for part in section.parts if isinstance(part, tables.Table)]

    @property
    def figures(self) -> list[canvas.Figure]:
        """The figures, which are drawn when they are first shown; none if matplotlib is not installed."""
        return [part for section in self.sections for part in section.parts if isinstance(part, canvas.Figure)]

    def with_pictures(self, dataset: pictures.Dataset) -> Report:
        """Returns the report with pictures of images, or with a sentence on why there are none.

        Args:
          dataset: the images that the certificates are about.
        """
        try:
            return dataclasses.replace(self, album=pictures.album(self.runs, dataset))
        except ValueError as error:
            return self.without_pictures(str(error))

    def without_pictures(self, reason: str) -> Report:
        """Returns the report with a sentence that says why there are no pictures."""
        text = f"Pictures are left out: {' '.join(reason.split())}"
        return dataclasses.replace(self, album=None, left_out=[*self.left_out, text])

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
            "index.html": html.page(verdicts.title(self.runs), self._repr_html_()).encode(),
            "tables.md": self._markdown().encode(),
        }
        for figure in self.figures:
            contents |= {f"{figure.name}.svg": figure.wide.encode(), f"{figure.name}.png": figure.png}
        results = {
            _file(out, f"{run.stem}.tsv"): run.checked.found
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
        title, alarms = verdicts.title(self.runs), verdicts.alarms(self.runs)
        return html.body(title, alarms, self._lead, self.left_out, self.sections)

    @property
    def _lead(self) -> list[str]:
        """What was certified, and the verdict."""
        return [*verdicts.claims(self.runs), *verdicts.verification(self.runs)]

    def _markdown(self) -> str:
        """The verdict and the tables in GitHub's Markdown."""
        title, alarms = verdicts.title(self.runs), verdicts.alarms(self.runs)
        texts = [*alarms, *self._lead, *(f"{text}." for text in self.left_out)]
        lines = [f"# {title}", *texts, *map(tables.to_markdown, self.tables)]
        return names.readable("\n\n".join(lines))


def report(paths: jsonl.Path | Sequence[jsonl.Path], dataset: pictures.Dataset | None = None) -> Report:
    """Verifies files of certificates and reports them: accuracies, costs, comparisons with the first, figures.

    Args:
      paths: one file or several, of certificates (`.jsonl`), of attacks on them, or of published results (`.tsv`),
        also compressed (`.gz`) or archived (`.tar.gz`). Other files of JSON lines are left out.
      dataset: the images, such as `deqsmooth.load_dataset` returns them, to show pictures of some; if they are not
        those of the certificates, the report says so and shows none.

    Returns:
      The report, also of files that do not verify, whose numbers are then marked; see `Report.is_sound`.

    Raises:
      ValueError: a file cannot be read, is damaged, is given twice, or is of other images than the first; no run
        is left; or `dataset` is none.
    """
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        paths = [paths]
    if dataset is not None:
        checks.kind("dataset", dataset, pictures.Dataset, "a data set, made by ds.arrays or ds.load_dataset")
    found = Report(*runs.read(paths))
    return found if dataset is None else found.with_pictures(dataset)


def _file(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Path of a file whose name has no slash, in bytes of UTF-8, whatever the locale."""
    return folder / os.fsdecode(name.replace("/", "-").encode())
