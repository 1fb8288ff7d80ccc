"""Runs a training: reads its splits, follows its progress, logs, saves and resumes it, and writes the model."""

from __future__ import annotations

import pathlib
import time

import rich.console

from deqsmooth import config, data, devices, models, types
from deqsmooth.commands import progress, train
from deqsmooth.models import checkpoints
from deqsmooth.training import interruption, loop, metrics, model_training, start_training, states


def train_model(arguments: train.Flags, console: rich.console.Console) -> int:
    """Trains a model, or goes on with it."""
    settings = arguments.settings
    _introduce(arguments, console)
    model = models.build(settings.model, devices.AXIS)
    training, test = _splits(arguments)
    workdir = arguments.workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}")
    pretraining = loop.num_updates(settings, len(training), settings.pretraining_epochs)
    checkpoints.check_place(workdir / "model")
    console.print(f"to {workdir}; the first {pretraining} updates are pre-training")
    begin = model_training.init(model, settings, len(training))

    def fit(state):
        return model_training.fit(model, settings, training, test, state)

    with states.Run(workdir, settings) as run:
        variables = _fit(run, arguments.resume, begin, fit, console)
    checkpoints.save(workdir / "model", variables, settings.model, settings)
    console.print(f"model: {workdir / 'model'}")
    return 0


def train_start(arguments: train.StartFlags, console: rich.console.Console) -> int:
    """Learns the start of a trained model, or fine-tunes both, or goes on with it."""
    settings = arguments.settings
    _introduce(arguments, console)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(settings.dataset, settings.sigma))
    model, variables = checkpoint.model, checkpoint.variables
    if not isinstance(model, types.Model):
        raise ValueError(
            f"{arguments.checkpoint} holds a classifier without an equilibrium: it has no start to learn"
        )
    if settings.fine_tune is not None:
        _check_start(settings, checkpoint.start_training)
    training, test = _splits(arguments)
    kind = "start" if settings.fine_tune is None else "fine-tuned"
    workdir = arguments.workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}-{kind}")
    checkpoints.check_place(workdir / "model")
    begin = start_training.init(model, variables, settings, len(training))

    def fit(state):
        return start_training.fit(model, variables, settings, training, test, state)

    with states.Run(workdir, settings, checkpoint.sha256) as run:
        params = _fit(run, arguments.resume, begin, fit, console)["params"]
    variables = start_training.trained(variables, params)
    mean = start_training.mean_equilibrium(model, variables, settings, training)
    variables = {**variables, "start": {"network": params["network"], "mean": mean}}
    checkpoints.save(workdir / "model", variables, checkpoint.size, checkpoint.training, settings)
    console.print(f"model with its start: {workdir / 'model'}")
    return 0


def _check_start(settings: config.StartTraining, start: config.StartTraining | None) -> None:
    if start is None or start.network != settings.network:
        raise ValueError(
            f"fine_tune is {settings.fine_tune}; it goes on from a learned start of {settings.network}, and the "
            f"checkpoint has {'none' if start is None else f'one of {start.network}'}"
        )


def _introduce(arguments: train.Flags | train.StartFlags, console: rich.console.Console) -> None:
    """Each of several processes says who it is; the first alone goes on to speak."""
    if arguments.distributed:
        number, count = devices.share(None)
        console.print(devices.process_name(number, count))
        console.quiet = number > 0


def _splits(arguments: train.Flags | train.StartFlags) -> list[data.Dataset]:
    settings = arguments.settings
    splits = ("train", config.Selection(dataset=settings.dataset).split)
    return [data.load(settings.dataset, split, settings.data_dir, download=arguments.download) for split in splits]


def _fit(run, resume, begin, fit, console):
    """Variables after the last update, of a training that is followed, logged, saved and resumed."""
    number, _ = devices.share(None)
    log_file = run.workdir / "metrics.jsonl" if number == 0 else None
    with metrics.Log(log_file) as log, interruption.Interruption() as interrupted:
        state = run.latest(begin)
        if state is not None and not resume:
            raise ValueError(f"{run.workdir} holds a run; give --resume to go on with it, or another --workdir")
        state = begin if state is None else state
        done = int(state.update)
        log.cut(done)
        waited, begun = 0.0, time.perf_counter()
        with progress.bar(console) as shown:
            task = progress.begin(shown, "compiling", None, done)
            for now in fit(state):
                update = int(now.state.update)
                log.write(now)
                waited += now.waited
                shown.update(task, total=now.total)
                if now.evaluation is not None:
                    run.save(now.state)
                    console.print(f"after {update} updates: {metrics.describe(now.evaluation)}")
                progress.advance(shown, metrics.describe(now.metrics))
                if update < now.total and interrupted.is_requested(update):
                    run.save(now.state)
                    run.wait()
                    console.print(f"saved after {update} updates; --resume goes on from there")
                    interrupted.end()
        console.print(f"waited {waited:.1f} of {time.perf_counter() - begun:.0f} s for images")
        return run.latest(begin).variables
