"""Command `deqsmooth-plan`: from a radius to the cheapest settings that are expected to certify it."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import rich.console
import rich.table

from deqsmooth import config
from deqsmooth.certificates import rounding
from deqsmooth.commands import listing
from deqsmooth.commands import main as commands
from deqsmooth.statistics import robustness

if TYPE_CHECKING:
    from deqsmooth.smoothing import planning

_DEFAULT_SOLVER = config.Smoothing(sampler="independent").solver


@dataclasses.dataclass(frozen=True)
class Flags:
    """Find the cheapest settings with which a model certifies a radius, from a pilot run on a few images.

    Attributes:
      planning: settings of the plan and of the pilot.
      dataset: name of the data set.
      data_dir: TFDS data directory; by default that of TFDS. For `arrays` the `.npz` file.
      split: split of the data set; by default `test`, for imagenet `validation`.
      checkpoint: folder of the model, or name of a shipped one; by default that for the data set and sigma.
      download: let TFDS download and prepare a missing data set (needs TensorFlow).
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which images": ("dataset data_dir", "split download"),
        "which model": ("checkpoint", "dtype"),
        "noise and statistics": ("radius sigma alpha max_samples", "slack"),
        "the pilot": ("pilot_images", "pilot_samples pilot_audit seed"),
    }

    planning: Annotated[config.Planning, listing.Flat]
    dataset: str = "digits"
    data_dir: str | None = None
    split: str | None = None
    checkpoint: pathlib.Path | None = None
    download: bool = False


def main() -> int:
    """Command `deqsmooth-plan`; returns the exit status: 1 if the radius cannot be certified."""
    return commands.run(Flags, run, prog="deqsmooth-plan")


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Prints the best plan of every classifier, from its pilot run, and the command line of the best of all.

    A classifier here is the model with a sampler, a start, a solver and a budget.
    """
    from deqsmooth import data
    from deqsmooth.commands import progress
    from deqsmooth.models import checkpoints
    from deqsmooth.smoothing import planning

    settings = arguments.planning
    selection = config.Selection(dataset=arguments.dataset, data_dir=arguments.data_dir, split=arguments.split)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load_or_shipped(arguments.checkpoint, selection.dataset, settings.sigma)
    largest = config.Smoothing(
        sampler="independent", num_estimation=settings.max_samples, alpha=settings.alpha, sigma=settings.sigma
    ).cap
    if settings.radius > largest:
        console.print(
            f"radius {settings.radius:g} cannot be certified: even unanimous votes of {settings.max_samples:,} "
            f"samples reach only {rounding.radius(largest)} at sigma {settings.sigma:g} and alpha "
            f"{settings.alpha:g}; increase sigma or max_samples"
        )
        return 1
    pilots, solves = [], checkpoint.solves
    with progress.bar(console) as shown:
        progress.begin(shown, "pilot", len(planning.candidates(checkpoint, settings)))
        for one in planning.pilots(checkpoint, dataset, settings):
            pilots.append(one)
            progress.advance(shown, f"pilot, {classifier_name(one.settings, solves)}")
    found = [list(planning.plans(one, settings)) for one in pilots]
    best = planning.choose(found, settings.slack)
    if best is None:
        console.print(_no_plan(pilots, settings))
        return 1
    bests = (best if best in own else planning.choose([own], settings.slack) for own in found)
    console.print(plans([plan for plan in bests if plan is not None], best, settings, solves))
    where = {name: getattr(arguments, name) for name in ("dataset", "data_dir", "split", "checkpoint")}
    console.print(f"\ndeqsmooth-certify {as_flags(where, best.settings)}")
    return 0


def classifier_name(settings: config.Smoothing, solves: bool) -> str:
    """Returns a short name of a classifier.

    It has `serial` for the serial sampler, else the start; then the budget; then the solver unless it is the
    default.
    """
    if not solves:
        return "the network"
    solver = "" if settings.solver == _DEFAULT_SOLVER else f", {settings.solver}"
    return f"{'serial' if settings.sampler == 'serial' else settings.start} {settings.budget}{solver}"


def plans(
    found: Sequence[planning.Plan], best: planning.Plan, settings: config.Planning, solves: bool
) -> rich.table.Table:
    """Returns a table of the best plan of every classifier, with the recommended plan in bold.

    Args:
      found: best plan of every classifier.
      best: recommended plan, one of `found`.
      settings: settings of the plans.
      solves: whether the classifier has an equilibrium to solve for.
    """
    shown = rich.table.Table(
        title=f"expected for radius {settings.radius:g}, ± its standard error over {settings.pilot_images} images"
    )
    for heading in ("", "looks", "audited", "evaluations", "s/image", "certified %"):
        shown.add_column(heading, justify="right" if heading else "left")
    for plan in found:
        smoothing = plan.settings
        shown.add_row(
            classifier_name(smoothing, solves),
            ", ".join(str(look) for look in smoothing.looks or (smoothing.num_estimation,)),
            f"{smoothing.num_audit}" if smoothing.num_audit else "",
            rounding.evaluations(plan.evaluations),
            rounding.seconds(plan.seconds),
            f"{rounding.percent(plan.certified)} ± {rounding.percent(plan.standard_error, up=True)}",
            style="bold" if plan == best else None,
        )
    return shown


def _no_plan(found: Sequence[planning.Pilot], settings: config.Planning) -> str:
    """The reason why no image of the pilot is expected to reach the radius."""
    required = robustness.probability(settings.radius, settings.sigma)
    largest = max(float(np.max(x.correct * x.counts / x.settings.num_estimation)) for x in found)
    return (
        f"no image of the pilot is expected to reach radius {settings.radius:g}: its class must get more than "
        f"{rounding.percent(required)} % of the votes, and the largest share in the pilot is "
        f"{rounding.percent(largest)} %"
    )


def as_flags(where: dict[str, Any], settings: config.Smoothing) -> str:
    """Returns command-line flags that give some settings; those with default values are left out.

    Args:
      where: flags of the data and the model, by name; those that are None are left out.
      settings: settings of the certificates.
    """
    default = config.Smoothing(sampler=settings.sampler)
    changed = {name: x for name, x in vars(settings).items() if x != getattr(default, name)}
    if settings.sampler != config.Smoothing().sampler:
        changed["sampler"] = settings.sampler
    given = {name: x for name, x in where.items() if x is not None} | {"sigma": settings.sigma} | changed
    return " ".join(
        f"--{name.replace('_', '-')} {shlex.quote(','.join(map(str, x)) if isinstance(x, tuple) else str(x))}"
        for name, x in given.items()
    )
