"""Command `deqsmooth-certify`: images to a file of certificates."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import rich.console

from deqsmooth import data
from deqsmooth.certificates import jsonl
from deqsmooth.commands import flags, predict, progress, shares
from deqsmooth.config import checks
from deqsmooth.models import checkpoints
from deqsmooth.reports import terminal
from deqsmooth.smoothing import certification, provenance

_TRIED = 8


def run(arguments: flags.Certify, console: rich.console.Console) -> int:
    """Certifies the images that are not yet in the file, and shows what came of it."""
    if arguments.predict:
        return predict.run(arguments, console)
    selection = arguments.selection
    settings = arguments.smoothing
    share = shares.own(arguments)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma))
    chosen = selection.indices(len(dataset))
    indices = share.of(chosen)
    image = _first_usable(checkpoint, dataset, chosen, settings)
    settings = certification.fit(checkpoint, settings, image.shape, len(indices))
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
    out = share.file(out)
    with jsonl.Writer(out, header) as writer:
        left = writer.left(indices)
        console.print(
            f"{share.introduction()}{len(indices)} images of {selection.dataset}, "
            f"{len(writer.done)} done, to {out}"
        )
        resolved = certification.resolve(settings)
        console.print(terminal.announcement(resolved, certification.solves(checkpoint)))
        unreadable = []

        def note(entry):
            writer.write(entry)
            unreadable.append(entry)
            print(f"image {entry.index} has no certificate: {entry.error}", file=sys.stderr)

        try:
            if left:
                programs = certification.prepare(checkpoint, settings, image.shape, len(left))
                console.print(terminal.expectation(programs.expected_seconds(image), len(left)))
                coming = certification.certify_dataset(
                    checkpoint, dataset, left, settings, programs, on_unreadable=note
                )
                follow(coming, writer, len(indices), console)
        finally:
            if writer.done:
                console.print(
                    terminal.certified_accuracy(writer.done, terminal.radii(settings.sigma, settings.cap))
                )
                console.print(terminal.summary(writer.done))
    return 3 if unreadable else 0


def _first_usable(checkpoint, dataset, indices, settings) -> np.ndarray:
    """The first image that the model can take; raises what is wrong with the first if none of a few is such."""
    for index in (*indices[:_TRIED], indices[0]):
        try:
            return certification.checked(checkpoint, dataset[index][0][None], settings)[0]
        except ValueError as error:
            reason = error
    raise reason


def follow(coming, writer, total, console):
    """Writes certificates as they come, and shows how far they are."""
    with progress.bar(console) as shown:
        progress.begin(shown, "compiling", total, len(writer.done))
        for certificate in coming:
            writer.write(certificate)
            progress.advance(shown, terminal.state(writer.done))
