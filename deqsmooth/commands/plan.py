"""Command `deqsmooth-plan`: the cheapest settings for a radius."""

from __future__ import annotations

import rich.console

from deqsmooth import config, data
from deqsmooth.certificates import rounding
from deqsmooth.commands import flags, progress
from deqsmooth.models import checkpoints
from deqsmooth.reports import terminal
from deqsmooth.smoothing import certification, planning


def run(arguments: flags.Plan, console: rich.console.Console) -> int:
    """Draws the pilots and prints the best plan of every classifier, and the command for the best of all."""
    settings = arguments.planning
    selection = config.Selection(dataset=arguments.dataset, data_dir=arguments.data_dir, split=arguments.split)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma))
    largest = config.Smoothing(
        sampler="independent", num_estimation=settings.max_samples, alpha=settings.alpha, sigma=settings.sigma
    ).cap
    if settings.radius > largest:
        console.print(
            f"radius {settings.radius:g} cannot be certified: even unanimous votes of {settings.max_samples:,} "
            f"samples reach only {rounding.down(largest, 3)} at sigma {settings.sigma:g} and alpha "
            f"{settings.alpha:g}; it takes more noise, or more samples"
        )
        return 1
    pilots, solves = [], certification.solves(checkpoint)
    with progress.bar(console) as shown:
        chosen = planning.classifiers(checkpoint, settings)
        progress.begin(shown, "pilot", len(chosen))
        for one in chosen:
            pilots.append(planning.pilot(checkpoint, dataset, one, settings.pilot_images))
            progress.advance(shown, f"pilot, {terminal.classifier(one, solves)}")
    found = [list(planning.plans(one, settings)) for one in pilots]
    best = planning.choose(found, settings.slack)
    if best is None:
        console.print(terminal.no_plan(pilots, settings))
        return 1
    console.print(terminal.plans(found, best, settings, solves))
    where = {name: getattr(arguments, name) for name in ("dataset", "data_dir", "split", "checkpoint")}
    console.print(f"\npython certify.py {terminal.as_flags(where, best.settings)}")
    return 0
