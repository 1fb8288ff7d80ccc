"""The results of an experiment: from rows, which name their verified records, to tables and figures."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deqsmooth.certificates import attempts, bound, jsonl, record, rounding, statements, truth, verification
from deqsmooth.reports import canvas, figures, overview, tables
from deqsmooth.statistics import bounds, robustness

ABOVE = "above the truth"
"""Heading of the column that counts lower bounds above the upper end of the true probability's interval."""
_SLACKS = (0.0, 1.0, 2.0, 5.0, 10.0)
Checked = Mapping[pathlib.Path, verification.Checked]
"""Verified records by their path."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model that an experiment trained.

    Attributes:
      name: name of the model.
      metrics: file of the metrics of its training.
    """

    name: str
    metrics: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of an experiment and its records.

    Attributes:
      name: name of the row.
      path: file of its certificates.
      attacks: files of attacks on the certificates.
      memory: file with the memory of its compiled programs; None if the experiment does not measure memory.
      model: certified model; None if the experiment did not train it.
    """

    name: str
    path: pathlib.Path
    attacks: tuple[pathlib.Path, ...] = ()
    memory: pathlib.Path | None = None
    model: Trained | None = None


def tables_of(title: str, group: Sequence[Row], checked: Checked) -> Iterator[tables.Table]:
    """Yields the tables of a group of rows: certified accuracy, slack of audits, attacks, memory and models.

    Args:
      title: title of the first table.
      group: the rows.
      checked: their verified records.

    Raises:
      ValueError: a file of attacks does not verify, or is on other certificates than its row.
    """
    yield _certified_accuracy(title, group, checked)
    for full, audits in _full_audits(group, checked):
        yield _slack_table(full, audits)
    for row in group:
        if row.attacks:
            yield _attacks(row, checked[row.path])
    if any(row.memory for row in group):
        yield _memory(group)
    if any(row.model for row in group):
        yield _models(group, checked)


def figures_of(group: Sequence[Row], checked: Checked) -> Iterator[canvas.Figure]:
    """Yields figures that compare bounds with the true values.

    A serial row has a figure of radii if a row above it has independent votes of the same classifier. A row that
    audits all its votes has a figure of the slack of smaller audits of the same votes.

    Args:
      group: see `tables_of`.
      checked: see `tables_of`.
    """
    for row in group:
        serial = checked[row.path]
        votes = _independent_votes(row, group, checked)
        if serial.settings.sampler == "serial" and votes:
            yield _possible_radii(row.name, serial, votes)
    for full, audits in _full_audits(group, checked):
        yield figures.slack(
            f"gaps-{full.settings.sigma:g}",
            f"Bound on wrong votes less their number, sigma {full.settings.sigma:g}: each audit on "
            f"{len(full.found)} images.",
            {name: _slacks(audit, full) for name, audit in audits if audit is not full},
        )


def _certified_accuracy(title: str, group: Sequence[Row], checked: Checked) -> tables.Table:
    """The first table of a group: a line for each row, and for serial rows one for each of the other bounds."""
    largest = max(c.radius for row in group for c in checked[row.path].found)
    radii = statements.radii(checked[group[0].path].settings.sigma, largest)
    lines = []
    for row in group:
        records, votes = checked[row.path], _independent_votes(row, group, checked)
        found = records.found
        lines.append((row.name, *overview.mean_cost(found), *_accuracies(found, radii, votes)))
        if records.settings.sampler == "serial":
            for name, other in _other_bounds(records).items():
                lines.append((f"*{name}*", "", "", "", *_accuracies(other, radii, votes)))
    at = (f"r {radius:g}" for radius in radii)
    headings = ("", "evaluations", "s/image", "mismatches", "ACR", "mean radius", *at, ABOVE)
    return tables.without_empty_end(tables.Table(title, headings, tuple(lines)))


def _other_bounds(serial: verification.Checked) -> dict[str, list[record.Certificate]]:
    """The certificates of a serial row under each audited bound other than its own, by the bound's name."""
    own = serial.settings.bound
    return {name: [statements.under(name, c) for c in serial.found] for name in bounds.AUDITED if name != own}


def _independent_votes(row: Row, group: Sequence[Row], checked: Checked) -> list[record.Certificate]:
    """Certificates of the first independent row above `row` that certify the same classifier; empty if none do."""
    reference = checked[row.path].header["reference"]
    for other in (checked[above.path] for above in group[: group.index(row)]):
        if other.settings.sampler == "independent" and other.header["reference"] == reference:
            return other.found
    return []


def _possible_radii(name: str, serial: verification.Checked, votes: Sequence[record.Certificate]) -> canvas.Figure:
    """Radii of a serial row by each audited bound, and the true radii that independent votes leave possible."""
    sigma, trials = serial.settings.sigma, sum(votes[0].counts)
    possible = [
        (robustness.radius(lower, sigma), robustness.radius(upper, sigma))
        for lower, upper in truth.intervals(serial.found, votes)
    ]
    by_bound = {"sound": serial.found, **_other_bounds(serial)}
    return figures.possible_radii(
        f"truth-{sigma:g}-{name.replace(' ', '-')}",
        f"{name}, sigma {sigma:g}: certified radii of {len(possible)} images, beside what {trials:,} independent "
        "votes of the same classifier, on the same noise, leave possible. Above it: "
        + ", ".join(f"{truth.above(found, votes)} ({name})" for name, found in by_bound.items())
        + f", which is {bound.NOT_VALID}.",
        possible,
        {name: [robustness.radius(c.p_lower, sigma) for c in found] for name, found in by_bound.items()},
    )


