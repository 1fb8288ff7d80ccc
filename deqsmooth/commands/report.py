"""Command `deqsmooth-report`: from files of certificates to a page of tables and figures."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, ClassVar

import rich.console
import tyro

from deqsmooth.commands import listing
from deqsmooth.commands import main as commands
from deqsmooth.config import checks

if TYPE_CHECKING:
    from deqsmooth.reports.report import Report


@dataclasses.dataclass(frozen=True)
class Flags:
    """Write a page of tables and figures from files of certificates, each compared with the first.

    Files of predictions, files without an image and other JSON lines are named and left out. Exit status: 0
    success; 1 a file does not verify or is refuted by an attack; 2 bad input.

    Attributes:
      files: files of certificates, of attacks on them, or of published results (`.tsv`, Cohen et al. 2019).
      images: show the least and the most robust images, and those on which runs differ most.
      data_dir: for the images: TFDS data directory; by default that of TFDS. For `arrays` the `.npz` file.
      out: folder that the page is written to.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which files": ("files", ""),
        "pictures": ("images data_dir", ""),
        "output": ("out", ""),
    }

    files: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    images: bool = False
    data_dir: str | None = None
    out: pathlib.Path = pathlib.Path("report")

    def __post_init__(self) -> None:
        checks.holds(
            self.data_dir is None or self.images,
            "data_dir",
            self.data_dir,
            "left out without --images, which needs it",
        )


def main() -> int:
    """Command `deqsmooth-report`; returns the exit status: 1 if a file does not verify or is refuted."""
    return commands.run(Flags, run, prog="deqsmooth-report", uses_jax=False)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Verifies the files, writes the page, and prints the verdict on each file."""
    from deqsmooth.reports import canvas, report

    found = report.report(arguments.files)
    if arguments.images:
        found = _with_pictures(found, arguments.data_dir)
    for text in found.left_out:
        print(text, file=sys.stderr)
    page = found.save(arguments.out)
    for one in found.runs:
        print(f"{one.path}: {one.verdict()}", file=sys.stdout if one.is_sound else sys.stderr)
    if not found.figures:
        print(f"no figures are drawn, because matplotlib is not installed: {canvas.ADVICE}", file=sys.stderr)
    print(f"report: {page}")
    return int(not found.is_sound)


def _with_pictures(found: Report, data_dir: str | None) -> Report:
    """The report with pictures from the data set that the headers name, or with a sentence why there are none."""
    from deqsmooth import data

    if found.selection is None:
        return found.without_pictures("no file says which data its images are from")
    try:
        dataset = data.load(found.selection.dataset, found.selection.split, data_dir)
    except ValueError as error:
        return found.without_pictures(str(error))
    return found.with_pictures(dataset)
