"""Tables and sentences that commands print: certificates, attempts and settings to text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import table

from deqsmooth import config
from deqsmooth.certificates import attempts, bound, record, rounding, statements
from deqsmooth.statistics import bounds


def certified_accuracy(found: Sequence[record.Certificate], at: Sequence[float]) -> table.Table:
    """Returns a table of the certified accuracy at some radii, in percent, rounded down."""
    shown = table.Table(title=f"certified accuracy, {len(found)} images")
    shown.add_column("radius (L2, pixels in [0, 1])")
    for radius in at:
        shown.add_column(f"{radius:g}", justify="right")
    shares = [statements.certified_accuracy(found, radius) for radius in at]
    shown.add_row("%", *(rounding.percent(share) for share in shares))
    return shown


def summary(found: Sequence[record.Certificate]) -> table.Table:
    """Returns a table of averages over the images of a run.

    Audited votes and pairs have a row if there are any; so have samples that were not finite and steps replaced by
    plain iteration.
    """
    rows = [
        ("ACR (wrong predictions count 0)", rounding.down(statements.average_certified_radius(found), 3)),
        ("mean radius (wrong predictions included)", rounding.down(statements.mean_radius(found), 3)),
        ("abstentions", f"{sum(c.prediction is None for c in found)} of {len(found)}"),
        ("evaluations per image", f"{np.mean([c.evaluations for c in found]):,.0f}"),
        ("seconds per image", f"{np.mean([c.seconds for c in found]):.2f}"),
    ]
    for name, errors, checked in (
        (
            "audited votes that the reference does not confirm",
            sum(c.mismatches for c in found),
            sum(c.num_audit for c in found),
        ),
        (
            "pairs in which only the original classifier gives the class",
            sum(c.lost for c in found),
            sum(c.num_pairs for c in found),
        ),
    ):
        if checked:
            rows.append((name, f"{100 * errors / checked:.2f} %"))
    for name, number in (
        ("samples that were not finite", sum(c.invalid for c in found)),
        ("solver steps replaced by plain iteration", sum(c.fallbacks for c in found)),
    ):
        if number:
            rows.append((name, f"{number:,}"))
    if found[0].warning:
        rows.append(("WARNING", f"bound {found[0].bound}: {found[0].warning}"))
    shown = table.Table(show_header=False)
    for row in rows:
        shown.add_row(*row)
    return shown


def limits(settings: config.Resolved, solves: bool) -> str:
    """Returns the largest radius that a run can certify and the largest cost of an image, in two lines.

    Args:
      settings: settings of the run.
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
        f"at most {cost} evaluations per image"
    )


def time_needed(seconds: float, num_images: int) -> str:
    """Returns the time that a run needs at most, given the seconds for one image."""
    total = seconds * num_images
    if total < 120:
        shown = f"{total:.0f} s"
    elif total < 7200:
        shown = f"{total / 60:.0f} min"
    else:
        shown = f"{total / 3600:.1f} h"
    return f"at most about {seconds:.2g} s per image, {shown} in total"


def progress(found: Sequence[record.Certificate]) -> str:
    """Returns the certified accuracy so far at radius 0 and at radius sigma, as a short phrase."""
    at = (0.0, found[0].sigma)
    shares = [100 * statements.certified_accuracy(found, radius) for radius in at]
    return "certified " + ", ".join(f"{s:.0f} % at {r:g}" for r, s in zip(at, shares, strict=True))


def robust_accuracy(found: list[attempts.Attempt], target: str) -> table.Table:
    """Returns a table of the empirical robust accuracy and the certified accuracy at the radii of the attacks."""
    shown = table.Table(title=f"attacks on the {target} classifier")
    shown.add_column("radius")
    robust = attempts.robust_accuracy(found)
    for radius, _ in robust:
        shown.add_column(f"{radius:g}", justify="right")
    smallest = robust[0][0]
    images = [attempt for attempt in found if attempt.budget == smallest]
    rows = {
        "certified, %": [statements.certified_accuracy(images, radius) for radius, _ in robust],
        "not broken, %": [share for _, share in robust],
    }
    for name, shares in rows.items():
        shown.add_row(name, *(rounding.percent(share) for share in shares))
    return shown