def _full_audits(
    group: Sequence[Row], checked: Checked
) -> Iterator[tuple[verification.Checked, list[tuple[str, verification.Checked]]]]:
    """Yields each row that audits all its votes, with all audits of these votes by name, if there are others."""
    rows = [(row.name, checked[row.path]) for row in group]
    for _, full in rows:
        audits = [(name, other) for name, other in rows if _votes_settings(other) == _votes_settings(full)]
        if full.settings.num_audit == full.settings.num_estimation and len(audits) > 1:
            yield full, audits


def _votes_settings(checked: verification.Checked) -> tuple[Any, ...]:
    """Everything that determines the votes and their audit, except the number of audited votes."""
    return {**checked.header["smoothing"], "num_audit": None}, checked.header["reference"]


def _slacks(audit: verification.Checked, full: verification.Checked) -> list[float]:
    """The slack of an audit for each image, in percent of the votes.

    The slack is the audit's upper bound on the number of wrong votes, minus the number that the full audit found.
    """
    wrong = {c.index: c.mismatches for c in full.found}
    return [100 * gap / full.settings.num_estimation for gap in truth.gaps(audit.found, wrong)]


def _slack_table(full: verification.Checked, audits: Sequence[tuple[str, verification.Checked]]) -> tables.Table:
    """Distribution over images of the slack of each audit; a full audit counts the wrong votes."""
    total = full.settings.num_estimation
    lines = []
    for name, audit in audits:
        slacks = _slacks(audit, full)
        counts, _ = np.histogram(slacks, [-np.inf, *_SLACKS, np.inf])
        lines.append((name, f"{np.median(slacks):.2f}", *map(str, counts)))
    wrong = [100 * c.mismatches / total for c in full.found]
    between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(_SLACKS))
    return tables.Table(
        f"Bound on wrong votes less their number, in percent of {total:,} votes: the median, and how many images "
        f"have which (wrong votes: {min(wrong):.2f} to {max(wrong):.2f} %, median {np.median(wrong):.2f} %)",
        ("", "median", "below 0", *between, f"{_SLACKS[-1]:g} or more"),
        tuple(lines),
    )


def _attacks(row: Row, checked: verification.Checked) -> tables.Table:
    """Certified accuracy of a row, and its accuracy under each attack."""
    files = [attempts.parse(str(path), jsonl.text(path)) for path in row.attacks]
    for path, file in zip(row.attacks, files, strict=True):
        if file.header["certificates"] != checked.header["sha256"]:
            raise ValueError(f"{path} has attacks on other certificates than those of {row.path}")
        differences = attempts.differences(file, checked.found)
        if differences:
            raise ValueError(f"{path}, {differences[0]}; a page needs files that verify")
    at = file.header["radii"]
    certified = [statements.certified_accuracy(checked.found, radius) for radius in at]
    lines = [("certified", *(rounding.percent(share) for share in certified), "")]
    for file in files:
        attack = file.header["attack"]
        shares = dict(attempts.robust_accuracy(file.attempts))
        lines.append(
            (
                f"withstand {attack['steps']} steps on the {attack['target']} classifier",
                *(rounding.percent(shares[radius]) for radius in at),
                str(sum(attempt.refutes for attempt in file.attempts)) if attack["target"] == "smoothed" else "",
            )
        )
    return tables.Table(
        f"Attacks on {row.name}, {len(checked.found)} images: accuracy in percent within a radius",
        ("", *(f"r {radius:g}" for radius in at), "certificates refuted"),
        tuple(lines),
    )


def _memory(group: Sequence[Row]) -> tables.Table:
    """Memory that XLA reserves on a device for the compiled programs of each row."""
    read = {row.name: json.loads(row.memory.read_text(encoding="utf-8"))["bytes"] for row in group if row.memory}
    phases = list(dict.fromkeys(phase for sizes in read.values() for phase in sizes))
    lines = [
        (name, *(f"{sizes[phase] / 2**20:.1f}" if phase in sizes else "" for phase in phases))
        for name, sizes in read.items()
    ]
    return tables.Table("MiB that the programs of a row reserve on a device", ("", *phases), tuple(lines))


def _models(group: Sequence[Row], checked: Checked) -> tables.Table:
    """The models of a group: the training settings that differ from those of the first, and the test accuracy."""
    lines: dict[Trained, tuple[str, ...]] = {}
    first: dict[str, Any] = {}
    for row in group:
        training = checked[row.path].header["training"]
        if row.model is None or row.model in lines:
            continue
        first = first or training
        changed = [f"{name} {_brief(x)}" for name, x in training.items() if x != first[name]]
        entries = jsonl.objects(row.model.metrics, jsonl.text(row.model.metrics))
        last = [entry for entry in entries if "noisy_accuracy" in entry][-1]
        shares = (f"{100 * last[name]:.1f}" for name in ("clean_accuracy", "noisy_accuracy"))
        lines[row.model] = (row.model.name, ", ".join(changed), str(last["update"]), *shares)
    headings = ("", "trained as the first, but", "updates", "clean %", "under noise %")
    return tables.Table("Models, and how many test images they get right", headings, tuple(lines.values()))


def _brief(value: Any) -> str:
    return str(value["name"]) if isinstance(value, dict) else str(value)


def _accuracies(
    found: Sequence[record.Certificate], radii: Sequence[float], votes: Sequence[record.Certificate]
) -> tuple[str, ...]:
    """Cells of a row of the first table: mean radii, certified accuracies, and the number of false bounds."""
    return (
        *overview.mean_radii(found),
        *(rounding.percent(statements.certified_accuracy(found, r)) for r in radii),
        f"{truth.above(found, votes)} of {len(found)}" if votes else "",
    )
