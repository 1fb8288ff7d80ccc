"""Command `deqsmooth-attack`: from certificates to a file of attacks on their images."""

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
from deqsmooth.config import checks


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attack the images of certificates, and check that no certificate is refuted.

    Attributes:
      file: file of certificates of the independent sampler.
      attack: settings of the attacks.
      radii: largest L2 distances of the attacks; by default the radii at which certified accuracy is reported.
      max_images: largest number of images to attack.
      checkpoint: folder of the model, or name of a shipped one; by default that for the data set and sigma.
      data_dir: TFDS data directory; by default that of TFDS. For `arrays` the `.npz` file.
      download: let TFDS download and prepare a missing data set (needs TensorFlow).
      out: file that the results are appended to; by default a file in `runs/`.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which certificates": ("file max_images", ""),
        "which images": ("data_dir", "download"),
        "which model": ("checkpoint", ""),
        "the attack": ("radii target steps restarts draws", "step_size gradient_budget seed"),
        "the prediction that follows": ("", "num_estimation alpha"),
        "output": ("out", ""),
    }

    file: tyro.conf.Positional[pathlib.Path]
    attack: Annotated[config.Attack, listing.Flat] = dataclasses.field(default_factory=config.Attack)
    radii: tuple[float, ...] | None = None
    max_images: int | None = None
    checkpoint: pathlib.Path | None = None
    data_dir: str | None = None
    download: bool = False
    out: pathlib.Path | None = None

    def __post_init__(self) -> None:
        if self.max_images is not None:
            checks.positive(self, "max_images")


def main() -> int:
    """Command `deqsmooth-attack`; returns the exit status: 1 if a certificate is refuted."""
    return commands.run(Flags, run, prog="deqsmooth-attack", resumes="the same command")


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Attacks the images, appends each result to the file, and prints the robust accuracy."""
    from deqsmooth import data
    from deqsmooth.certificates import attempts, rounding, statements, verification, writing
    from deqsmooth.commands import progress
    from deqsmooth.config import serialization
    from deqsmooth.models import checkpoints
    from deqsmooth.reports import terminal
    from deqsmooth.smoothing import attacks, provenance

    source = verification.verify(arguments.file).must_hold("only verified certificates can be attacked")
    checks.holds(len(source.found) > 0, "file", arguments.file, "one with certificates")
    selection = source.selection
    dataset = data.load(selection.dataset, selection.split, arguments.data_dir, download=arguments.download)
    settings = source.settings
    checkpoint = checkpoints.load_or_shipped(
        arguments.checkpoint, selection.dataset, settings.sigma, settings.settle
    )
    provenance.agree(source.header, checkpoint, dataset)
    chosen = source.found[: arguments.max_images]
    largest = max(certificate.radius for certificate in chosen)
    radii = arguments.radii or [r for r in statements.radii(source.settings.sigma, largest) if r > 0]
    for radius in radii:
        checks.finite_positive("radii", radius)
    checks.holds(len(set(radii)) == len(radii), "radii", radii, "without repetition")
    out = arguments.out or pathlib.Path("runs", f"{arguments.file.stem}-{arguments.attack.target}-attack.jsonl")
    header = {
        "kind": attempts.KIND,
        "certificates": source.header["sha256"],
        "versions": provenance.versions(),
        "attack": serialization.to_json(arguments.attack),
        "radii": list(radii),
    }

    def read(name: str, text: str) -> list[attempts.Attempt]:
        return attempts.read(name, text, source.found)

    with writing.Lines(out, header, read) as file, progress.bar(console) as shown:
        found = file.done
        done = {(attempt.index, attempt.budget) for attempt in found}
        left = [c for c in chosen if any((c.index, radius) not in done for radius in radii)]
        progress.begin(shown, "compiling", len(chosen) * len(radii), len(found))
        coming = attacks.attack(checkpoint, left, source.settings, dataset, radii, arguments.attack)
        for attempt in coming if left else ():
            if (attempt.index, attempt.budget) not in done:
                file.write(attempt)
                progress.advance(shown, f"{sum(x.refutes for x in found)} certificates refuted")
    console.print(terminal.robust_accuracy(found, arguments.attack.target))
    refuted = [attempt for attempt in found if attempt.refutes]
    for attempt in refuted:
        print(
            f"ALARM: image {attempt.index} is certified as class {attempt.certified} within "
            f"{rounding.radius(attempt.radius)}, but at distance {rounding.radius(attempt.distance, up=True)} its "
            f"class is {attempt.prediction}",
            file=sys.stderr,
        )
    return int(bool(refuted))
