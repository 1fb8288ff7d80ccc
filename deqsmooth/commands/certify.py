"""Command `deqsmooth-certify`: from images to a file of certificates, or with `--predict` of smoothed classes."""

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
    """Certify the L2 robustness of a deep equilibrium model on the images of a data set.

    Every setting has a default: without flags, images of handwritten digits are certified with a shipped model.
    Running the same command again resumes the run.

    Attributes:
      selection: images to certify.
      smoothing: settings of the certification.
      preset: named settings, which the other flags then change: `mdeq-30a`, `srs-mdeq-3a`, ... (the paper's).
      checkpoint: folder of the model; by default the shipped model for the data set and sigma.
      predict: compute only the smoothed class of each image, without a radius.
      download: let TFDS download and prepare a missing data set (needs TensorFlow).
      share: `I/N`: certify every N-th of the images, from the I-th on, and write to the file `*.I-of-N.jsonl`;
        `deqsmooth-merge` merges the files of all shares. The hosts of a TPU pod take their shares automatically.
      distributed: this process is one of several that share the images; TPU pods, SLURM, Open MPI and Kubernetes
        are detected.
      out: file that certificates, or with `predict` predictions, are appended to; by default a file in `runs/`
        named after the settings.
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
    """Returns the flags of a preset; the selection of images is left to the other flags."""
    from deqsmooth.config import presets

    smoothing = presets.find("preset", name, presets.SMOOTHING)
    return Flags(selection=tyro.MISSING_NONPROP, smoothing=smoothing, preset=name)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Certifies the images that have no certificate in the file yet, and prints the certified accuracy."""
    from deqsmooth import data
    from deqsmooth.certificates import record, statements, writing
    from deqsmooth.commands import predict, progress, shares
    from deqsmooth.config import checks
    from deqsmooth.models import checkpoints
    from deqsmooth.reports import summary, terminal
    from deqsmooth.smoothing import assembly, certification, cost, inputs, layout, provenance

    selection = arguments.selection
    settings = arguments.smoothing
    share = shares.own(arguments.share, arguments.distributed)
    if arguments.predict:
        folder, out, download = arguments.checkpoint, arguments.out, arguments.download
        return predict.run(selection, settings, share, console, folder=folder, out=out, download=download)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load_or_shipped(arguments.checkpoint, selection.dataset, settings.sigma)
    chosen = selection.indices(len(dataset))
    indices = share.of(chosen)
    image = inputs.first_usable(checkpoint, dataset, chosen, settings)
    settings = certification.fit(checkpoint, settings, image.shape, len(indices))
    classes = checkpoint.model.num_classes
    checks.holds(
        dataset.num_classes <= classes,
        "dataset",
        f"{selection.dataset}, with {dataset.num_classes} classes",
        f"one of at most {classes} classes, the number of classes of the model",
    )
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
    out = arguments.out or pathlib.Path(
        "runs", f"{selection.dataset}-{settings.sampler}-{settings.sigma:g}-{header['sha256'][:8]}.jsonl"
    )
    out = share.file(out)
    with writing.Writer(out, header) as writer:
        left = writer.left(indices)
        console.print(
            f"{share.prefix()}{len(indices)} images of {selection.dataset}, {len(writer.done)} done, to {out}"
        )
        resolved = layout.resolve(settings)
        console.print(terminal.limits(resolved, assembly.solves(checkpoint)))
        unreadable: list[record.Unreadable] = []

        def write_unreadable(entry: record.Unreadable) -> None:
            writer.write(entry)
            unreadable.append(entry)
            print(f"image {entry.index} has no certificate: {entry.error}", file=sys.stderr)

        try:
            if left:
                programs = certification.prepare(checkpoint, settings, image.shape, len(left))
                console.print(terminal.time_needed(cost.seconds(programs, image), len(left)))
                coming = certification.certify_dataset(
                    checkpoint, dataset, left, settings, programs, on_unreadable=write_unreadable
                )
                progress.follow(coming, writer, len(indices), console)
        finally:
            if writer.done:
                at = statements.radii(settings.sigma, settings.cap)
                console.print(summary.summary(writer.done, at))
    return 3 if unreadable else 0
