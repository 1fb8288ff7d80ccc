"""Training from beginning to end: takes a model, images and settings, gives a classifier, and can be resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from deqsmooth import arithmetic, config, data, devices, models, types
from deqsmooth.config import architecture, checks
from deqsmooth.models import checkpoints, classifiers, parts
from deqsmooth.training import loop, metrics, model_training, splits, start_training, states, updates

_LOG = logging.getLogger(__name__)

OnProgress = Callable[[loop.Progress], None]
"""Called after every update; an exception that it raises ends the training, after its state was saved."""


@contextlib.contextmanager
def _arithmetic() -> Iterator[None]:
    """Context with the arithmetic of certification, but for products of matrices the precision of the process."""
    precision = jax.config.values["jax_default_matmul_precision"]
    with arithmetic.standard(), jax.default_matmul_precision(precision):
        yield


@_arithmetic()
def train(
    model: architecture.Model | types.Model | types.Explicit,
    dataset: data.Dataset,
    settings: config.Training,
    *,
    test: data.Dataset | None = None,
    workdir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    name: str | None = None,
) -> classifiers.Classifier:
    """Trains a model under Gaussian noise (Cohen et al. 2019; Bai et al. 2020).

    `logging.getLogger("deqsmooth").setLevel("INFO")` shows what is done.

    Args:
      model: a size such as `ds.ConvModel`, a `ds.Model` or a `ds.Explicit`. What still has its family's default
        (`image_shape`, `num_classes`, `mean`, `std`) comes from the images, if the size fits no named set.
      dataset: images to train on, with labels, from `ds.arrays` or `ds.load_dataset`.
      settings: of the training; `model` is taken from the argument of that name.
      test: images to evaluate on; by default every tenth image of `dataset` is held out, see `held_out`.
      workdir: folder for metrics (`metrics.jsonl`), states and the trained model (`model`); None to write nothing.
      resume: whether the training may continue from the newest state in `workdir`. After any interruption, such as
        Ctrl-C or an exception of `on_progress`, it continues to the same numbers.
      on_progress: called with a `deqsmooth.training.loop.Progress` after every update, or with
        `updates_per_call` after every call. An exception that it raises ends the training; the state is saved
        before. With several processes all must raise it after the same update.
      name: that records give the classifier; by default see `ds.classifier`. `ds.save` and `ds.train_start` keep
        it.

    Returns:
      The trained classifier, ready to certify.

    Raises:
      ValueError: settings, model, images and `settings.initial` do not fit each other; the folder cannot be used;
        or the training diverged: its loss or its parameters are not finite. States that were saved before stay.

    Example:
      >>> import deqsmooth as ds
      >>> size = ds.ConvModel(channels=8, num_groups=4)
      >>> settings = ds.Training(sigma=0.25, epochs=1, batch_size=64, budget=1,
      ...     gradient="one-step", jacobian_weight=0, pretraining_epochs=0, reference_budget=1)
      >>> classifier = ds.train(size, ds.load_dataset("digits", "train"), settings)
      >>> classifier.size.image_shape, classifier.training.held_out
      ((8, 8, 1), 10)
    """
    checks.kind("settings", settings, config.Training, "settings of a training, made by ds.Training")
    checks.kind("name", "" if name is None else name, str, "a string")
    _check_arguments(dataset, test, workdir, resume, on_progress)
    settings = _named(settings, dataset)
    training, evaluated, settings = splits.split(dataset, test, settings)
    if isinstance(model, architecture.Model):
        size = model if settings.initial else splits.sized(model, dataset, training, settings.dataset)
        settings, built = dataclasses.replace(settings, model=size), models.build(size, devices.AXIS)
    elif isinstance(model, types.Model | types.Explicit):
        size, built, settings = None, model, dataclasses.replace(settings, model=None)
        if isinstance(model, types.Explicit):
            settings.check_explicit()
            settings = dataclasses.replace(settings, pretraining_epochs=0.0)
        else:
            parts.check_trainable(model)
    else:
        kind = type(model).__name__
        raise ValueError(f"model is {kind}; ds.train takes a size such as ds.ConvModel(), a ds.Model, ds.Explicit")
    settings, variables = settings.resolved(), None
    if settings.initial is not None:
        initial = checkpoints.load(settings.initial, built if size is None else None)
        checks.holds(initial.size == size, "initial", settings.initial, f"one of {size}; it has {initial.size}")
        settings, variables = dataclasses.replace(settings, initial=initial.sha256), initial.variables
    _check(dataset, test, settings, built.image_shape, built.num_classes, len(training))
    pretraining = loop.num_updates(settings, len(training), settings.pretraining_epochs)
    _LOG.info(f"{_updates(settings, training)}, the first {pretraining:,} of them pre-training; compiling")
    state = _fit(
        _open(workdir, settings, settings.initial, training, evaluated),
        resume,
        model_training.init(built, settings, variables),
        lambda state: model_training.fit(built, settings, training, evaluated, state),
        on_progress,
    )
    variables = jax.device_get(state.evaluated())
    settings = dataclasses.replace(settings, data_dir=None)
    if size is None:
        made = classifiers.classifier(model, variables)._replace(training=settings)
    else:
        made = classifiers.of_size(size, variables, settings)
    return _saved(classifiers.classifier(made, name=name), workdir)


@_arithmetic()
def train_start(
    classifier: classifiers.Classifier,
    dataset: data.Dataset,
    settings: config.StartTraining,
    *,
    test: data.Dataset | None = None,
    workdir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> classifiers.Classifier:
    """Trains a start for a trained model: a network that predicts its equilibria from the noisy image.

    With `settings.fine_tune`, the model and the start that it has are trained together. `ds.certify` takes solves
    of two evaluations from a start that was trained alone, and of `settings.budget` after this (`ds.recommended`).

    Args:
      classifier: the trained model, which has an equilibrium.
      dataset: see `ds.train`, as of the arguments below.
      settings: of the training.
      test: see above.
      workdir: see above.
      resume: see above.
      on_progress: see above.

    Returns:
      The classifier with the starts `learned` and `constant`.

    Raises:
      ValueError: see `ds.train`; or the classifier has no equilibrium, or no start that can be fine-tuned.

    Example:
      >>> import deqsmooth as ds
      >>> model, dataset = ds.load("runs/mine"), ds.load_dataset("digits", "train")  # doctest: +SKIP
      >>> model = ds.train_start(model, dataset, ds.StartTraining(sigma=0.5))  # doctest: +SKIP
    """
    checks.kind("classifier", classifier, classifiers.Classifier, "what ds.train or ds.load gives")
    model, teacher = classifier.model, classifier.variables
    if not isinstance(model, types.Model):
        raise ValueError(f"{classifier.name} is a classifier without an equilibrium, which has no start")
    checks.kind("settings", settings, config.StartTraining, "settings of a start's training: ds.StartTraining")
    start_training.check(classifier, settings)
    _check_arguments(dataset, test, workdir, resume, on_progress)
    settings = _named(settings, dataset)
    training, evaluated, settings = splits.split(dataset, test, settings)
    _check(dataset, test, settings, model.image_shape, model.num_classes, len(training))
    _LOG.info(f"{_updates(settings, training)}; compiling")
    state = _fit(
        _open(workdir, settings, classifier.sha256, training, evaluated),
        resume,
        start_training.init(model, teacher, settings),
        lambda state: start_training.fit(model, teacher, settings, training, evaluated, state),
        on_progress,
    )
    params = jax.device_get(state.evaluated()["params"])
    variables = start_training.trained(teacher, params)
    mean = start_training.mean_equilibrium(model, variables, settings, training)
    variables = {**variables, "start": {"network": params["network"], "mean": mean}}
    settings = dataclasses.replace(settings, data_dir=None)
    if classifier.size is not None:
        made = classifiers.of_size(classifier.size, variables, classifier.training, settings)
        return _saved(made._replace(name=classifier.name), workdir)
    made = classifiers.of_functions(model, variables, classifier.name, classifier.training, settings)
    return _saved(made, workdir)


def _check_arguments(dataset: Any, test: Any, workdir: Any, resume: bool, on_progress: Any) -> None:
    """Raises `ValueError` unless the arguments that both trainings have are of their kinds."""
    for name, value in (("dataset", dataset), ("test", dataset if test is None else test)):
        checks.kind(name, value, data.Dataset, "a ds.Dataset: ds.arrays(images, labels), or ds.load_dataset(name)")
    is_path = workdir is None or isinstance(workdir, str | os.PathLike)
    checks.holds(is_path, "workdir", workdir, "the path of a folder")
    checks.holds(workdir is not None or not resume, "resume", resume, "False without a workdir, which has states")
    checks.holds(on_progress is None or callable(on_progress), "on_progress", on_progress, "a function")


def _named(settings: splits.Settings, dataset: data.Dataset) -> splits.Settings:
    """The settings, with the name of the data set; for one of the caller's own that of a file of arrays."""
    if settings.dataset != "digits" or dataset.identity.startswith("digits/"):
        return settings
    return dataclasses.replace(settings, dataset="arrays")


