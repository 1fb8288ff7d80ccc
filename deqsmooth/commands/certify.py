"""Command `deqsmooth-certify`: from images to a file of certificates, or with `--predict` of smoothed classes."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Annotated, ClassVar

import rich.console
import tyro

from deqsmooth import config
from deqsmooth.commands import listing
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
      checkpoint: folder of the model, or name of a shipped one; by default that for the data set and sigma.
      predict: compute only the smoothed class of each image, without a radius.
      download: let TFDS download and prepare a missing data set (needs TensorFlow).
      share: `I/N`: certify every N-th of the images, from the I-th on, and write to the file `*.I-of-N.jsonl`;
        `deqsmooth-merge` merges the files of all shares. The hosts of a TPU pod take their shares automatically.
      distributed: this process is one of several that share the images; TPU pods, SLURM, Open MPI and Kubernetes
        are detected.
      out: file that certificates, or with `predict` predictions, are appended to; by default a file in `runs/`
        named after the settings.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which images": ("dataset data_dir max_images", "split stride start_index download"),
        "which model": ("checkpoint", "dtype"),
        "noise and statistics": (
            "sigma num_estimation alpha",
            "num_selection looks spending stop_radius stop_radii stop_gain only_correct num_audit alpha_audit "
            "bound alpha_upper noise grid seed",
        ),
        "the solve": ("preset sampler budget", "start solver tolerance settle warmup_budget reference_budget"),
        "running it": ("predict", "lanes images_per_batch block share distributed"),
        "output": ("out", ""),
    }

    selection: Annotated[config.Selection, listing.Flat]
    smoothing: Annotated[config.Smoothing, listing.Flat]
    preset: str | None = None
    checkpoint: pathlib.Path | None = None
    predict: bool = False
    share: str | None = None
    distributed: bool = False
    download: bool = False
    out: pathlib.Path | None = None


def main() -> int:
    """Command `deqsmooth-certify`; returns the exit status."""
    return commands.run(Flags, run, prog="deqsmooth-certify", resumes="the same command", preset=preset)


def preset(name: str) -> Flags:
    """Returns the flags of a preset; the selection of images is left to the other flags."""
    from deqsmooth.config import presets

    smoothing = presets.find("preset", name, presets.SMOOTHING)
    return Flags(selection=tyro.MISSING_NONPROP, smoothing=smoothing, preset=name)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Certifies the images that have no certificate in the file yet, and prints the certified accuracy."""
    from deqsmooth import data
    from deqsmooth.certificates import plan, record, statements, writing
    from deqsmooth.commands import predict, progress, shares
    from deqsmooth.models import checkpoints
    from deqsmooth.reports import summary, terminal
    from deqsmooth.smoothing import certification, cost, inputs, layout, provenance

    selection = arguments.selection
    settings = arguments.smoothing
    share = shares.own(arguments.share, arguments.distributed)
    if arguments.predict:
        folder, out, download = arguments.checkpoint, arguments.out, arguments.download
        return predict.run(selection, settings, share, console, folder=folder, out=out, download=download)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load_or_shipped(
        arguments.checkpoint, selection.dataset, settings.sigma, settings.settle
    )
    settings = certification.recommended(checkpoint, settings)
    chosen = selection.indices(len(dataset))
    indices = share.of(chosen)
    image = inputs.first_usable(checkpoint, dataset, chosen, settings)
    dataset.check_classes(certification.check(checkpoint, settings, image))
    settings = certification.fit(checkpoint, settings, image.shape, len(indices))
    header = provenance.header(checkpoint, selection, settings, dataset, image.shape)
    out = arguments.out or pathlib.Path(
        "runs", f"{selection.file_name}-{settings.sampler}-{settings.sigma:g}-{header['sha256'][:8]}.jsonl"
    )
    out = share.file(out)
    with writing.Writer(out, header, plan.Plan(chosen, (share.number, share.total))) as writer:
        left = writer.left()
        console.print(
            f"{share.prefix()}{len(indices)} images of {selection.dataset}, {len(writer.done)} done, to {out}"
        )
        trained = checkpoint.training
        if trained is not None and trained.sigma != settings.sigma:
            console.print(f"the model was trained at sigma {trained.sigma:g}; this is sigma {settings.sigma:g}")
        resolved = layout.resolve(settings)
        console.print(terminal.limits(resolved, checkpoint.solves))
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
                    checkpoint,
                    dataset,
                    left,
                    settings,
                    programs=programs,
                    on_unreadable=write_unreadable,
                    # The check was made above.
                    skip_soundness_check=True,
                )
                progress.follow(coming, writer, len(indices), console)
        finally:
            if writer.done:
                at = statements.radii(settings.sigma, settings.cap)
                console.print(summary.summary(writer.done, at))
    return 3 if unreadable else 0
