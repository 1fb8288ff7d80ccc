"""The training jobs: a model under noise, then its start, each resumed until it is finished.

The number of epochs is chosen at the beginning, from the measured number of images a second, so that the learning
rate ends when the planned minutes do. It stays the same when the training is resumed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import time

import jax
import job
import packed
import tyro

import deqsmooth as ds
from deqsmooth import config
from deqsmooth.config import architecture, presets
from deqsmooth.models import classifiers
from deqsmooth.training import fitting, loop, metrics, model_training, splits, states

_PRESET = "contraction-cifar10-gpu"
_HELD_OUT = 50
_CALL = 50
_MEASURED = 4
_INTERVAL = 5.0
# Seconds kept for the evaluations and the start: compilation and computation.
_KEPT = 140.0
_IMAGES = {"image_shape": (8, 8, 3), "mean": (0.4,), "std": (0.25,)}
_TINY = {
    ds.ContractionModel: ds.ContractionModel(channels=(8,), width=8, blocks=0, patch=2, **_IMAGES),
    ds.MdeqModel: ds.MdeqModel(channels=(8, 8), head_channels=(2, 2), final_channels=4, **_IMAGES),
}


@dataclasses.dataclass(frozen=True)
class Train(job.Job):
    """Train a model on CIFAR-10 under noise, and its start.

    Attributes:
      preset: a recipe of `deqsmooth.config.presets`.
      epochs: number of epochs; by default as many as the planned minutes allow.
      planned_minutes: of all runs of this job together, with the training of the start.
      start_epochs: number of epochs of the training of the start.
    """

    preset: str = _PRESET
    epochs: int | None = None
    planned_minutes: float = 7.5
    start_epochs: int = 12


class _Stopped(Exception):  # noqa: N818
    """The clock ended a training, after its state was saved."""


def main(sigma: float, preset: str = _PRESET) -> None:
    """Trains at a noise level, or goes on with it.

    Args:
      sigma: standard deviation of the noise.
      preset: the recipe, if no flag names another.
    """
    arguments = tyro.cli(Train, default=Train(preset=preset))
    run(arguments, sigma)


def run(arguments: Train, sigma: float) -> None:
    """Trains at a noise level for the minutes of the job."""
    name = f"train-{sigma:g}" if arguments.preset == _PRESET else f"train-{sigma:g}-{arguments.preset}"
    state, out = arguments.state / name, arguments.out / name
    dataset, _ = arguments.images()
    settings = _settings(arguments, sigma)
    plan = job.read(state / "plan.json") or _plan(arguments, settings, dataset)
    job.write(state / "plan.json", plan)
    settings = _lengthened(settings, plan["epochs"])
    job.say(f"{plan}")
    if not (state / "model" / "states").exists():
        _begin_from_last(arguments, name, settings, dataset, state / "model")
    begun, latest, model = time.perf_counter(), [], None
    follow = _following(arguments, latest)
    try:
        model = packed.rounded(
            fitting.train(
                settings.model, dataset, settings, workdir=state / "model", resume=True, on_progress=follow
            )
        )
        model = packed.rounded(
            fitting.train_start(
                model,
                dataset,
                _start(arguments, settings),
                workdir=state / "start",
                resume=True,
                on_progress=follow,
            )
        )
        is_finished = True
    except _Stopped:
        is_finished = False
        if model is None:
            # The clock ended the training of the model: what it is so far.
            variables = jax.device_get(latest[-1].state.evaluated())
            model = packed.rounded(classifiers.of_size(settings.model, variables, settings))
    packed.save(out / "model.npz", model)
    shutil.copy(out / "model.npz", state / "model.npz")
    plan["seconds"] = plan.get("seconds", 0.0) + time.perf_counter() - begun
    job.write(state / "plan.json", plan)
    _report(arguments, settings, {**plan, "finished": is_finished}, state, out)
    job.finished(name, is_finished)


def _settings(arguments: Train, sigma: float) -> config.Training:
    """The recipe, with the images on the device and an average of the parameters."""
    settings = presets.find("preset", arguments.preset, presets.TRAINING)
    settings = dataclasses.replace(
        settings,
        sigma=sigma,
        dtype="bfloat16",
        ema=settings.ema or 0.999,
        augment="crop-and-flip",
        updates_per_call=_CALL,
        held_out=_HELD_OUT,
    )
    if not arguments.smoke:
        return settings
    small = {"batch_size": 16, "updates_per_call": 3, "held_out": 8, "dtype": "float32", "reference_budget": 3}
    tiny = _TINY[type(settings.model)]
    return dataclasses.replace(settings, model=tiny, injection_dtype=None, evaluation_interval=2, **small)


def _lengthened(settings: config.Training, epochs: int) -> config.Training:
    """The settings with a number of epochs; pre-training and penalty keep their shares of it."""
    ratio = epochs / settings.epochs
    settings = settings.resolved()
    scaled = {
        name: None if getattr(settings, name) is None else getattr(settings, name) * ratio
        for name in ("pretraining_epochs", "jacobian_epochs")
    }
    interval = max(1, round(epochs / 12))
    return dataclasses.replace(settings, epochs=epochs, evaluation_interval=interval, **scaled)


def _plan(arguments: Train, settings: config.Training, dataset: ds.Dataset) -> dict:
    """The number of epochs, from the rate of a few calls if it is not given."""
    if arguments.epochs is not None:
        return {"epochs": arguments.epochs}
    times: list[tuple[int, float]] = []

    def follow(now: loop.Progress) -> None:
        times.append((int(now.state.update), time.perf_counter()))
        job.say(f"measuring: {metrics.describe(now.metrics)}")
        if len(times) == _MEASURED:
            raise _Stopped

    measured = settings.resolved()
    if measured.pretraining_epochs < measured.epochs:
        # Most of the updates come after pre-training, and have no penalty.
        measured = dataclasses.replace(measured, pretraining_epochs=0.0, jacobian_frequency=0.0)
    with contextlib.suppress(_Stopped):
        fitting.train(measured.model, dataset, measured, on_progress=follow)
    # The first call compiles.
    (first, begun), *_, (last, ended) = times
    rate = (last - first) * settings.batch_size / (ended - begun)
    training = 60 * arguments.planned_minutes - job.seconds() - _KEPT
    epochs = max(2, int(0.95 * rate * training / (len(dataset) * (1 - 1 / _HELD_OUT))))
    return {"epochs": min(epochs, 1000), "images_per_second": rate}


def _begin_from_last(
    arguments: Train, name: str, settings: config.Training, dataset: ds.Dataset, workdir: pathlib.Path
) -> None:
    """Writes a first state with the weights that an earlier job left, if there are any of this size."""
    last = arguments.model(name)
    if last is None or last.size != settings.model:
        return
    training, evaluated, settings = splits.split(dataset, None, settings)
    settings = settings.resolved()
    initial = model_training.init(last.model, settings)
    variables = {collection: last.variables[collection] for collection in initial.variables}
    with states.Run(workdir, settings, None, (training.identity, evaluated.identity)) as run:
        run.save(initial._replace(variables=variables))
    job.say("begins from the weights of an earlier job, with a new optimiser")


def _start(arguments: Train, settings: config.Training) -> config.StartTraining:
    """Settings of the training of the start."""
    found = config.StartTraining(
        dataset=settings.dataset,
        sigma=settings.sigma,
        epochs=2 if arguments.smoke else arguments.start_epochs,
        batch_size=settings.batch_size,
        evaluation_interval=1 if arguments.smoke else 4,
        reference_budget=settings.reference_budget if arguments.smoke else 12,
        held_out=settings.held_out,
        ema=settings.ema,
        augment=settings.augment,
        updates_per_call=settings.updates_per_call,
        dtype=settings.dtype,
    )
    return dataclasses.replace(found, network=architecture.StartModel(width=8)) if arguments.smoke else found


def _following(arguments: Train, latest: list[loop.Progress]) -> fitting.OnProgress:
    """A function that prints figures every few seconds, and stops a training by the clock."""
    printed = [0.0, 0]

    def follow(now: loop.Progress) -> None:
        latest[:] = [now]
        update = int(now.state.update)
        if now.evaluation is not None:
            job.say(f"update {update} of {now.total}: {metrics.describe(now.evaluation)}")
        if job.seconds() - printed[0] > _INTERVAL:
            rate = (
                ""
                if update <= printed[1]
                else f", {(update - printed[1]) / (job.seconds() - printed[0]):.1f} a second"
            )
            job.say(f"update {update} of {now.total}{rate}: {metrics.describe(now.metrics)}")
            printed[:] = [job.seconds(), update]
        if update < now.total and arguments.seconds_left() < 0:
            raise _Stopped

    return follow


def _report(
    arguments: Train, settings: config.Training, plan: dict, state: pathlib.Path, out: pathlib.Path
) -> None:
    """Writes the curve, its drawing and the figures of a training."""
    lines = _lines(state / "model")
    shutil.copy(state / "model" / "metrics.jsonl", out / "curve.jsonl")
    job.draw(lines, out / "curve.svg", out.name)
    budget = settings.pretraining_budget if settings.pretraining_epochs else settings.budget
    flop = 3 * job.forward(settings.model, budget)
    found = {
        **plan,
        "evaluation": next((line for line in reversed(lines) if "noisy_accuracy" in line), None),
        "start": next((line for line in reversed(_lines(state / "start")) if "reference_accuracy" in line), None),
        "costs": job.costs(settings.model),
        "gflop_of_an_image_in_an_update": flop / 1e9,
        "tflops": flop * plan["images_per_second"] / 1e12 if "images_per_second" in plan else None,
        "matrix_product_tflops": job.matrix_product(256 if arguments.smoke else 8192),
    }
    job.write(out / "figures.json", found)
    job.say(json.dumps(found))


def _lines(folder: pathlib.Path) -> list[dict]:
    """The metrics that a training wrote to its folder."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
