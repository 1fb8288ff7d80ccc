"""The part of `deqsmooth-train` that uses JAX: trains by `training.fitting`, and shows how it goes."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator

import rich.console

from deqsmooth import config, data, devices
from deqsmooth.commands import progress
from deqsmooth.config import architecture
from deqsmooth.models import checkpoints, classifiers
from deqsmooth.training import fitting, interruption, loop, metrics


def train_model(
    settings: config.Training,
    console: rich.console.Console,
    *,
    test_data: pathlib.Path | None = None,
    workdir: pathlib.Path | None = None,
    resume: bool = False,
    download: bool = False,
    distributed: bool = False,
) -> int:
    """Trains a model, or resumes its training, and writes the model to `workdir/model`.

    Args:
      settings: of the training.
      console: that messages are printed to.
      test_data: for `arrays`, file of the images to evaluate on; None to hold out some of the training images.
      workdir: folder of metrics, states and the model; None for one in `runs/`.
      resume: whether the training may continue from the newest state in the folder.
      download: whether TFDS may download what is missing.
      distributed: whether this is one of several processes.

    Returns:
      The exit status.
    """
    _introduce(distributed, console)
    dataset, test = _splits(settings, test_data, download)
    workdir = workdir or pathlib.Path("runs", f"{_name(settings)}-{settings.sigma:g}")
    size = settings.model
    assert size is not None
    if settings.initial is not None and size == architecture.ConvModel():
        size = checkpoints.load(settings.initial).size
        assert size is not None
        console.print(f"the size of the model is that of {settings.initial}: {size}", markup=False)

    def train(on_progress: fitting.OnProgress) -> classifiers.Classifier:
        return fitting.train(
            size, dataset, settings, test=test, workdir=workdir, resume=resume, on_progress=on_progress
        )

    _run(train, workdir, console)
    console.print(f"model: {workdir / 'model'}")
    return 0


def train_start(
    settings: config.StartTraining,
    console: rich.console.Console,
    *,
    folder: pathlib.Path | None = None,
    test_data: pathlib.Path | None = None,
    workdir: pathlib.Path | None = None,
    resume: bool = False,
    download: bool = False,
    distributed: bool = False,
) -> int:
    """Trains a start for a trained model, or resumes this, and writes the model with it to `workdir/model`.

    Args:
      settings: of the training.
      console: that messages are printed to.
      folder: of the trained model; None for the one shipped for the data set and sigma.
      test_data: see `train_model`.
      workdir: see `train_model`.
      resume: see `train_model`.
      download: see `train_model`.
      distributed: see `train_model`.

    Returns:
      The exit status.
    """
    _introduce(distributed, console)
    classifier = checkpoints.load_or_shipped(folder, settings.dataset, settings.sigma)
    dataset, test = _splits(settings, test_data, download)
    kind = "start" if settings.fine_tune is None else "fine-tuned"
    workdir = workdir or pathlib.Path("runs", f"{_name(settings)}-{settings.sigma:g}-{kind}")

    def train(on_progress: fitting.OnProgress) -> classifiers.Classifier:
        return fitting.train_start(
            classifier, dataset, settings, test=test, workdir=workdir, resume=resume, on_progress=on_progress
        )

    _run(train, workdir, console)
    console.print(f"model with its start: {workdir / 'model'}")
    return 0


def _name(settings: config.Descent) -> str:
    """The name of the data set as a part of names of files."""
    return config.Selection(settings.dataset).file_name


def _introduce(distributed: bool, console: rich.console.Console) -> None:
    """Prints the name of the process in a run of several; only the first process prints anything else."""
    if distributed:
        number, count = devices.share(None)
        console.print(devices.process_name(number, count))
        console.quiet = number > 0


def _splits(
    settings: config.Descent, test_data: pathlib.Path | None, download: bool
) -> tuple[data.Dataset, data.Dataset | None]:
    """The images to train on and those to evaluate on; None for the latter if they must be held out."""
    name, folder = settings.dataset, settings.data_dir
    if test_data is not None and name != "arrays":
        raise ValueError(
            f"test_data is {test_data}; it is for data set arrays, and {name} has images to evaluate on"
        )
    training = data.load(name, "train", folder, download=download)
    if test_data is not None:
        # All images of a split of this name are checked.
        return training, data.load(name, "train", str(test_data))
    if name == "arrays" or settings.held_out is not None:
        return training, None
    return training, data.load(name, config.Selection(dataset=name).split, folder, download=download)


def _run(
    train: Callable[[fitting.OnProgress], classifiers.Classifier],
    workdir: pathlib.Path,
    console: rich.console.Console,
) -> None:
    """Runs a training with a bar, its messages, and an end by signals after which it can be resumed."""
    waited, done, begun = 0.0, 0, time.perf_counter()
    with (
        _messages(console),
        interruption.Interruption() as interrupted,
        progress.bar(console) as shown,
    ):

        def follow(now: loop.Progress) -> None:
            nonlocal waited, done
            if not done:
                done = int(now.state.update) - 1
                progress.begin(shown, "", now.total, done)
            num, done = int(now.state.update) - done, int(now.state.update)
            waited += now.waited
            if now.evaluation is not None:
                console.print(f"after {done} updates: {metrics.describe(now.evaluation)}")
            progress.advance(shown, metrics.describe(now.metrics), num)
            # Every process must ask after every update.
            if interrupted.is_requested(done) and done < now.total:
                interrupted.end()

        console.print(f"to {workdir}")
        train(follow)
    console.print(f"waited {waited:.1f} of {time.perf_counter() - begun:.0f} s for images")


class _Printer(logging.Handler):
    """Prints the messages of a training."""

    def __init__(self, console: rich.console.Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message."""
        self._console.print(record.getMessage(), markup=False)


@contextlib.contextmanager
def _messages(console: rich.console.Console) -> Iterator[None]:
    """Prints what trainings log and warn of, instead of what Python does with it."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        console.print(f"warning: {message}", markup=False)

    log, printer = logging.getLogger(fitting.__name__.rpartition(".")[0]), _Printer(console)
    level, propagate = log.level, log.propagate
    log.addHandler(printer)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(printer)
        log.setLevel(level)
        log.propagate = propagate
