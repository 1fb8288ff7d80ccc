"""Command `deqsmooth-recertify`: certificates of another network, from those of one."""

from __future__ import annotations

import dataclasses
import pathlib

import rich.console
import tyro

from deqsmooth.commands import main as commands


@dataclasses.dataclass(frozen=True)
class Flags:
    """Certify another network from the certificates of one: a quantised, fine-tuned or shorter solved copy.

    Attributes:
      file: certificates of the independent sampler.
      checkpoint: folder of the network to certify; by default the one that the certificates are about.
      before: folder of the one that they are about; by default the one shipped for the data set and sigma.
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file.
      solver: of the network to certify; this and what follows is by default as in the certificates.
      budget: its evaluations.
      tolerance: its relative residual to stop at.
      start: where its solves begin.
      dtype: floating point type of its cell.
      num_pairs: samples of an image on which both are evaluated.
      alpha_pairs: the part of alpha that the pairs take; by default a tenth.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      out: file that certificates are appended to; by default one in `runs/` named after the settings.
    """

    file: tyro.conf.Positional[pathlib.Path]
    checkpoint: pathlib.Path | None = None
    before: pathlib.Path | None = None
    data_dir: str | None = None
    solver: str | None = None
    budget: int | None = None
    tolerance: float | None = None
    start: str | None = None
    dtype: str | None = None
    num_pairs: int = 1000
    alpha_pairs: float | None = None
    download: bool = False
    out: pathlib.Path | None = None


def main() -> int:
    """Command `deqsmooth-recertify`; returns the exit status."""
    return commands.run(Flags, run, prog="deqsmooth-recertify")


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Certifies the network for the images that are not yet in the file."""
    from deqsmooth import data
    from deqsmooth.certificates import statements, verification, writing
    from deqsmooth.commands import progress
    from deqsmooth.models import checkpoints
    from deqsmooth.reports import terminal
    from deqsmooth.smoothing import provenance, recertification

    source = verification.verify(arguments.file)
    if source.differences:
        raise ValueError(f"{source.differences[0]}; only what verifies can be built on")
    selection = dataclasses.replace(source.selection, data_dir=arguments.data_dir)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    before = checkpoints.load(arguments.before or checkpoints.shipped(selection.dataset, source.settings.sigma))
    provenance.agree(source.header, before, dataset)
    after = before if arguments.checkpoint is None else checkpoints.load(arguments.checkpoint)
    names = ("solver", "budget", "tolerance", "start", "dtype")
    change = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    pairs = {"num_pairs": arguments.num_pairs, "alpha_pairs": arguments.alpha_pairs}
    settings = recertification.settings_after(source.settings, **change, **pairs)
    header = provenance.header(after, selection, settings, dataset.identity, source.header)
    out = arguments.out or pathlib.Path("runs", f"{arguments.file.stem}-again-{header['sha256'][:8]}.jsonl")
    with writing.Writer(out, header) as writer:
        console.print(f"{len(source.found)} certificates, {len(writer.done)} done, to {out}")
        left = set(writer.left(certificate.index for certificate in source.found))
        chosen = [certificate for certificate in source.found if certificate.index in left]
        coming = recertification.recertify(chosen, (before, source.settings), (after, settings), dataset)
        progress.follow(coming, writer, len(source.found), console)
        found = writer.done
        if found:
            console.print(terminal.certified_accuracy(found, statements.radii(settings.sigma, settings.cap)))
            console.print(terminal.summary(found))
            spent, anew = (sum(c.evaluations for c in every) for every in (found, source.found))
            console.print(f"{spent:,} cell evaluations, where the certificates before took {anew:,}")
    return 0
