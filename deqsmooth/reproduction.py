"""The page of an experiment: its question, its rows as their records say them, and what was published.

Needs neither JAX nor the model: every number is computed from records that were verified.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deqsmooth import (
    attempts,
    certificates,
    config,
    evidence,
    experiments,
    report,
    rounding,
    statistics,
    tables,
    verification,
)

_FINDING = "finding.md"
_ABOVE = "above the truth"
_GAPS = (0.0, 1.0, 2.0, 5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model that an experiment trained.

    Attributes:
      name: of the model.
      metrics: file of its training.
    """

    name: str
    metrics: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of an experiment and its records.

    Attributes:
      name: of the row.
      path: of its records.
      attacks: files of attacks on them.
      memory: file of the bytes that their programs reserve on a device; None if they were not asked for.
      model: that they are about; None if it was given.
    """

    name: str
    path: pathlib.Path
    attacks: tuple[pathlib.Path, ...] = ()
    memory: pathlib.Path | None = None
    model: Trained | None = None


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
        body += [tables.to_markdown(table) for table in _tables(title, group, checked)]
    if any(one.settings.sampler == "serial" for one in checked.values()):
        body.append(
            "Rows in italics are the votes of the row above them under other formulas: the paper's, which is "
            "valid and a little looser, and that of its released code, which is **not a valid bound**."
        )
    if any(_ABOVE in part for part in body):
        body.append(
            f"*{_ABOVE.capitalize()}* are lower bounds on the probability of the class that independent votes of "
            "the very classifier that is certified, in a row above, rule out: with a valid bound one image in "
            "500, at most."
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


def _tables(title, group, checked) -> Iterator[tables.Table]:
    """What a group of rows certifies, and what their audits, attacks and programs say beside it."""
    rows = [(row.name, checked[row.path]) for row in group]
    yield _certified_accuracy(title, rows)
    for _, one in rows:
        audits = [(name, other) for name, other in rows if _made_from(other) == _made_from(one)]
        if one.settings.num_audit == one.settings.num_estimation and len(audits) > 1:
            yield _gaps(one, audits)
    for row in group:
        if row.attacks:
            yield _attacks(row, checked[row.path])
    if any(row.memory for row in group):
        yield _memory(group)
    if any(row.model for row in group):
        yield _models(group, checked)


def _certified_accuracy(title: str, rows: Sequence[tuple[str, verification.Checked]]) -> tables.Table:
    """One line a row, and for audited ones the same votes under the other bounds."""
    largest = max(c.radius for _, checked in rows for c in checked.found)
    radii = report.radii(rows[0][1].settings.sigma, largest)
    lines = []
    for place, (name, checked) in enumerate(rows):
        truth = _independent_votes(checked, [one for _, one in rows[:place]])
        lines.append((name, *_cost(checked.found), *_certified(checked.found, radii, truth)))
        if checked.settings.sampler == "serial":
            for bound in ("paper", "reference-code"):
                again = [evidence.under(bound, checked.settings, c) for c in checked.found]
                lines.append((f"*{bound}*", "", "", "", *_certified(again, radii, truth)))
    at = (f"r {radius:g}" for radius in radii)
    headings = ("", "evaluations", "s/image", "mismatches", "ACR", "mean radius", *at, _ABOVE)
    if not any(line[-1] for line in lines):
        headings, lines = headings[:-1], [line[:-1] for line in lines]
    return tables.Table(title, headings, tuple(lines))


def _independent_votes(checked, others) -> Sequence[certificates.Certificate]:
    """The first of others whose votes are independent and of the classifier that some certificates are about."""
    for other in others:
        if other.settings.sampler == "independent" and other.header["reference"] == checked.header["reference"]:
            return other.found
    return []


def _made_from(checked: verification.Checked) -> tuple[Any, ...]:
    """What votes and their audits follow from, but for how many were audited."""
    return {**checked.header["smoothing"], "num_audit": None}, checked.header["reference"]


def _gaps(census: verification.Checked, rows: Sequence[tuple[str, verification.Checked]]) -> tables.Table:
    """How far bounds on wrong votes lie above their number, which an audit of all votes knows."""
    wrong = {c.index: c.mismatches for c in census.found}
    total = census.settings.num_estimation
    lines = []
    for name, checked in rows:
        gaps = [100 * gap / total for gap in gaps_of(checked.found, wrong)]
        counted, _ = np.histogram(gaps, [-np.inf, *_GAPS, np.inf])
        lines.append((name, f"{np.median(gaps):.2f}", *(str(number) for number in counted)))
    shares = [100 * number / total for number in wrong.values()]
    between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(_GAPS))
    return tables.Table(
        f"Bound on wrong votes less their number, in percent of {total:,} votes: the median, and how many images "
        f"have which (wrong votes: {min(shares):.2f} to {max(shares):.2f} %, median {np.median(shares):.2f} %)",
        ("", "median", "below 0", *between, f"{_GAPS[-1]:g} or more"),
        tuple(lines),
    )


def gaps_of(found: Sequence[certificates.Certificate], wrong: Mapping[int, int]) -> list[int]:
    """The bound of each audit on the wrong votes of an image, less their number.

    Args:
      found: certificates of the serial sampler.
      wrong: numbers of wrong votes by image.
    """
    return [
        statistics.hypergeometric_upper(c.mismatches, c.num_audit, c.count, c.alpha_audit) - wrong[c.index]
        for c in found
    ]


def _attacks(row: Row, checked: verification.Checked) -> tables.Table:
    """Certified accuracy of a row beside what attacks leave."""
    files = [attempts.read(path) for path in row.attacks]
    for path, file in zip(row.attacks, files, strict=True):
        if file.header["certificates"] != checked.header["sha256"]:
            raise ValueError(f"{path} is of attacks on other certificates than {row.path}")
        for message in attempts.differences(file):
            raise ValueError(f"{path}, {message}; a page is made of what verifies")
    at = file.header["radii"]
    correct, reached = [bool(c.correct) for c in checked.found], [c.radius for c in checked.found]
    certified = [statistics.certified_accuracy(correct, reached, radius) for radius in at]
    lines = [("certified", *(rounding.percent(share) for share in certified), "")]
    for file in files:
        how = file.header["attack"]
        shares = dict(attempts.robust_accuracy(file.attempts))
        lines.append(
            (
                f"withstand {how['steps']} steps on the {how['target']} classifier",
                *(rounding.percent(shares[radius]) for radius in at),
                str(sum(one.refutes for one in file.attempts)) if how["target"] == "smoothed" else "",
            )
        )
    return tables.Table(
        f"Attacks on {row.name}, {len(checked.found)} images: accuracy in percent within a radius",
        ("", *(f"r {radius:g}" for radius in at), "certificates refuted"),
        tuple(lines),
    )


def _memory(group: Sequence[Row]) -> tables.Table:
    """What XLA reserves on a device for the programs of each row."""
    read = {row.name: json.loads(row.memory.read_text())["bytes"] for row in group if row.memory}
    phases = list(dict.fromkeys(phase for sizes in read.values() for phase in sizes))
    lines = [
        (name, *(f"{sizes[phase] / 2**20:.1f}" if phase in sizes else "" for phase in phases))
        for name, sizes in read.items()
    ]
    return tables.Table("MiB that the programs of a row reserve on a device", ("", *phases), tuple(lines))


def _models(group: Sequence[Row], checked: Mapping[pathlib.Path, verification.Checked]) -> tables.Table:
    """How the models of a group were trained, apart from what they share with the first, and how they do."""
    lines: dict[Trained, tuple[str, ...]] = {}
    first: dict[str, Any] = {}
    for row in group:
        training = checked[row.path].header["training"]
        if row.model is None or row.model in lines:
            continue
        first = first or training
        changed = [f"{name} {_brief(x)}" for name, x in training.items() if x != first[name]]
        entries = map(json.loads, row.model.metrics.read_text().splitlines())
        last = [entry for entry in entries if "noisy_accuracy" in entry][-1]
        shares = (f"{100 * last[name]:.1f}" for name in ("clean_accuracy", "noisy_accuracy"))
        lines[row.model] = (row.model.name, ", ".join(changed), str(last["update"]), *shares)
    headings = ("", "trained as the first, but", "updates", "clean %", "under noise %")
    return tables.Table("Models, and how many test images they get right", headings, tuple(lines.values()))


def _brief(value: Any) -> str:
    return str(value["name"]) if isinstance(value, dict) else str(value)


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
        rounding.down(statistics.average_certified_radius(correct, reached), 3),
        rounding.down(statistics.mean_radius(reached), 3),
        *(rounding.percent(statistics.certified_accuracy(correct, reached, r)) for r in radii),
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


def _provenance(command, rows, checked, folder) -> str:
    every = [row for group in rows.values() for row in group]
    paths = {path for row in every for path in (row.path, *row.attacks, row.memory) if path is not None}
    paths |= {row.model.metrics for row in every if row.model is not None}
    files = sorted(os.path.relpath(path, folder) for path in paths)
    found = [c for one in checked.values() for c in one.found]
    header = next(iter(checked.values())).header
    versions = ", ".join(f"{name} {header['versions'][name]}" for name in ("deqsmooth", "jax"))
    settings: config.Smoothing = next(iter(checked.values())).settings
    hours = sum(c.seconds for c in found) / 3600
    return (
        f"## Where the numbers come from\n\n`{command}`, on {header['device']}, {versions}: {hours:.2f} hours of "
        f"sampling, alpha {settings.alpha:g}. Every number above is computed from these files; `deqsmooth-verify` "
        "checks certificates and attacks:\n\n" + "\n".join(f"- `{file}`" for file in files)
    )
