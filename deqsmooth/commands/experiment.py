"""The part of `deqsmooth-reproduce` that uses JAX: from an experiment to its models, its records and its page."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import rich.console

from deqsmooth import config, data
from deqsmooth.certificates import plan, writing
from deqsmooth.commands import attack, fitting, progress
from deqsmooth.config import checks, serialization
from deqsmooth.experiments import definitions, page, results, scales
from deqsmooth.models import checkpoints, classifiers, shipped, starts
from deqsmooth.reports import canvas
from deqsmooth.smoothing import certification, cost, inputs, provenance


class Request(NamedTuple):
    """What is to be run; see the flags of `deqsmooth-reproduce`, which have the same names."""

    name: str
    scale: str
    dataset: str
    sigma: tuple[float, ...]
    checkpoint: tuple[pathlib.Path, ...]
    data_dir: str | None
    out: pathlib.Path


class _Context(NamedTuple):
    """Everything that the rows of a run have in common."""

    request: Request
    experiment: definitions.Experiment
    scale: scales.Scale
    dataset: data.Dataset
    selection: config.Selection
    console: rich.console.Console


class _Subject(NamedTuple):
    """A model and the rows that are run with it.

    Attributes:
      trained: name and metrics of the model; None if the experiment did not train it.
      folder: folder of the model.
      checkpoint: the model.
      rows: settings of the rows, by name.
    """

    trained: results.Trained | None
    folder: pathlib.Path
    checkpoint: classifiers.Classifier
    rows: dict[str, config.Smoothing]


def run(request: Request, console: rich.console.Console) -> int:
    """Trains the models and certifies the rows that do not exist yet, attacks them, and writes the page.

    All rows of a model are checked before the first is certified. If the models are given, the rows of all models
    are checked before any work.

    Returns:
      The exit status: 1 if an attack refutes a certificate.

    Raises:
      ValueError: a flag is invalid, matplotlib is missing, or a model cannot be run with a row.
    """
    experiment = definitions.find(request.name)
    if experiment.draws:
        canvas.check()
    folders = _folders(experiment, request)
    scale = scales.scale(request.scale, request.dataset)
    split = config.Selection(dataset=request.dataset).split
    dataset = data.load(request.dataset, split, request.data_dir)
    num_images = scale.num_images * experiment.times_images
    selection = config.Selection(
        dataset=request.dataset,
        data_dir=request.data_dir,
        stride=max(1, len(dataset) // num_images),
        max_images=num_images,
    )
    context = _Context(request, experiment, scale, dataset, selection, console)
    subjects: dict[float, Iterable[_Subject]] = {}
    for sigma in request.sigma:
        if folders is None:
            subjects[sigma] = _trained_subjects(context, sigma)
        else:
            subjects[sigma] = [_subject(context, None, folders[sigma], sigma)]
    groups, status = {}, 0
    for sigma, of_sigma in subjects.items():
        rows = []
        for subject in of_sigma:
            for name, settings in subject.rows.items():
                row, refuted = _run_row(context, subject, name, settings)
                rows.append(row)
                status = max(status, refuted)
        title = f"{request.dataset}, sigma {sigma:g}, {num_images} images, certified accuracy in percent"
        groups[title] = rows
    command = shlex.join(["deqsmooth-reproduce", *sys.argv[1:]])
    written = page.write(experiment, command, groups, request.out / experiment.name)
    console.print(f"page: {written}")
    return status


def _folders(experiment: definitions.Experiment, request: Request) -> dict[float, pathlib.Path] | None:
    """Folder of the given model for each sigma; None if the experiment trains its models.

    Raises:
      ValueError: a sigma is repeated, the number of folders is wrong, or no model is shipped for a sigma.
    """
    folders, sigmas = request.checkpoint, request.sigma
    checks.holds(len(set(sigmas)) == len(sigmas), "sigma", _joined(sigmas), "without repetition")
    if experiment.models is not None:
        if folders:
            raise ValueError(f"checkpoint is {_joined(folders)}; {experiment.name} trains its models")
        return None
    if folders and len(folders) != len(sigmas):
        raise ValueError(
            f"checkpoint is {_joined(folders)}; there must be one for each sigma, and these are {_joined(sigmas)}"
        )
    return {
        sigma: folders[place] if folders else shipped.folder(request.dataset, sigma)
        for place, sigma in enumerate(sigmas)
    }


def _joined(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _trained_subjects(context: _Context, sigma: float) -> Iterator[_Subject]:
    """Yields the models of the experiment for a sigma, with their rows; trains those that do not exist yet."""
    request, experiment = context.request, context.experiment
    assert experiment.models is not None
    recipe = scales.recipe(request.dataset, context.scale, request.data_dir)
    for name, settings in experiment.models(recipe).items():
        settings = dataclasses.replace(settings, sigma=sigma)
        identity = serialization.to_json(dataclasses.replace(settings, data_dir=None))
        key = f"{settings.dataset}-{sigma:g}-{serialization.digest(identity)[:12]}"
        workdir = request.out / "models" / key
        if not (workdir / "model").exists():
            context.console.print(f"{name}, sigma {sigma:g}: training")
            fitting.train_model(settings, context.console, workdir=workdir, resume=True)
        yield _subject(context, results.Trained(name, workdir / "metrics.jsonl"), workdir / "model", sigma)


def _subject(context: _Context, trained: results.Trained | None, folder: pathlib.Path, sigma: float) -> _Subject:
    """Reads a model, and selects the rows that it can be run with.

    An explicit model is run with the first row only, and a model without a trained start without the rows that
    need one.

    Raises:
      ValueError: the model cannot certify the images with the settings of a row.
    """
    checkpoint = checkpoints.load(folder)
    rows = context.experiment.rows(context.scale)
    if not checkpoint.solves:
        rows = dict(list(rows.items())[:1])
    image, chosen = context.dataset[0][0], {}
    for row, settings in rows.items():
        name = row if trained is None else trained.name if len(rows) == 1 else f"{trained.name}, {row}"
        if settings.start in starts.TRAINED and checkpoint.start_training is None:
            context.console.print(f"{name}, sigma {sigma:g}: left out, because the model has no trained start")
            continue
        chosen[name] = dataclasses.replace(settings, sigma=sigma)
        inputs.images(checkpoint, image[None], chosen[name])
    return _Subject(trained, folder, checkpoint, chosen)


def _run_row(
    context: _Context, subject: _Subject, name: str, settings: config.Smoothing
) -> tuple[results.Row, int]:
    """Certifies, attacks and measures a row; returns it, and 1 if an attack refutes a certificate, else 0."""
    context.console.print(f"{name}, sigma {settings.sigma:g}")
    path = _certify(context, subject.checkpoint, settings)
    attacks = _attack(context, subject.folder, path)
    memory = _measure(context, subject.checkpoint, settings, path) if context.experiment.measures_memory else None
    return results.Row(name, path, tuple(attacks), memory, subject.trained), max(attacks.values(), default=0)


def _certify(context: _Context, checkpoint: classifiers.Classifier, settings: config.Smoothing) -> pathlib.Path:
    """Certifies a row; returns its file, which is named after its settings so that experiments share rows."""
    selection, dataset = context.selection, context.dataset
    header = provenance.header(checkpoint, selection, settings, dataset, dataset[0][0].shape)
    path = (
        context.request.out / "records" / f"{selection.file_name}-{settings.sigma:g}-{header['sha256'][:12]}.jsonl"
    )
    indices = selection.indices(len(dataset))
    with writing.Writer(path, header, plan.Plan(indices)) as writer:
        left = writer.left()
        if left:
            coming = certification.certify_dataset(checkpoint, dataset, left, settings)
            progress.follow(coming, writer, len(indices), context.console)
    return path


def _attack(context: _Context, folder: pathlib.Path, path: pathlib.Path) -> dict[pathlib.Path, int]:
    """Runs the attacks on a row; returns for each file of attacks 1 if it refutes a certificate, else 0."""
    found = {}
    for settings in context.experiment.attacks:
        settings = dataclasses.replace(settings, steps=context.scale.attacked, step_size=None)
        out = path.with_name(f"{path.stem}-{settings.target}-{settings.steps}.attack.jsonl")
        arguments = attack.Flags(
            file=path, attack=settings, checkpoint=folder, data_dir=context.request.data_dir, out=out
        )
        found[out] = attack.run(arguments, context.console)
    return found


def _measure(
    context: _Context, checkpoint: classifiers.Classifier, settings: config.Smoothing, path: pathlib.Path
) -> pathlib.Path:
    """Returns the file with the bytes that XLA reserves on each device for the programs of a row."""
    file = path.with_suffix(".memory.json")
    if not file.exists():
        num_images = len(context.selection.indices(len(context.dataset)))
        programs = certification.prepare(checkpoint, settings, context.dataset[0][0].shape, num_images)
        file.write_text(
            json.dumps({"certificates": path.name, "bytes": cost.memory(programs)}) + "\n", encoding="utf-8"
        )
    return file
