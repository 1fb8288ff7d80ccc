"""The results of an experiment: rows, which are their records, and the tables and figures computed from them.

Needs neither JAX nor the model.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deqsmooth.certificates import attempts, bound, jsonl, record, rounding, statements, truth, verification
from deqsmooth.reports import figures, tables
from deqsmooth.statistics import bounds

ABOVE = "above the truth"
_GAPS = (0.0, 1.0, 2.0, 5.0, 10.0)
Checked = Mapping[pathlib.Path, verification.Checked]
"""Records by their path."""


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


def tables_of(title: str, group: Sequence[Row], checked: Checked) -> Iterator[tables.Table]:
    """What a group of rows certifies, and what their audits, attacks and programs say beside it.

    Args:
      title: of the first table.
      group: the rows.
      checked: their records, by path.

    Raises:
      ValueError: attacks do not verify, or are on other records.
    """
    yield _certified_accuracy(title, group, checked)
    for census, rows in _censuses(group, checked):
        yield _gaps(census, rows)
    for row in group:
        if row.attacks:
            yield _attacks(row, checked[row.path])
    if any(row.memory for row in group):
        yield _memory(group)
    if any(row.model for row in group):
        yield _models(group, checked)


def figures_of(group: Sequence[Row], checked: Checked) -> Iterator[figures.Figure]:
    """Bounds beside the truth, where independent votes or an audit of all votes tell it; see `tables_of`."""
    for row in group:
        one = checked[row.path]
        votes = _independent_votes(row, group, checked)
        if one.settings.sampler == "serial" and votes:
            yield _beside_truth(row.name, one, votes)
    for census, rows in _censuses(group, checked):
        yield figures.gaps(
            f"gaps-{census.settings.sigma:g}",
            f"Bound on wrong votes less their number, sigma {census.settings.sigma:g}: each audit on "
            f"{len(census.found)} images.",
            {name: _shares(other, census) for name, other in rows if other is not census},
        )


def _certified_accuracy(title: str, group: Sequence[Row], checked: Checked) -> tables.Table:
    """One line a row, and for audited ones the same votes under the other bounds."""
    largest = max(c.radius for row in group for c in checked[row.path].found)
    radii = statements.radii(checked[group[0].path].settings.sigma, largest)
    lines = []
    for row in group:
        one, votes = checked[row.path], _independent_votes(row, group, checked)
        lines.append((row.name, *_cost(one.found), *_certified(one.found, radii, votes)))
        if one.settings.sampler == "serial":
            for name, again in _other_bounds(one).items():
                lines.append((f"*{name}*", "", "", "", *_certified(again, radii, votes)))
    at = (f"r {radius:g}" for radius in radii)
    headings = ("", "evaluations", "s/image", "mismatches", "ACR", "mean radius", *at, ABOVE)
    if not any(line[-1] for line in lines):
        headings, lines = headings[:-1], [line[:-1] for line in lines]
    return tables.Table(title, headings, tuple(lines))


def _other_bounds(one: verification.Checked) -> dict[str, list[record.Certificate]]:
    """What the published formulas make of the votes of a serial row."""
    return {b: [statements.under(b, c) for c in one.found] for b in bounds.AUDITED if b != one.settings.bound}


def _independent_votes(row: Row, group: Sequence[Row], checked: Checked) -> list[record.Certificate]:
    """Of the rows above, the first whose votes are independent and of the classifier that a row is about."""
    reference = checked[row.path].header["reference"]
    for other in (checked[above.path] for above in group[: group.index(row)]):
        if other.settings.sampler == "independent" and other.header["reference"] == reference:
            return other.found
    return []


def _beside_truth(name: str, one: verification.Checked, votes: Sequence[record.Certificate]) -> figures.Figure:
    """Radii of a serial row by every formula, beside those that independent votes leave possible."""
    sigma, trials = one.settings.sigma, sum(votes[0].counts)
    possible = [
        (bounds.radius(lower, sigma), bounds.radius(upper, sigma))
        for lower, upper in truth.intervals(one.found, votes)
    ]
    under = {"sound": one.found, **_other_bounds(one)}
    return figures.beside_truth(
        f"truth-{sigma:g}-{name.replace(' ', '-')}",
        f"{name}, sigma {sigma:g}: certified radii of {len(possible)} images, beside what {trials:,} independent "
        "votes of the same classifier, on the same noise, leave possible. Above it: "
        + ", ".join(f"{truth.above(found, votes)} ({name})" for name, found in under.items())
        + f", which is {bound.NOT_VALID}.",
        possible,
        {name: [bounds.radius(c.p_lower, sigma) for c in found] for name, found in under.items()},
    )


def _censuses(
    group: Sequence[Row], checked: Checked
) -> Iterator[tuple[verification.Checked, list[tuple[str, verification.Checked]]]]:
    """Rows that audit all their votes, each with all the audits of the same votes, if there are more."""
    rows = [(row.name, checked[row.path]) for row in group]
    for _, one in rows:
        audits = [(name, other) for name, other in rows if _made_from(other) == _made_from(one)]
        if one.settings.num_audit == one.settings.num_estimation and len(audits) > 1:
            yield one, audits


def _made_from(checked: verification.Checked) -> tuple[Any, ...]:
    """What votes and their audits follow from, but for how many were audited."""
    return {**checked.header["smoothing"], "num_audit": None}, checked.header["reference"]


def _shares(audit: verification.Checked, census: verification.Checked) -> list[float]:
    """How far the bounds of an audit on wrong votes lie above their number, in percent of the votes."""
    wrong = {c.index: c.mismatches for c in census.found}
    return [100 * gap / census.settings.num_estimation for gap in truth.gaps(audit.found, wrong)]


def _gaps(census: verification.Checked, rows: Sequence[tuple[str, verification.Checked]]) -> tables.Table:
    """How far bounds on wrong votes lie above their number, which an audit of all votes knows."""
    total = census.settings.num_estimation
    lines = []
    for name, audit in rows:
        shares = _shares(audit, census)
        counted, _ = np.histogram(shares, [-np.inf, *_GAPS, np.inf])
        lines.append((name, f"{np.median(shares):.2f}", *(str(number) for number in counted)))
    wrong = [100 * c.mismatches / total for c in census.found]
    between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(_GAPS))
    return tables.Table(
        f"Bound on wrong votes less their number, in percent of {total:,} votes: the median, and how many images "
        f"have which (wrong votes: {min(wrong):.2f} to {max(wrong):.2f} %, median {np.median(wrong):.2f} %)",
        ("", "median", "below 0", *between, f"{_GAPS[-1]:g} or more"),
        tuple(lines),
    )


def _attacks(row: Row, checked: verification.Checked) -> tables.Table:
    """Certified accuracy of a row beside what attacks leave."""
    files = [attempts.parse(str(path), jsonl.text(path)) for path in row.attacks]
    for path, file in zip(row.attacks, files, strict=True):
        if file.header["certificates"] != checked.header["sha256"]:
            raise ValueError(f"{path} is of attacks on other certificates than {row.path}")
        for message in attempts.differences(file):
            raise ValueError(f"{path}, {message}; a page is made of what verifies")
    at = file.header["radii"]
    certified = [statements.certified_accuracy(checked.found, radius) for radius in at]
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


def _models(group: Sequence[Row], checked: Checked) -> tables.Table:
    """How the models of a group were trained, apart from what they share with the first, and how they do."""
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


def _cost(found: Sequence[record.Certificate]) -> tuple[str, str, str]:
    audited = sum(c.num_audit for c in found)
    return (
        f"{np.mean([c.evaluations for c in found]):,.0f}",
        f"{np.mean([c.seconds for c in found]):.2f}",
        f"{100 * sum(c.mismatches for c in found) / audited:.2f} %" if audited else "",
    )


def _certified(found, radii, votes) -> tuple[str, ...]:
    return (
        rounding.down(statements.average_certified_radius(found), 3),
        rounding.down(statements.mean_radius(found), 3),
        *(rounding.percent(statements.certified_accuracy(found, r)) for r in radii),
        f"{truth.above(found, votes)} of {len(found)}" if votes else "",
    )
