"""The page of an experiment: its question, its rows as their records say them, and what was published.

Needs neither JAX nor the model: every number is computed from records that were verified.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deqsmooth import certificates, config, experiments, report, statistics, tables, verification

_FINDING = "finding.md"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of an experiment and its records.

    Attributes:
      name: of the row.
      path: of its records.
    """

    name: str
    path: pathlib.Path


def write(
    experiment: experiments.Experiment,
    command: str,
    rows: Mapping[str, Sequence[Row]],
    out: str | os.PathLike[str],
) -> pathlib.Path:
    """Writes the page of an experiment, `README.md`, to a folder.

    A file `finding.md` in the folder, where a reader has written what the tables show, is taken into the page.

    Args:
      experiment: what was run.
      command: that ran it.
      rows: for every group of rows with a table of their own, by its title.
      out: the folder.

    Raises:
      ValueError: a file of records does not verify.
    """
    folder = pathlib.Path(out)
    body = [f"# {experiment.name}", experiment.question, f"*Expected.* {experiment.expected}"]
    checked = {row.path: _verified(row.path) for group in rows.values() for row in group}
    for title, group in rows.items():
        body.append(tables.to_markdown(_table(title, [(row.name, checked[row.path]) for row in group])))
    if any(c.bound in ("exact", "paper") for one in checked.values() for c in one.found):
        body.append(
            "Rows in italics are the votes of the row above them under other formulas: the paper's, which is "
            "valid and a little looser, and that of its released code, which is **not a valid bound**. *Above the "
            "truth* are lower bounds on the probability of the class that the independent votes of the first row, "
            "of the very classifier that is certified, rule out: with a valid bound one image in 500, at most."
        )
    if experiment.published is not None:
        body.append(tables.to_markdown(experiment.published))
        body.append("The published SRS rows rest on the formula that is not valid.")
    finding = folder / _FINDING
    if finding.exists():
        body.append(f"## Finding\n\n{finding.read_text().strip()}")
    body.append(_provenance(command, rows, checked, folder))
    page = folder / "README.md"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(text.strip() for text in body) + "\n")
    return page


def _verified(path: pathlib.Path) -> verification.Checked:
    checked = verification.verify(path)
    if checked.differences:
        raise ValueError(f"{checked.differences[0]}; a page is made of what verifies")
    return checked


def _table(title: str, rows: Sequence[tuple[str, verification.Checked]]) -> tables.Table:
    """One line a row, and for audited ones the same votes under the other bounds."""
    largest = max(c.radius for _, checked in rows for c in checked.found)
    radii = report.radii(rows[0][1].settings.sigma, largest)
    first = rows[0][1]
    lines = []
    for name, checked in rows:
        same = first.settings.sampler == "independent" and first.header["reference"] == checked.header["reference"]
        truth = first.found if same and checked is not first else []
        lines.append((name, *_cost(checked.found), *_certified(checked.found, radii, truth)))
        if checked.settings.sampler == "serial":
            for bound in ("paper", "reference-code"):
                again = list(_under(checked, bound))
                lines.append((f"*{bound}*", "", "", "", *_certified(again, radii, truth)))
    at = (f"r {radius:g}" for radius in radii)
    headings = ("", "evaluations", "s/image", "mismatches", "ACR", "mean radius", *at, "above the truth")
    if not any(line[-1] for line in lines):
        headings, lines = headings[:-1], [line[:-1] for line in lines]
    return tables.Table(title, headings, tuple(lines))


def _cost(found: Sequence[certificates.Certificate]) -> tuple[str, str, str]:
    audited = sum(c.num_audit for c in found)
    return (
        f"{np.mean([c.evaluations for c in found]):,.0f}",
        f"{np.mean([c.seconds for c in found]):.2f}",
        f"{100 * sum(c.mismatches for c in found) / audited:.2f} %" if audited else "",
    )


def _certified(found, radii, truth) -> tuple[str, ...]:
    correct, reached = [bool(c.correct) for c in found], [c.radius for c in found]
    return (
        statistics.round_down(statistics.average_certified_radius(correct, reached), 3),
        statistics.round_down(statistics.mean_radius(reached), 3),
        *(statistics.round_down(100 * statistics.certified_accuracy(correct, reached, r), 1) for r in radii),
        f"{above_the_truth(found, truth)} of {len(found)}" if truth else "",
    )


def above_the_truth(found: Sequence[certificates.Certificate], truth: Sequence[certificates.Certificate]) -> int:
    """How many lower bounds are above what independent votes of the same classifier leave possible.

    A valid bound is, for an image, with probability 2 alpha at most: its own alpha, and that of the upper
    confidence limit (Clopper & Pearson 1934) of the independent votes.

    Args:
      found: certificates.
      truth: certificates of independent sampling of the classifier that they are about, of the same images.
    """
    counts = {c.index: c.counts for c in truth}
    limits = [
        statistics.clopper_pearson_upper(counts[c.index][c.selected], sum(counts[c.index]), c.alpha) for c in found
    ]
    return sum(c.p_lower > limit for c, limit in zip(found, limits, strict=True))


def _under(checked: verification.Checked, bound: str) -> Iterator[certificates.Certificate]:
    """Certificates with the radii that another bound makes of their votes."""
    alphas = {**checked.settings.alphas, "bound": bound}
    for c in checked.found:
        p_lower = statistics.lower_bound(
            c.count, sum(c.counts), mismatches=c.mismatches, audited=c.num_audit, **alphas
        )
        prediction = c.selected if p_lower > 0.5 else None
        yield dataclasses.replace(
            c,
            prediction=prediction,
            correct=None if c.label is None else prediction == c.label,
            p_lower=p_lower,
            radius=statistics.radius(p_lower, checked.settings.sigma),
            bound=bound,
        )


def _provenance(command, rows, checked, folder) -> str:
    files = sorted({os.path.relpath(row.path, folder) for group in rows.values() for row in group})
    found = [c for one in checked.values() for c in one.found]
    header = next(iter(checked.values())).header
    versions = ", ".join(f"{name} {header['versions'][name]}" for name in ("deqsmooth", "jax"))
    settings: config.Smoothing = next(iter(checked.values())).settings
    hours = sum(c.seconds for c in found) / 3600
    return (
        f"## Where the numbers come from\n\n`{command}`, on {header['device']}, {versions}: {hours:.2f} hours of "
        f"sampling, alpha {settings.alpha:g}. Every number above is computed from these records, which "
        "`deqsmooth-verify` checks:\n\n" + "\n".join(f"- `{file}`" for file in files)
    )
