"""What people look at: the summary of a run as tables, from its certificates alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich import table

from deqsmooth import config
from deqsmooth.certificates import attempts, bound, record, rounding, statements
from deqsmooth.statistics import bounds

if TYPE_CHECKING:
    pass


def certified_accuracy(found: Sequence[record.Certificate], at: Sequence[float]) -> table.Table:
    """Certified accuracy at radii, in percent, rounded down."""
    shown = table.Table(title=f"certified accuracy, {len(found)} images")
    shown.add_column("radius (L2, pixels in [0, 1])")
    for radius in at:
        shown.add_column(f"{radius:g}", justify="right")
    shares = [statements.certified_accuracy(found, radius) for radius in at]
    shown.add_row("%", *(rounding.percent(share) for share in shares))
    return shown


def summary(found: Sequence[record.Certificate]) -> table.Table:
    """Averages over the images of a run."""
    shown = table.Table(show_header=False)
    rows = [
        (
            "ACR (wrong predictions count 0)",
            rounding.down(statements.average_certified_radius(found), 3),
        ),
        ("mean radius (wrong predictions included)", rounding.down(statements.mean_radius(found), 3)),
        ("abstentions", f"{sum(c.prediction is None for c in found)} of {len(found)}"),
        ("evaluations per image", f"{np.mean([c.evaluations for c in found]):,.0f}"),
        ("seconds per image", f"{np.mean([c.seconds for c in found]):.2f}"),
    ]
    for name, errors, checked in (
        ("audited votes that the reference does not confirm", "mismatches", "num_audit"),
        ("pairs in which only the network before gives the class", "lost", "num_pairs"),
    ):
        total = sum(getattr(c, checked) for c in found)
        if total:
            rows.append((name, f"{100 * sum(getattr(c, errors) for c in found) / total:.2f} %"))
    for name, number in (
        ("samples that were not finite", sum(c.invalid for c in found)),
        ("solver steps replaced by plain iteration", sum(c.fallbacks for c in found)),
    ):
        if number:
            rows.append((name, f"{number:,}"))
    if found[0].warning:
        rows.append(("WARNING", f"bound {found[0].bound}: {found[0].warning}"))
    for row in rows:
        shown.add_row(*row)
    return shown


def announcement(settings: config.Resolved, solves: bool) -> str:
    """The largest radius that a run can certify and what an image costs, in two lines.

    Args:
      settings: of the run, with its lanes.
      solves: whether the classifier has an equilibrium to solve for.
    """
    samples = settings.num_selection + settings.num_estimation
    cost = f"{settings.evaluations:,} cell" if solves else f"{samples:,} network"
    audit = f", {settings.num_audit:,} of them audited" if settings.num_audit else ""
    formula = bounds.AUDITED.get(str(settings.bound))
    warning = "" if formula is None or formula.is_valid else f"; bound {settings.bound}: {bound.NOT_VALID}"
    return (
        f"{settings.num_estimation:,} samples{audit}, alpha {settings.alpha:g}: "
        f"no radius can exceed {rounding.down(settings.cap, 3)}{warning}\n"
        f"{cost} evaluations an image at most"
    )


def expectation(seconds: float, num_images: int) -> str:
    """How long a run will take at most, from the seconds of an image."""
    minutes = seconds * num_images / 60
    whole = (
        f"{60 * minutes:.0f} s"
        if minutes < 2
        else f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.1f} h"
    )
    return f"about {seconds:.2g} s an image and {whole} in all, at most"


def state(found: Sequence[record.Certificate]) -> str:
    """Where a run stands, in a few words."""
    at = (0.0, found[0].sigma)
    shares = [100 * statements.certified_accuracy(found, radius) for radius in at]
    return "certified " + ", ".join(f"{s:.0f} % at {r:g}" for r, s in zip(at, shares, strict=True))


def survivors(found: list[attempts.Attempt], target: str) -> table.Table:
    """Empirical robust accuracy, in percent, beside the certified one, at the radii of attacks."""
    shown = table.Table(title=f"attacks on the {target} classifier")
    shown.add_column("radius")
    left = attempts.robust_accuracy(found)
    for radius, _ in left:
        shown.add_column(f"{radius:g}", justify="right")
    first = [one for one in found if one.budget == left[0][0]]
    rows = {
        "certified, %": [statements.certified_accuracy(first, radius) for radius, _ in left],
        "not broken, %": [share for _, share in left],
    }
    for name, shares in rows.items():
        shown.add_row(name, *(rounding.percent(share) for share in shares))
    return shown
