"""The commands: flags to configuration, one call, and progress to look at.

Exit status: 0 done, 1 a failed check of a conversion, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import itertools
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import rich.console
import rich.progress

from deqsmooth import (
    certificates,
    certification,
    checkpoints,
    checks,
    config,
    conversion,
    data,
    distributed,
    flags,
    metrics,
    models,
    parity,
    planning,
    presets,
    provenance,
    report,
    start_training,
    statistics,
    training,
    types,
    updates,
)


def certify() -> int:
    """Command `deqsmooth-certify`; returns the exit status."""
    return _run(flags.Certify, _certify, lambda name: {"smoothing": _named(name, presets.SMOOTHING)})


def train() -> int:
    """Command `deqsmooth-train`; returns the exit status."""
    if flags.flag("--phase") == "start":
        starts = presets.START_TRAINING
        return _run(flags.TrainStart, _train_start, lambda name: {"settings": _named(name, starts)})
    return _run(flags.Train, _train, lambda name: {"settings": _named(name, presets.TRAINING)})


def plan() -> int:
    """Command `deqsmooth-plan`; returns the exit status, 1 if the radius cannot be certified."""
    return _run(flags.Plan, _plan)


def convert() -> int:
    """Command `deqsmooth-convert`; returns the exit status, 1 if the check fails."""
    return _run(flags.Convert, _convert, lambda name: {"model": _named(name, presets.MODELS)})


def _named(name: str, known: dict[str, Any]) -> Any:
    checks.known("preset", name, known)
    return known[name]


def _run(
    arguments: type, command: Callable[..., int], preset: Callable[[str], dict[str, Any]] | None = None
) -> int:
    console = rich.console.Console(soft_wrap=not sys.stdout.isatty())
    try:
        distributed.start()
        return command(flags.parse(arguments, preset), console)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130


def _certify(arguments: flags.Certify, console: rich.console.Console) -> int:
    selection = arguments.selection
    settings = arguments.smoothing
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma))
    indices = selection.indices(len(dataset))
    certification.checked(checkpoint, dataset.take(indices[:1])[0], settings)
    classes = checkpoint.model.num_classes
    checks.holds(
        dataset.num_classes <= classes,
        "dataset",
        f"{selection.dataset}, with {dataset.num_classes} classes",
        f"one of at most {classes} classes, which the model tells apart",
    )
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
    out = arguments.out or pathlib.Path(
        "runs", f"{selection.dataset}-{settings.sampler}-{settings.sigma:g}-{header['sha256'][:8]}.jsonl"
    )
    with certificates.Writer(out, header) as writer:
        done = {certificate.index for certificate in writer.done}
        left = [index for index in indices if index not in done]
        console.print(f"{len(indices)} images of {selection.dataset}, {len(done)} done, to {out}")
        resolved = certification.resolve(settings)
        console.print(report.announcement(resolved, certification.solves(checkpoint)))
        found = list(writer.done)
        try:
            if left:
                image = dataset[left[0]][0]
                programs = certification.prepare(checkpoint, settings, image.shape, len(left))
                console.print(report.expectation(programs.expected_seconds(image), len(left)))
                chosen = certification.certify_dataset(checkpoint, dataset, left, settings, programs)
                _follow(chosen, writer, found, len(indices), console)
        finally:
            if found:
                console.print(report.certified_accuracy(found, report.radii(settings.sigma, settings.cap)))
                console.print(report.summary(found))
    return 0


def _plan(arguments: flags.Plan, console: rich.console.Console) -> int:
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
            f"samples reach only {statistics.round_down(largest, 3)} at sigma {settings.sigma:g} and alpha "
            f"{settings.alpha:g}; it takes more noise, or more samples"
        )
        return 1
    pilots, solves = [], certification.solves(checkpoint)
    with _progress(console) as progress:
        chosen = planning.classifiers(checkpoint, settings)
        progress.add_task("pilot", total=len(chosen))
        for one in chosen:
            pilots.append(planning.pilot(checkpoint, dataset, one, settings.pilot_images))
            _advance(progress, f"pilot, {report.classifier(one, solves)}")
    found = [list(planning.plans(one, settings)) for one in pilots]
    best = planning.choose(itertools.chain(*found), settings.slack)
    if best is None:
        console.print(report.no_plan(pilots, settings))
        return 1
    console.print(report.plans(found, best, settings, solves))
    where = {name: getattr(arguments, name) for name in ("dataset", "data_dir", "split", "checkpoint")}
    console.print(f"\npython certify.py {report.as_flags(where, best.settings)}")
    return 0


def _follow(chosen, writer, found, total, console):
    """Writes certificates as they come, and shows how far they are."""
    with _progress(console) as progress:
        progress.add_task("compiling", total=total, completed=len(found))
        for certificate in chosen:
            writer.write(certificate)
            found.append(certificate)
            _advance(progress, report.state(found))


def _train(arguments: flags.Train, console: rich.console.Console) -> int:
    settings = arguments.settings
    model = models.build(settings.model)
    train, test = _splits(arguments)
    workdir = arguments.workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}")
    pretraining = updates.num_updates(settings, len(train), settings.pretraining_epochs)
    console.print(f"to {workdir}; the first {pretraining} updates are pre-training")
    begin = training.init(model, settings, len(train))

    def fit(state):
        return training.fit(model, settings, train, test, state)

    with checkpoints.Run(workdir, settings) as run:
        variables = _fit(run, arguments.resume, begin, fit, console)
    checkpoints.save(workdir / "model", variables, settings.model, settings)
    console.print(f"model: {workdir / 'model'}")
    return 0


def _train_start(arguments: flags.TrainStart, console: rich.console.Console) -> int:
    settings = arguments.settings
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(settings.dataset, settings.sigma))
    model, variables = checkpoint.model, checkpoint.variables
    if not isinstance(model, types.Model):
        raise ValueError(
            f"{arguments.checkpoint} holds a classifier without an equilibrium: it has no start to learn"
        )
    train, test = _splits(arguments)
    workdir = arguments.workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}-start")
    begin = start_training.init(model, settings, len(train))

    def fit(state):
        return start_training.fit(model, variables, settings, train, test, state)

    with checkpoints.Run(workdir, settings, checkpoint.sha256) as run:
        network = _fit(run, arguments.resume, begin, fit, console)["params"]
    start = {"network": network, "mean": start_training.mean_equilibrium(model, variables, settings, train)}
    variables = {**variables, "start": start}
    checkpoints.save(workdir / "model", variables, checkpoint.size, checkpoint.training, settings)
    console.print(f"model with its start: {workdir / 'model'}")
    return 0


def _splits(arguments: flags.Train | flags.TrainStart) -> list[data.Dataset]:
    settings = arguments.settings
    splits = ("train", config.Selection(dataset=settings.dataset).split)
    return [data.load(settings.dataset, split, settings.data_dir, download=arguments.download) for split in splits]


def _fit(run, resume, begin, fit, console):
    """Variables after the last update, of a training that is followed, logged, saved and resumed."""
    with metrics.Log(run.workdir / "metrics.jsonl") as log:
        state = run.latest(begin)
        if state is not None and not resume:
            raise ValueError(f"{run.workdir} holds a run; give --resume to go on with it, or another --workdir")
        done = 0 if state is None else int(state.update)
        log.cut(done)
        waited, begun = 0.0, time.perf_counter()
        with _progress(console) as progress:
            task = progress.add_task("compiling", total=None, completed=done)
            for now in fit(state):
                log.write(now)
                waited += now.waited
                progress.update(task, total=now.total)
                if now.evaluation is not None:
                    run.save(now.state)
                    console.print(f"after {int(now.state.update)} updates: {metrics.describe(now.evaluation)}")
                _advance(progress, metrics.describe(now.metrics))
        console.print(f"waited {waited:.1f} of {time.perf_counter() - begun:.0f} s for images")
        return run.latest(begin).variables


def _convert(arguments: flags.Convert, console: rich.console.Console) -> int:
    variables = conversion.convert(conversion.read(arguments.file), arguments.model)
    failed = []
    if arguments.check is not None:
        found = parity.compare(variables, arguments.model, conversion.read(arguments.check))
        console.print(report.comparisons(found))
        failed = [comparison.quantity for comparison in found if not comparison.passed]
    if failed:
        print(f"error: {len(failed)} quantities beyond their limit: {', '.join(failed)}", file=sys.stderr)
        return 1
    checkpoints.save(arguments.out, variables, arguments.model)
    console.print(f"model: {arguments.out}")
    return 0


def _progress(console: rich.console.Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        _Rate(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
    )


def _advance(progress: rich.progress.Progress, description: str) -> None:
    """One more is done; where no bar can be drawn, a line says so every twentieth of the way."""
    (task,) = progress.tasks
    progress.update(task.id, advance=1, description=description)
    if not progress.console.is_terminal and task.completed % max(1, task.total // 20) == 0:
        left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
        progress.console.print(f"{task.completed:.0f} of {task.total:.0f}: {description}{left}")


class _Rate(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.progress.Text:
        return rich.progress.Text("" if task.speed is None else f"{task.speed:.2f}/s")
