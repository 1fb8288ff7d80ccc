"""Runs an experiment of the paper: trains its models, certifies its rows, attacks them, and writes its page."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import rich.console

from deqsmooth import config, data
from deqsmooth.certificates import writing
from deqsmooth.commands import attack, progress, reproduce, train
from deqsmooth.config import checks, serialization
from deqsmooth.experiments import definitions, page, results, scales
from deqsmooth.models import checkpoints
from deqsmooth.reports import figures
from deqsmooth.smoothing import assembly, certification, cost, inputs, provenance


class _Subject(NamedTuple):
    """A model and the rows that are run with it, by name; `trained` is None for one that was given."""

    trained: results.Trained | None
    folder: pathlib.Path
    checkpoint: checkpoints.Checkpoint
    rows: dict[str, config.Smoothing]


def run(arguments: reproduce.Flags, console: rich.console.Console) -> int:
    """Trains models and certifies rows that are not there yet, and writes the page.

    All rows of a model are checked before the first is certified; of models that are given, before any.

    The exit status is 1 if an attack refutes a certificate.
    """
    experiment = definitions.find(arguments.name)
    if experiment.draws:
        figures.check()
    given = _given(experiment, arguments)
    scale = scales.scale(arguments.scale, arguments.dataset)
    split = config.Selection(dataset=arguments.dataset).split
    dataset = data.load(arguments.dataset, split, arguments.data_dir)
    num_images = scale.num_images * experiment.times_images
    stride = max(1, len(dataset) // num_images)
    selection = config.Selection(
        dataset=arguments.dataset, data_dir=arguments.data_dir, stride=stride, max_images=num_images
    )
    image, rows = dataset[0][0], experiment.rows(scale)
    subjects: list[Iterable[_Subject]] = []
    for sigma, one in zip(arguments.sigma, given, strict=True):
        models = _models(experiment, arguments, scale, sigma, console) if one is None else [(None, one)]
        of_sigma = _subjects(models, rows, sigma, image, console)
        subjects.append(of_sigma if one is None else list(of_sigma))
    groups, status = {}, 0
    for sigma, own in zip(arguments.sigma, subjects, strict=True):
        done = []
        for trained, folder, checkpoint, chosen in own:
            for row, settings in chosen.items():
                console.print(f"{row}, sigma {sigma:g}")
                path = _certify(checkpoint, dataset, selection, settings, arguments.out / "records", console)
                found = _attack(experiment, path, folder, scale, arguments.data_dir, console)
                status = max([status, *found.values()])
                memory = None
                if experiment.measures_memory:
                    memory = _measure(checkpoint, dataset, selection, settings, path)
                done.append(results.Row(row, path, tuple(found), memory, trained))
        title = f"{arguments.dataset}, sigma {sigma:g}, {num_images} images, certified accuracy in percent"
        groups[title] = done
    command = shlex.join(["deqsmooth-reproduce", *sys.argv[1:]])
    written = page.write(experiment, command, groups, arguments.out / experiment.name)
    console.print(f"page: {written}")
    return status


def _given(experiment, arguments) -> list[pathlib.Path | None]:
    """Folder of the model of each noise; None where the experiment trains models of its own."""
    folders, sigmas = arguments.checkpoint, arguments.sigma
    checks.holds(len(set(sigmas)) == len(sigmas), "sigma", _names(sigmas), "without repetition")
    if experiment.models is not None:
        if folders:
            raise ValueError(f"checkpoint is {_names(folders)}; {experiment.name} trains models of its own")
        return [None for _ in sigmas]
    if folders and len(folders) != len(sigmas):
        raise ValueError(
            f"checkpoint is {_names(folders)}; there must be one for each sigma, and these are {_names(sigmas)}"
        )
    return list(folders) or [checkpoints.shipped(arguments.dataset, sigma) for sigma in sigmas]


def _names(values) -> str:
    return ", ".join(map(str, values))


def _models(experiment, arguments, scale, sigma, console) -> Iterator[tuple[results.Trained, pathlib.Path]]:
    """The models of an experiment and their folders; trains those that are not there yet."""
    recipe = scales.recipe(arguments.dataset, scale, arguments.data_dir)
    for name, settings in experiment.models(recipe).items():
        settings = dataclasses.replace(settings, sigma=sigma)
        made_by = serialization.to_json(dataclasses.replace(settings, data_dir=None))
        key = f"{settings.dataset}-{sigma:g}-{serialization.digest(made_by)[:12]}"
        workdir = arguments.out / "models" / key
        if not (workdir / "model").exists():
            console.print(f"{name}, sigma {sigma:g}: training")
            train.run(train.Flags(settings=settings, workdir=workdir, resume=True), console)
        yield results.Trained(name, workdir / "metrics.jsonl"), workdir / "model"


def _subjects(models, rows, sigma, image, console) -> Iterator[_Subject]:
    """Models with the rows that each is run with, all of which can certify the image."""
    for trained, folder in models:
        checkpoint = checkpoints.load(folder)
        applicable = dict(_applicable(rows, checkpoint, sigma, trained, console))
        for settings in applicable.values():
            inputs.images(checkpoint, image[None], settings)
        yield _Subject(trained, folder, checkpoint, applicable)


def _applicable(rows, checkpoint, sigma, model, console) -> Iterator[tuple[str, config.Smoothing]]:
    """Names and settings of the rows that a model can be run with."""
    if not assembly.solves(checkpoint):
        rows = dict([next(iter(rows.items()))])
    for row, settings in rows.items():
        full = row if model is None else model.name if len(rows) == 1 else f"{model.name}, {row}"
        if settings.start in ("constant", "learned") and checkpoint.start_training is None:
            console.print(f"{full}, sigma {sigma:g}: left out, since the model has no trained start")
            continue
        yield full, dataclasses.replace(settings, sigma=sigma)


def _certify(checkpoint, dataset, selection, settings, records, console) -> pathlib.Path:
    """File of a row's certificates, which is named after its settings: experiments share rows."""
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
    path = records / f"{selection.dataset}-{settings.sigma:g}-{header['sha256'][:12]}.jsonl"
    indices = selection.indices(len(dataset))
    with writing.Writer(path, header) as writer:
        left = writer.left(indices)
        if left:
            coming = certification.certify_dataset(checkpoint, dataset, left, settings)
            progress.follow(coming, writer, len(indices), console)
    return path


def _attack(experiment, path, folder, scale, data_dir, console) -> dict[pathlib.Path, int]:
    """Files of the attacks on a row, and whether each refutes a certificate."""
    found = {}
    for how in experiment.attacks:
        how = dataclasses.replace(how, steps=scale.attacked, step_size=None)
        out = path.with_name(f"{path.stem}-{how.target}-{how.steps}.attack.jsonl")
        found[out] = attack.run(
            attack.Flags(file=path, attack=how, checkpoint=folder, data_dir=data_dir, out=out), console
        )
    return found


def _measure(checkpoint, dataset, selection, settings, path) -> pathlib.Path:
    """File of the bytes that XLA reserves on each device for the programs of a row."""
    file = path.with_suffix(".memory.json")
    if not file.exists():
        indices = selection.indices(len(dataset))
        programs = certification.prepare(checkpoint, settings, checkpoint.model.image_shape, len(indices))
        file.write_text(json.dumps({"certificates": path.name, "bytes": cost.memory(programs)}) + "\n")
    return file
