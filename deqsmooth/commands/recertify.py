"""Command `deqsmooth-recertify`: from certificates of a network to those of a similar one (Ugare et al. 2024)."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar

import rich.console
import tyro

from deqsmooth.commands import listing
from deqsmooth.commands import main as commands
from deqsmooth.config import checks


@dataclasses.dataclass(frozen=True)
class Flags:
    """Certify a network from the certificates of a similar one, such as a quantised or fine-tuned copy.

    Attributes:
      file: file of certificates of the independent sampler for the original network.
      checkpoint: folder of the new network, or name of a shipped one; by default the original network, with
        other settings of its solves.
      before: folder of the original network; by default the shipped model for the data set and sigma.
      data_dir: TFDS data directory; by default that of TFDS. For `arrays` the `.npz` file.
      solver: solver of the new network; by default as in the certificates.
      budget: cell evaluations of its solves; by default as in the certificates.
      tolerance: relative residual at which its solves stop; by default as in the certificates.
      start: initial state of its solves; by default as in the certificates.
      dtype: floating point type of its cell; by default as in the certificates.
      num_pairs: samples of an image on which both networks are evaluated.
      alpha_pairs: part of alpha that the pairs take; by default a tenth.
      download: let TFDS download and prepare a missing data set (needs TensorFlow).
      out: file that certificates are appended to; by default a file in `runs/` named after the settings.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which certificates": ("file", ""),
        "which images": ("data_dir", "download"),
        "which models": ("checkpoint before", "dtype"),
        "statistics": ("num_pairs", "alpha_pairs"),
        "the solve of the new network": ("budget start", "solver tolerance"),
        "output": ("out", ""),
    }

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

    def __post_init__(self) -> None:
        for name in ("budget", "num_pairs"):
            if getattr(self, name) is not None:
                checks.positive(self, name)
        for name in ("tolerance", "alpha_pairs"):
            if getattr(self, name) is not None:
                checks.finite_positive(name, getattr(self, name))


def main() -> int:
    """Command `deqsmooth-recertify`; returns the exit status."""
    return commands.run(Flags, run, prog="deqsmooth-recertify", resumes="the same command")


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Certifies the new network for the images that have no certificate in the file yet."""
    from deqsmooth import data
    from deqsmooth.certificates import plan, statements, verification, writing
    from deqsmooth.commands import progress
    from deqsmooth.models import checkpoints
    from deqsmooth.reports import summary
    from deqsmooth.smoothing import provenance, recertification

    source = verification.verify(arguments.file).must_hold("only verified certificates can be used")
    checks.holds(len(source.found) > 0, "file", arguments.file, "one with certificates")
    selection = dataclasses.replace(source.selection, data_dir=arguments.data_dir)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    settled = source.settings.settle
    before = checkpoints.load_or_shipped(arguments.before, selection.dataset, source.settings.sigma, settled)
    provenance.agree(source.header, before, dataset)
    after = before if arguments.checkpoint is None else checkpoints.load(arguments.checkpoint)
    names = ("solver", "budget", "tolerance", "start", "dtype")
    change = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    pairs = {"num_pairs": arguments.num_pairs, "alpha_pairs": arguments.alpha_pairs}
    settings = recertification.settings_after(source.settings, **change, **pairs)
    image = dataset[source.found[0].index][0]
    recertification.check((before, source.settings), (after, settings), image)
    header = provenance.header(after, selection, settings, dataset, image.shape, before=source.header)
    out = arguments.out or pathlib.Path("runs", f"{arguments.file.stem}-again-{header['sha256'][:8]}.jsonl")
    planned = plan.Plan(sorted(certificate.index for certificate in source.found))
    with writing.Writer(out, header, planned) as writer:
        console.print(f"{len(source.found)} certificates, {len(writer.done)} done, to {out}")
        left = set(writer.left())
        chosen = [certificate for certificate in source.found if certificate.index in left]
        coming = recertification.recertify(
            chosen,
            (before, source.settings),
            (after, settings),
            dataset,
            # The check was made above.
            skip_check=True,
        )
        progress.follow(coming, writer, len(source.found), console)
        found = writer.done
        if found:
            console.print(summary.summary(found, statements.radii(settings.sigma, settings.cap)))
            spent, original = (sum(c.evaluations for c in every) for every in (found, source.found))
            console.print(f"{spent:,} cell evaluations; the original certificates took {original:,}")
    return 0
