"""Tables and sentences that commands print: attempts, settings and progress to text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import table

from deqsmooth import config
from deqsmooth.certificates import attempts, bound, record, rounding, statements
from deqsmooth.statistics import bounds


def limits(settings: config.Resolved, solves: bool) -> str:
    """Returns the largest radius that a run can certify, and how much work an image is, in two lines.

    Args:
      settings: settings of the run.
      solves: whether the classifier has an equilibrium to solve for.
    """
    samples = settings.num_selection + settings.num_estimation
    cost, kind = (settings.evaluations, "cell") if solves else (samples, "network")
    audit = f", {settings.num_audit:,} of them audited" if settings.num_audit else ""
    formula = bounds.AUDITED.get(str(settings.bound))
    warning = "" if formula is None or formula.is_valid else f"; bound {settings.bound}: {bound.NOT_VALID}"
    work = "each sample is solved until its vote is settled"
    if settings.settle is None:
        work = f"at most {rounding.evaluations(cost)} {kind} evaluations per image"
    return (
        f"{settings.num_estimation:,} samples{audit}, alpha {settings.alpha:g}: "
        f"no radius can exceed {rounding.radius(settings.cap)}{warning}\n{work}"
    )


def time_needed(seconds: float, num_images: int) -> str:
    """Returns the time that a run needs at most, given the seconds for one image."""
    total = rounding.duration(seconds * num_images)
    return f"about {rounding.seconds(seconds)} s per image, {total} in total"


def progress(found: Sequence[record.Certificate]) -> str:
    """Returns the certified accuracy so far at radius 0 and at radius sigma, as a short phrase.

    Where a label is unknown it is the share of images with a certificate.
    """
    labelled = all(c.correct is not None for c in found)
    of = statements.accuracies if labelled else statements.certified
    shares = of(found, (0.0, found[0].sigma))
    return "certified " + ", ".join(f"{rounding.percent(x.share)} % at {x.radius:g}" for x in shares)


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