def _updates(settings: config.Descent, training: data.Dataset) -> str:
    num = loop.num_updates(settings, len(training))
    return f"{num:,} updates of {settings.batch_size} of {len(training):,} images"


def _check(
    dataset: data.Dataset,
    test: data.Dataset | None,
    settings: config.Descent,
    shape: tuple[int, ...],
    num_classes: int,
    num_training: int,
) -> None:
    """Raises `ValueError` unless a model can be trained on images with these settings."""
    for images, name in ((dataset, "training images"), (test, "test images")):
        if images is not None:
            splits.check(images, shape, num_classes, name)
    rule = f"at most the number of training images, {num_training}"
    checks.holds(settings.batch_size <= num_training, "batch_size", settings.batch_size, rule)
    updates.check_accumulation(settings, devices.mesh_of_all(settings.batch_size))


def _open(
    workdir: str | os.PathLike[str] | None,
    settings: config.Descent,
    teacher: str | None,
    training: data.Dataset,
    evaluated: data.Dataset,
) -> states.Run | None:
    """The states of a training in its folder; None if it has no folder."""
    if workdir is None:
        return None
    checkpoints.check_place(pathlib.Path(workdir, "model"))
    return states.Run(workdir, settings, teacher, (training.identity, evaluated.identity))


def _fit(
    run: states.Run | None,
    resume: bool,
    initial: updates.State,
    fit: Callable[[updates.State], Iterator[loop.Progress]],
    on_progress: OnProgress | None,
) -> updates.State:
    """Runs a training to its end, with metrics and saved states if it has a folder; returns the last state.

    Args:
      run: states in the folder; None for a training that is not saved.
      resume: whether the training may continue from the newest state.
      initial: state before the first update.
      fit: state -> progress after each of the remaining updates.
      on_progress: called after every update.
    """
    if run is None:
        return _follow(initial, fit, None, on_progress)
    with run:
        if run.newest_update() is not None and not resume:
            raise ValueError(f"{run.workdir} has a run; give --resume (resume) to continue it, or another workdir")
        newest = run.latest(initial)
        if newest is not None:
            _LOG.info(f"resumed after {int(newest.update):,} updates")
        return _follow(initial if newest is None else newest, fit, run, on_progress)


