"""Command `deqsmooth-certify`: images to a file of certificates; with `--predict`, to their smoothed classes."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Annotated

import rich.console
import tyro

from deqsmooth import config
from deqsmooth.commands import flags
from deqsmooth.commands import main as commands


@dataclasses.dataclass(frozen=True)
class Flags:
    """Certify the L2 robustness of a deep equilibrium model on a data set.

    Every setting has a default: without flags, handwritten digits are certified with the model that
    comes with the package. Running the same command again resumes it.

    Attributes:
      selection: which images.
      smoothing: how they are certified.
      preset: named settings that the other flags then change: `mdeq-30a`, `srs-mdeq-3a`, ... (the paper's).
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      predict: only the smoothed class, without a radius, for those who use the classifier (see `ds.predict`).
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      share: `I/N`: this process takes every N-th image from the I-th on, into a file of its own, `….I-of-N.jsonl`;
        `deqsmooth-merge` brings them together. On a TPU pod every host takes its share by itself.
      distributed: this is one of several processes that share the images, as JAX knows them: TPU pods, SLURM, Open
        MPI and Kubernetes are recognised.
      out: file that certificates are appended to; by default one in `runs/` named after the settings. Predictions
        go to a file of their own.
    """

    selection: Annotated[config.Selection, flags.Flat]
    smoothing: Annotated[config.Smoothing, flags.Flat]
    preset: str | None = None
    checkpoint: pathlib.Path | None = None
    predict: bool = False
    share: str | None = None
    distributed: bool = False
    download: bool = False
    out: pathlib.Path | None = None


def main() -> int:
    """Command `deqsmooth-certify`; returns the exit status."""
    return commands.run(Flags, run, prog="deqsmooth-certify", preset=preset)


def preset(name: str) -> Flags:
    """The flags of a preset; which images are certified stays with the other flags."""
    from deqsmooth.config import presets

    smoothing = presets.find("preset", name, presets.SMOOTHING)
    return Flags(selection=tyro.MISSING_NONPROP, smoothing=smoothing, preset=name)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Certifies the images that are not yet in the file, and shows the result."""
    if arguments.predict:
        from deqsmooth.commands import predict

        return predict.run(arguments, console)

    from deqsmooth import data
    from deqsmooth.certificates import record, statements, writing
    from deqsmooth.commands import progress, shares
    from deqsmooth.config import checks
    from deqsmooth.models import checkpoints
    from deqsmooth.reports import terminal
    from deqsmooth.smoothing import assembly, certification, cost, inputs, layout, provenance

    selection = arguments.selection
    settings = arguments.smoothing
    share = shares.own(arguments)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma))
    chosen = selection.indices(len(dataset))
    indices = share.of(chosen)
    image = inputs.first_usable(checkpoint, dataset, chosen, settings)
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
    with writing.Writer(out, header) as writer:
        left = writer.left(indices)
        console.print(
            f"{share.introduction()}{len(indices)} images of {selection.dataset}, "
            f"{len(writer.done)} done, to {out}"
        )
        resolved = layout.resolve(settings)
        console.print(terminal.announcement(resolved, assembly.solves(checkpoint)))
        unreadable = []

        def note(entry: record.Unreadable) -> None:
            writer.write(entry)
            unreadable.append(entry)
            print(f"image {entry.index} has no certificate: {entry.error}", file=sys.stderr)

        try:
            if left:
                programs = certification.prepare(checkpoint, settings, image.shape, len(left))
                console.print(terminal.expectation(cost.seconds(programs, image), len(left)))
                coming = certification.certify_dataset(
                    checkpoint, dataset, left, settings, programs, on_unreadable=note
                )
                progress.follow(coming, writer, len(indices), console)
        finally:
            if writer.done:
                at = statements.radii(settings.sigma, settings.cap)
                console.print(terminal.certified_accuracy(writer.done, at))
                console.print(terminal.summary(writer.done))
    return 3 if unreadable else 0
