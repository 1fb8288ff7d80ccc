"""Command `deqsmooth-reproduce`: an experiment of the paper, its records, and its page."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys

import rich.console
import rich.table

from deqsmooth import (
    certification,
    checkpoints,
    config,
    data,
    experiments,
    flags,
    provenance,
    reproduction,
    writing,
)
from deqsmooth.commands.certify import follow


def run(arguments: flags.Reproduce, console: rich.console.Console) -> int:
    """Certifies every row that has no records yet, and writes the page."""
    if arguments.name == "list":
        console.print(_list())
        return 0
    experiment = experiments.find(arguments.name)
    scale = experiments.SCALES[arguments.scale]
    records = arguments.out / "records"
    split = config.Selection(dataset=arguments.dataset).split
    dataset = data.load(arguments.dataset, split, arguments.data_dir)
    stride = max(1, len(dataset) // scale.num_images)
    selection = config.Selection(dataset=arguments.dataset, stride=stride, max_images=scale.num_images)
    groups = {}
    for sigma in arguments.sigma:
        checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(arguments.dataset, sigma))
        rows = []
        for name, settings in experiment.rows(scale).items():
            settings = dataclasses.replace(settings, sigma=sigma)
            if settings.start in ("constant", "learned") and checkpoint.start is None:
                console.print(f"{name}, sigma {sigma:g}: left out, since the model has no trained start")
                continue
            console.print(f"{name}, sigma {sigma:g}")
            path = _certify(checkpoint, dataset, selection, settings, records, console)
            rows.append(reproduction.Row(name, path))
        title = f"{arguments.dataset}, sigma {sigma:g}, {scale.num_images} images, certified accuracy in percent"
        groups[title] = rows
    command = shlex.join(["deqsmooth-reproduce", *sys.argv[1:]])
    page = reproduction.write(experiment, command, groups, arguments.out / experiment.name)
    console.print(f"page: {page}")
    return 0


def _certify(checkpoint, dataset, selection, settings, records, console) -> pathlib.Path:
    """File of a row's certificates, which is named after its settings: experiments share rows."""
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
    path = records / f"{selection.dataset}-{settings.sigma:g}-{header['sha256'][:12]}.jsonl"
    indices = selection.indices(len(dataset))
    with writing.Writer(path, header) as writer:
        done = {certificate.index for certificate in writer.done}
        left = [index for index in indices if index not in done]
        if left:
            found = list(writer.done)
            coming = certification.certify_dataset(checkpoint, dataset, left, settings)
            follow(coming, writer, found, len(indices), console)
    return path


def _list() -> rich.table.Table:
    shown = rich.table.Table("experiment", "question", "rows")
    for experiment in experiments.EXPERIMENTS.values():
        rows = len(experiment.rows(experiments.SCALES["small"]))
        shown.add_row(experiment.name, experiment.question, str(rows))
    return shown
