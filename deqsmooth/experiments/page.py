"""The page of an experiment: from its definition and rows to a Markdown file with tables and figures.

Every number is computed from verified records.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from deqsmooth.certificates import verification
from deqsmooth.experiments import definitions, results
from deqsmooth.reports import canvas, tables

_FINDING = "finding.md"


def write(
    experiment: definitions.Experiment,
    command: str,
    groups: Mapping[str, Sequence[results.Row]],
    out: str | os.PathLike[str],
) -> pathlib.Path:
    """Writes the page of an experiment, `README.md`, and its figures to a folder.

    If the folder has a file `finding.md`, an interpretation of the tables, the page includes it.

    Args:
      experiment: the experiment.
      command: command line that ran it.
      groups: the rows of each first table, by its title.
      out: the folder.

    Returns:
      The path of the page.

    Raises:
      ValueError: a file of records does not verify, or the page has figures and matplotlib is not installed.
    """
    folder = pathlib.Path(out)
    body = [f"# {experiment.name}", experiment.question, f"*Expected.* {experiment.expected}"]
    checked = {row.path: _verified(row.path) for group in groups.values() for row in group}
    drawn: list[canvas.Figure] = []
    for title, group in groups.items():
        body += [tables.to_markdown(table) for table in results.tables_of(title, group, checked)]
        drawn += results.figures_of(group, checked) if experiment.draws else ()
    if any(one.settings.sampler == "serial" for one in checked.values()):
        body.append(
            "Rows in italics are the votes of the row above them under other formulas: the paper's, which is "
            "valid and a little looser, and that of its released code, which is **not a valid bound**."
        )
    if any(results.ABOVE in part for part in body):
        body.append(
            f"*{results.ABOVE.capitalize()}* are lower bounds on the probability of the class that independent "
            "votes of the very classifier that is certified, in a row above, rule out: with a valid bound one "
            "image in 500, at most."
        )
    pictures = {f"{figure.name}.png": figure for figure in drawn}
    body += [f"![{figure.caption}]({file})\n\n{figure.caption}" for file, figure in pictures.items()]
    if experiment.published is not None:
        body.append(tables.to_markdown(experiment.published))
        body.append("The published SRS rows rest on the formula that is not valid.")
    finding = folder / _FINDING
    if finding.exists():
        body.append(f"## Finding\n\n{finding.read_text(encoding='utf-8').strip()}")
    body.append(_provenance(command, groups, checked, folder))
    page = folder / "README.md"
    folder.mkdir(parents=True, exist_ok=True)
    for file, figure in pictures.items():
        (folder / file).write_bytes(figure.png)
    page.write_text("\n\n".join(text.strip() for text in body) + "\n", encoding="utf-8")
    return page


def _verified(path: pathlib.Path) -> verification.Checked:
    return verification.verify(path).must_hold("a page needs files that verify")


def _provenance(
    command: str, groups: Mapping[str, Sequence[results.Row]], checked: results.Checked, folder: pathlib.Path
) -> str:
    """The last section: the command, the device, the versions, the hours of sampling and the files."""
    every = [row for group in groups.values() for row in group]
    paths = {path for row in every for path in (row.path, *row.attacks, row.memory) if path is not None}
    paths |= {row.model.metrics for row in every if row.model is not None}
    files = sorted(os.path.relpath(path, folder) for path in paths)
    found = [c for one in checked.values() for c in one.found]
    first = next(iter(checked.values()))
    versions = ", ".join(f"{name} {first.header['versions'][name]}" for name in ("deqsmooth", "jax"))
    hours = sum(c.seconds for c in found) / 3600
    return (
        f"## Where the numbers come from\n\n`{command}`, on {first.header['device']}, {versions}: {hours:.2f} "
        f"hours of sampling, alpha {first.settings.alpha:g}. Every number above is computed from these files; if "
        "they are packed, `records.tar.gz` beside their folder holds them. `deqsmooth-verify` checks certificates "
        "and attacks, also inside archives:\n\n" + "\n".join(f"- `{file}`" for file in files)
    )
