"""The part of `deqsmooth-train` that uses JAX: from flags to a trained model, with saved states and metrics."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator

import rich.console

from deqsmooth import config, data, devices, models, types
from deqsmooth.commands import progress
from deqsmooth.models import checkpoints, classifiers
from deqsmooth.training import interruption, loop, metrics, model_training, start_training, states


def train_model(
    settings: config.Training,
    console: rich.console.Console,
    *,
    workdir: pathlib.Path | None = None,
    resume: bool = False,
    download: bool = False,
    distributed: bool = False,
) -> int:
    """Trains a model, or resumes its training, and writes the model to `workdir/model`.

    Args:
      settings: of the training.
      console: that messages are printed to.
      workdir: folder of metrics, states and the model; None for one in `runs/`.
      resume: whether the training may continue from the newest state in the folder.
      download: whether TFDS may download what is missing.
      distributed: whether this is one of several processes.

    Returns:
      The exit status.
    """
    _introduce(distributed, console)
    model = models.build(settings.model, devices.AXIS)
    training, test = _splits(settings, download)
    workdir = workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}")
    pretraining = loop.num_updates(settings, len(training), settings.pretraining_epochs)
    checkpoints.check_place(workdir / "model")
    console.print(f"to {workdir}; the first {pretraining} updates are pre-training")
    initial = model_training.init(model, settings, len(training))

    def fit(state: loop.State) -> Iterator[loop.Progress]:
        return model_training.fit(model, settings, training, test, state)

    with states.Run(workdir, settings) as run:
        variables = _fit(run, resume, initial, fit, console)
    checkpoints.save(workdir / "model", classifiers.of_size(settings.model, variables, settings))
    console.print(f"model: {workdir / 'model'}")
    return 0


def train_start(
    settings: config.StartTraining,
    console: rich.console.Console,
    *,
    folder: pathlib.Path | None = None,
    workdir: pathlib.Path | None = None,
    resume: bool = False,
    download: bool = False,
    distributed: bool = False,
) -> int:
    """Trains a start for a trained model, or resumes this, and writes the model with it to `workdir/model`.

    With `fine_tune` in the settings, the model and the start that it has are trained together.

    Args:
      settings: of the training.
      console: that messages are printed to.
      folder: of the trained model; None for the one shipped for the data set and sigma.
      workdir: see `train_model`.
      resume: see `train_model`.
      download: see `train_model`.
      distributed: see `train_model`.

    Returns:
      The exit status.
    """
    _introduce(distributed, console)
    checkpoint = checkpoints.load_or_shipped(folder, settings.dataset, settings.sigma)
    model, variables = checkpoint.model, checkpoint.variables
    if not isinstance(model, types.Model) or checkpoint.size is None:
        raise ValueError(f"{folder} has an explicit classifier, which has no equilibrium and no start")
    if settings.fine_tune is not None:
        _check_start(settings, checkpoint.start_training)
    training, test = _splits(settings, download)
    kind = "start" if settings.fine_tune is None else "fine-tuned"
    workdir = workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}-{kind}")
    checkpoints.check_place(workdir / "model")
    initial = start_training.init(model, variables, settings, len(training))

    def fit(state: loop.State) -> Iterator[loop.Progress]:
        return start_training.fit(model, variables, settings, training, test, state)

    with states.Run(workdir, settings, checkpoint.sha256) as run:
        params = _fit(run, resume, initial, fit, console)["params"]
    variables = start_training.trained(variables, params)
    mean = start_training.mean_equilibrium(model, variables, settings, training)
    variables = {**variables, "start": {"network": params["network"], "mean": mean}}
    made = classifiers.of_size(checkpoint.size, variables, checkpoint.training, settings)
    checkpoints.save(workdir / "model", made)
    console.print(f"model with its start: {workdir / 'model'}")
    return 0


def _check_start(settings: config.StartTraining, start: config.StartTraining | None) -> None:
    """Raises ValueError unless the checkpoint has a start that can be fine-tuned."""
    if start is None or start.network != settings.network:
        raise ValueError(
            f"fine_tune is {settings.fine_tune}; it needs a trained start of {settings.network}, and the "
            f"checkpoint has {'none' if start is None else f'one of {start.network}'}"
        )


def _introduce(distributed: bool, console: rich.console.Console) -> None:
    """Prints the name of the process in a run of several; only the first process prints anything else."""
    if distributed:
        number, count = devices.share(None)
        console.print(devices.process_name(number, count))
        console.quiet = number > 0


def _splits(settings: config.Descent, download: bool) -> list[data.Dataset]:
    """The training split, and the split that the model is evaluated on."""
    splits = ("train", config.Selection(dataset=settings.dataset).split)
    return [data.load(settings.dataset, split, settings.data_dir, download=download) for split in splits]


def _fit(
    run: states.Run,
    resume: bool,
    initial: loop.State,
    fit: Callable[[loop.State], Iterator[loop.Progress]],
    console: rich.console.Console,
) -> types.Variables:
    """Runs a training to its end, or until it is interrupted, with progress, metrics and saved states.

    Args:
      run: states of the training on disk.
      resume: whether the training may continue from the newest state.
      initial: state before the first update.
      fit: state -> progress after each of the remaining updates.
      console: console that messages are printed to.

    Returns:
      The variables after the last update.

    Raises:
      ValueError: there is a state, but the training is not to be resumed; or the folder has another run.
    """
    newest = run.latest(initial)
    if newest is not None and not resume:
        raise ValueError(f"{run.workdir} has a run; give --resume to continue it, or another --workdir")
    state = initial if newest is None else newest
    number, _ = devices.share(None)
    log_file = run.workdir / "metrics.jsonl" if number == 0 else None
    waited, begun = 0.0, time.perf_counter()
    with (
        metrics.Log(log_file) as log,
        interruption.Interruption() as interrupted,
        progress.bar(console) as shown,
    ):
        log.cut(int(state.update))
        task = progress.begin(shown, "compiling", None, int(state.update))
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
                console.print(f"saved after {update} updates; --resume continues from there")
                interrupted.end()
    console.print(f"waited {waited:.1f} of {time.perf_counter() - begun:.0f} s for images")
    last = run.latest(initial)
    assert last is not None
    return last.variables
