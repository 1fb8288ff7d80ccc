"""Tables of a report on each run: certified accuracy, averages, settings and files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deqsmooth.certificates import plan, record, rounding, statements, verification
from deqsmooth.reports import names, summary, tables
from deqsmooth.reports.runs import Run
from deqsmooth.statistics import bounds

ALPHA = 0.05
"""Largest probability that an interval over images misses."""
LEVEL = f"{100 * (1 - ALPHA):g} %"
"""Confidence level of these intervals, as text."""
_OVER_IMAGES = f"{LEVEL} intervals for the images that these were drawn from"
_MOST_COLUMNS = 8
_DIGITS = 12
_RESIDUAL, _MISMATCHES = "residual", "mismatches"


def overview(runs: Sequence[Run]) -> tables.Table:
    """The table that a report begins with: certified accuracy at a few radii, ACR and cost of each run."""
    num_images, few, columns = {len(run.found) for run in runs}, few_radii(runs), _columns(runs)
    rows = []
    for run in runs:
        shares = [rounding.percent(statements.certified_accuracy(run.found, radius)) for radius in few]
        cells = {
            "images": f"{len(run.found):,}",
            "ACR": rounding.radius(statements.average_certified_radius(run.found)),
            "evaluations": "" if run.checked is None else mean_cost(run.checked.found)[0],
            "s/image": rounding.seconds(float(np.mean([line.seconds for line in run.found]))),
        }
        rows.append((run.label, *shares, *(cells[column] for column in columns)))
    num = max(num_images)
    images = rounding.number(num, "image") if len(num_images) == 1 else "the images of each run"
    title = (
        f"Certified accuracy of {images} in % at L2 radius r{_statistics(runs)}; average certified radius (ACR); "
        f"{f'{evaluations(runs)} and ' if 'evaluations' in columns else ''}seconds of an image"
    )
    return tables.Table(title, ("", *(f"r = {radius:g}" for radius in few), *columns), tuple(rows))


def intervals(runs: Sequence[Run], radii: Sequence[float]) -> tables.Table:
    """Certified accuracy of each run with intervals, and with the radii that hold for all images together."""
    rows = []
    for run in runs:
        rows.append((run.label, *map(_percent, statements.accuracies(run.found, radii, ALPHA))))
        if run.is_certified:
            found = _simultaneous(run)
            shares = (rounding.percent(statements.certified_accuracy(found, r)) for r in radii)
            rows.append((f"{run.label}, all at once", *shares))
    title = f"Certified accuracy in % ({_OVER_IMAGES}, at each radius by itself)"
    return tables.Table(title, ("", *(f"r = {radius:g}" for radius in radii)), tuple(rows))


def averages(runs: Sequence[Run]) -> tables.Table:
    """Mean radii with intervals, abstentions and expected false certificates of each run."""
    headings = ("", "ACR", "mean radius", "abstentions", "wrong", "false, expected")
    title = (
        f"Averages ({_OVER_IMAGES}). The mean radius includes wrong predictions, which count 0 in ACR. "
        "Wrong: images with a certificate of another class than the label. False, expected: at most so many "
        "certificates are false in expectation."
    )
    return tables.Table(title, headings, tuple(map(_averages, runs)))


def costs(runs: Sequence[Run]) -> Iterator[tables.Table]:
    """Yields a table of evaluations, residuals and mismatches of the runs that are no published results."""
    found = [run for run in runs if run.checked is not None]
    if not found:
        return
    cells = [_costs(run) for run in found]
    columns = [name for name in cells[0] if any(one[name] for one in cells)]
    title = f"Costs: mean {evaluations(found)} and seconds of an image."
    if _RESIDUAL in columns:
        title += (
            " Residual: the median relative residual of an image's solves, median over images; a large one means "
            "that the votes are those of a short solve, not of the equilibrium."
        )
    if _MISMATCHES in columns:
        title += " Mismatches: share of audited votes that are not those of the classifier that is certified."
    rows = tuple((run.label, *(one[name] for name in columns)) for run, one in zip(found, cells, strict=True))
    yield tables.Table(title, ("", *columns), rows)


def settings(runs: Sequence[Run]) -> Iterator[tables.Table]:
    """Yields a table of the settings that all runs have in common, and one of those that differ."""
    found = [_settings(run) for run in runs]
    described = [one for one in found if one]
    entries = list(dict.fromkeys(name for one in described for name in one))
    common = [name for name in entries if len({one.get(name, "") for one in described}) == 1]
    if common:
        rows = tuple((name, described[0][name]) for name in common if described[0][name])
        whose = "" if len(runs) == 1 else " that all runs have in common"
        yield tables.Table(f"Settings{whose}", ("", ""), rows, is_text=True)
    others = [name for name in entries if name not in common]
    if others:
        lines = tuple(
            (run.label, *(one.get(name, "") for name in others)) for run, one in zip(runs, found, strict=True)
        )
        yield tables.Table("Settings that differ", ("", *others), lines, is_text=True)


def files(runs: Sequence[Run]) -> tables.Table:
    """Which file each run is, with the digests that identify what it says."""
    rows = []
    for run in runs:
        cells: tuple[str, ...] = ("published", "", "", "")
        if run.checked is not None:
            header, lines = run.checked.header, run.checked.file.lines
            versions = header.get("versions")
            version = versions.get("deqsmooth", "") if isinstance(versions, dict) else ""
            chain = str(lines[-1].chain or "")[:_DIGITS] if lines else ""
            made = f"{version}, schema {header.get('schema')}"
            cells = (str(header.get("sha256"))[:_DIGITS], chain, str(header.get("device", "")), made)
        rows.append((run.label, names.readable(str(run.path)), *cells))
    title = f"Files: first {_DIGITS} digits of the digests of the header and of the chain of all lines"
    return tables.Table(title, ("", "file", "header", "chain", "device", "version"), tuple(rows), is_text=True)


def radii(runs: Sequence[Run]) -> list[float]:
    """Radii of the tables, up to the largest of any run, of runs that verify if there are any."""
    sigma = min((run.checked.settings.sigma for run in runs if run.checked is not None), default=1.0)
    certified = [run for run in runs if run.is_sound] or runs
    return statements.radii(sigma, max(line.radius for run in certified for line in run.found))


def few_radii(runs: Sequence[Run]) -> list[float]:
    """Of the radii of the tables, as many as fit into the first, evenly spaced; at least two."""
    every = radii(runs)
    return every[:: math.ceil(len(every) / (_MOST_COLUMNS - len(_columns(runs))))]


def alphas(run: Run) -> list[float]:
    """Largest probability that each certificate of a run is false; empty if it has none."""
    found = run.checked.found if run.checked is not None and run.is_certified else []
    return [c.alpha for c in found if c.prediction is not None]


def evaluations(runs: Sequence[Run]) -> str:
    """What the evaluations of runs are of: the cell of a model that solves, or a whole network."""
    solves = {run.checked.header["reference"]["solver"] is not None for run in runs if run.checked is not None}
    return f"{' or '.join(('network', 'cell')[one] for one in sorted(solves, reverse=True))} evaluations"


def acr(run: Run) -> str:
    """Average certified radius, with its interval in words if the run verifies."""
    if run.checked is None or not run.is_sound:
        return mean_radii(run.found)[0]
    whole = summary.summary(run.checked.found, alpha=ALPHA).acr
    assert whole is not None
    ends = f"{rounding.radius(whole.lower)} to {rounding.radius(whole.upper, up=True)}"
    return f"{rounding.radius(whole.value)}, with a {LEVEL} interval over images from {ends}"


def mean_cost(found: Sequence[record.Certificate]) -> tuple[str, str, str]:
    """Returns cells with the mean evaluations and seconds per image, and the share of wrong audited votes."""
    audited = sum(c.num_audit for c in found)
    return (
        rounding.evaluations(float(np.mean([c.evaluations for c in found]))),
        rounding.seconds(float(np.mean([c.seconds for c in found]))),
        rounding.errors(sum(c.mismatches for c in found), audited) if audited else "",
    )


def mean_radii(found: Sequence[statements.Image]) -> tuple[str, str]:
    """Returns cells with two mean radii, rounded down: wrong predictions count 0 (ACR), or with their radius."""
    return (
        rounding.radius(statements.average_certified_radius(found)),
        rounding.radius(statements.mean_radius(found)),
    )


def _statistics(runs: Sequence[Run]) -> str:
    """The number of samples and alpha in brackets, if they are the same for all runs."""
    given = [run.checked.settings for run in runs if run.checked is not None]
    found = {(one.num_estimation, one.alpha) for one in given}
    if len(given) < len(runs) or len(found) > 1:
        return ""
    num, alpha = found.pop()
    return f" ({num:,} samples of an image, alpha {alpha:g})"


def _columns(runs: Sequence[Run]) -> list[str]:
    """Columns of the first table after those of radii."""
    found = ["ACR", "evaluations", "s/image"]
    if all(run.checked is None for run in runs):
        found.remove("evaluations")
    return found if len({len(run.found) for run in runs}) == 1 else ["images", *found]


def _mean_radii(run: Run) -> tuple[str, str]:
    if run.checked is None or not run.is_sound:
        # The interval needs to know the largest possible radius, which settings that do not hold do not tell.
        return mean_radii(run.found)
    whole = summary.summary(run.checked.found, alpha=ALPHA)
    return str(whole.acr), str(whole.mean_radius)


def _averages(run: Run) -> tuple[str, ...]:
    abstentions = sum(line.prediction is None for line in run.found)
    wrong = sum(line.prediction is not None and not line.correct for line in run.found)
    expected = rounding.at_most(sum(alphas(run))) if run.is_certified else ""
    return (run.label, *_mean_radii(run), str(abstentions), str(wrong), expected)


def _costs(run: Run) -> dict[str, str]:
    """Cells of a run by their headings."""
    found = [] if run.checked is None else run.checked.found
    residuals = [c.residuals[0] for c in found if c.residuals]
    cost, seconds, mismatches = mean_cost(found)
    return {
        "evaluations": cost,
        _RESIDUAL: f"{np.median(residuals):.2g}" if residuals else "",
        "s/image": seconds,
        _MISMATCHES: mismatches,
    }


def _settings(run: Run) -> dict[str, str]:
    """What was certified and how, in words; empty for a published result, of which it is not known."""
    if run.checked is None:
        return {}
    header, given = run.checked.header, run.checked.settings
    selection = run.checked.selection
    reference = header["reference"]
    looks = "" if given.looks is None else f", read at {', '.join(f'{look:,}' for look in given.looks)}"
    found = {
        "data": names.readable(str(header.get("data") or f"{selection.dataset}/{selection.split}")),
        "images": _images(run.checked),
        "base classifier": _classifier(reference),
        "model": str(header.get("classifier") or ""),
        "parameters (digest)": str(reference.get("checkpoint") or "")[:_DIGITS],
        "code (digest)": str(reference.get("program") or "")[:_DIGITS],
        "precision": given.dtype,
        "sigma": f"{given.sigma:g}",
        "noise": "gaussian" if given.grid is None else f"exact, on a grid of 1/{given.grid}",
        "sampler": str(given.sampler),
        "selection samples (N0)": f"{given.num_selection:,}",
        "estimation samples (N)": f"{given.num_estimation:,}{looks}",
        "alpha": f"{given.alpha:g}",
        "bound": next((one.bound for one in run.checked.found if one.bound != bounds.NONE), bounds.NONE),
        "seed": str(given.seed),
        "soundness check": str(header.get("soundness_check", "not stated")),
    }
    if given.sampler == "serial":
        found["votes"] = f"{given.budget} {given.solver} evaluations from the {given.start} state"
        found["audited votes (K)"] = f"{given.num_audit:,}"
    return found


def _images(checked: verification.Checked) -> str:
    """How many images of how many, and the first of their indices."""
    indices, whole = sorted(one.index for one in checked.found), checked.header.get("num_images")
    of = f" of {whole:,}" if isinstance(whole, int) else ""
    return f"{len(indices):,}{of}: {'index' if len(indices) == 1 else 'indices'} {plan.first(indices, 3)}"


def _classifier(reference: dict[str, Any]) -> str:
    """The base classifier, in a few words."""
    if reference["solver"] is None:
        return "explicit network"
    try:
        if "factor" in reference:
            return f"the exact equilibrium, with a Lipschitz constant of {reference['factor']:.3g}"
        stop = "" if reference["tolerance"] is None else f" to {reference['tolerance']:g}"
        return f"{reference['budget']} {reference['solver']} evaluations{stop} from {reference['start']}"
    except (KeyError, TypeError, ValueError):
        # Verification says that the header was changed.
        return "unknown"


def _percent(accuracy: statements.Accuracy) -> str:
    interval = f"{rounding.percent(accuracy.lower)}-{rounding.percent(accuracy.upper, up=True)}"
    return f"{rounding.percent(accuracy.share)} ({interval})"


def _simultaneous(run: Run) -> list[record.Certificate]:
    """The certificates with radii that hold for all images simultaneously."""
    found = [] if run.checked is None else run.checked.found
    together = zip(found, statements.simultaneous_radii(found), strict=True)
    return [
        dataclasses.replace(c, radius=radius, correct=bool(c.correct and radius > 0)) for c, radius in together
    ]