def _follow(
    state: updates.State,
    fit: Callable[[updates.State], Iterator[loop.Progress]],
    run: states.Run | None,
    on_progress: OnProgress | None,
) -> updates.State:
    """Makes the updates after a state; returns the last state. Saves the state wherever the updates end."""
    is_first = devices.share(None)[0] == 0
    log_file = run.workdir / "metrics.jsonl" if run is not None and is_first else None
    with metrics.Log(log_file) as log:
        log.cut(int(state.update))
        try:
            for now in fit(state):
                state = now.state
                log.write(now)
                if run is not None and now.evaluation is not None:
                    run.save(state)
                if on_progress is not None:
                    with _saving(run, state):
                        on_progress(now)
        except loop.DivergenceError as error:
            if run is None or run.newest_update() is None:
                raise
            kept = f"the state after update {run.newest_update()} stays in {run.workdir}"
            raise ValueError(f"{error}; {kept}") from None
        except loop.Interrupted as interrupt:
            # The other processes of a run do not know of it, and would wait for this one.
            with _saving(None if devices.has_other_processes() else run, interrupt.state):
                raise
    return state


@contextlib.contextmanager
def _saving(run: states.Run | None, state: updates.State) -> Iterator[None]:
    """Saves a state before any exception ends a training."""
    try:
        yield
    except BaseException:
        if run is not None:
            run.save(state)
            run.wait()
            _LOG.info(
                f"saved after {int(state.update)} updates; --resume continues from there (resume=True in Python)"
            )
        raise


def _saved(classifier: classifiers.Classifier, workdir: str | os.PathLike[str] | None) -> classifiers.Classifier:
    """Writes a classifier into the folder of its training, if it has one, and returns it."""
    if workdir is not None:
        checkpoints.save(pathlib.Path(workdir, "model"), classifier)
    return classifier
