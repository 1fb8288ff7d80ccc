"""Writes the measured tables, the help texts and the figures of the manual, from kept records.

    python docs/fill.py

A page says what it shows, and this command fills it in. Running it again changes nothing.

`<!-- records: FOLDER -->` stands directly above a table. FOLDER is a folder of `results/`. The first cell of a row
names its run, and a text after a colon is kept, as bold marks are. The headings choose the columns: those of
`COLUMNS`, or a radius such as `r 0.25` or `0.25` for certified accuracy in percent. A new row needs its first cell
only.

`<!-- lines: FOLDER FILE -->` does the same with a file of JSON lines: the first cell is the first value of a line,
and the headings are names of other values, which are numbers.

`<!-- quoted: SOURCE -->` stands above numbers that others have published. They stay as they are.

`<!-- help: deqsmooth-NAME -->` stands directly above a block of `text`, which becomes the output of
`deqsmooth-NAME --help` on a terminal of 100 columns; `deqsmooth-NAME --help-all` is possible as well.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pathlib
import re
import sys
from collections.abc import Callable
from unittest import mock

import drawings
import kept
import numpy as np

from deqsmooth.certificates import jsonl, rounding, statements

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FIGURES = ROOT / "docs" / "figures"

_MARKER = re.compile(r"^<!-- (?:records|lines|help):.*$", re.M)
_TABLE = re.compile(r"^(<!-- records: (\S+) -->\n)(\|.*)\n(\|[-:| ]+)\n((?:\|.*\n?)+)", re.M)
_LINES = re.compile(r"^(<!-- lines: (\S+) (\S+) -->\n)(\|.*)\n(\|[-:| ]+)\n((?:\|.*\n?)+)", re.M)
_HELP = re.compile(r"^(<!-- help: deqsmooth-([a-z]+)( --help-all)? -->\n)```text\n(?:.*\n)*?```$", re.M)
_BAR = re.compile(r"(?<!\\)\|")


def _mean(name: str) -> Callable[[jsonl.File], float]:
    return lambda run: float(np.mean([getattr(c, name) for c in run.certificates]))


def _times_less(name: str) -> Callable[[jsonl.File, jsonl.File], str]:
    mean = _mean(name)
    return lambda run, first: "1" if run is first else f"{mean(first) / mean(run):.1f}"


def _a_sample(run: jsonl.File) -> float:
    samples = sum(c.num_selection + c.num_estimation for c in run.certificates)
    return sum(c.evaluations for c in run.certificates) / samples


def _mismatches(run: jsonl.File) -> str:
    audited = sum(c.num_audit for c in run.certificates)
    return f"{100 * sum(c.mismatches for c in run.certificates) / audited:.1f}" if audited else ""


COLUMNS: dict[str, Callable[[jsonl.File, jsonl.File], str]] = {
    "images": lambda run, first: f"{len(run.certificates):,}",
    "samples": lambda run, first: f"{_mean('num_estimation')(run):,.0f}",
    "evaluations": lambda run, first: rounding.evaluations(_mean("evaluations")(run)),
    "evaluations a sample": lambda run, first: f"{_a_sample(run):.2f}",
    "unsettled %": lambda run, first: f"{100 * _mean('invalid')(run) / _mean('num_estimation')(run):.3f}",
    "fewer": _times_less("evaluations"),
    "s/image": lambda run, first: rounding.seconds(_mean("seconds")(run)),
    "less": _times_less("seconds"),
    "mismatch %": lambda run, first: _mismatches(run),
    "abstain %": lambda run, first: f"{100 * np.mean([c.prediction is None for c in run.certificates]):.1f}",
    "cap": lambda run, first: rounding.radius(kept.settings(run).cap),
    "ACR": lambda run, first: rounding.radius(statements.average_certified_radius(run.certificates)),
}
"""Heading of a column -> its cell, from the run of a row and that of the first row."""


def main() -> int:
    """Fills in every page and draws every figure."""
    try:
        for page in PAGES:
            page.write_text(filled(page.read_text()))
        for name, draw in drawings.DRAWINGS.items():
            (FIGURES / f"{name}.svg").write_text(draw().svg(name))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def filled(text: str) -> str:
    """The text of a page with its tables and help texts filled in.

    Raises:
      ValueError: a marker has no table or block below it, or names a folder, run, heading or command that does not
        exist.
    """
    for marker in _MARKER.finditer(text):
        if not any(kind.match(text, marker.start()) for kind in (_TABLE, _LINES, _HELP)):
            raise ValueError(f"{marker[0]} must stand directly above a table of records or a block of help")
    return _HELP.sub(_help, _LINES.sub(_lines, _TABLE.sub(_table, text)))


def _table(found: re.Match[str]) -> str:
    marker, folder, head, rule, rows = found.groups()
    headings = [heading.strip("* ").removeprefix("r ") for heading in _cells(head)[1:]]
    first = None
    found_rows = []
    for line in rows.splitlines():
        name, *old = _cells(line)
        run = kept.run(folder, name.strip("* ").partition(":")[0])
        first = first or run
        found_rows.append(_row(name, old, [_cell(heading, run, first) for heading in headings]))
    return f"{marker}{head}\n{rule}\n{''.join(found_rows)}"


def _lines(found: re.Match[str]) -> str:
    marker, folder, file, head, rule, rows = found.groups()
    headings = [heading.strip("* ") for heading in _cells(head)[1:]]
    lines = {str(next(iter(line.values()))): line for line in kept.lines(folder, file)}
    found_rows = []
    for row in rows.splitlines():
        name, *old = _cells(row)
        line = lines.get(name.strip("* "))
        if line is None or not line.keys() >= set(headings):
            known = f"{', '.join(lines)} with {', '.join(next(iter(lines.values())))}"
            raise ValueError(f"a row is {name} with {', '.join(headings)}; results/{folder}/{file} has {known}")
        found_rows.append(_row(name, old, [f"{line[heading]:.3g}" for heading in headings]))
    return f"{marker}{head}\n{rule}\n{''.join(found_rows)}"


def _row(name: str, old: list[str], cells: list[str]) -> str:
    """A line of a table, whose cells are marked as the old ones were."""
    old = old + [""] * (len(cells) - len(old))
    line = " | ".join((name, *map(_marked_as, old, cells)))
    return f"| {line} |\n".replace("|  |", "| |")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in _BAR.split(line.strip())[1:-1]]


def _cell(heading: str, run: jsonl.File, first: jsonl.File) -> str:
    if heading in COLUMNS:
        return COLUMNS[heading](run, first)
    try:
        radius = float(heading)
    except ValueError:
        raise ValueError(f"a heading is {heading}; it must be a radius or one of {', '.join(COLUMNS)}") from None
    return rounding.percent(statements.certified_accuracy(run.certificates, radius))


def _marked_as(old: str, cell: str) -> str:
    """The cell in bold if the old one is."""
    return f"**{cell}**" if old.startswith("**") and cell else cell


def _help(found: re.Match[str]) -> str:
    marker, command, full = found.groups()
    words = [f"deqsmooth-{command}", (full or "--help").strip()]
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        try:
            importlib.import_module(f"deqsmooth.commands.{command}").main()
        except (ModuleNotFoundError, AttributeError):
            raise ValueError(f"{words[0]} is no command of the package") from None
    return f"{marker}```text\n{printed.getvalue().rstrip()}\n```"


if __name__ == "__main__":
    sys.exit(main())
