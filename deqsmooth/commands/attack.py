"""Command `deqsmooth-attack`: attacks on the images of certificates, and whether one refutes them."""

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
    """Attack the images of certificates, and see whether any certificate is refuted.

    Attributes:
      file: certificates of the independent sampler.
      attack: how they are attacked.
      radii: within which the attacks are to stay; by default those of the table of the certificates.
      max_images: how many of them at most.
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      out: file that what came of every attack is written to; by default one in `runs/`.
    """

    file: tyro.conf.Positional[pathlib.Path]
    attack: Annotated[config.Attack, flags.Flat] = dataclasses.field(default_factory=config.Attack)
    radii: tuple[float, ...] | None = None
    max_images: int | None = None
    checkpoint: pathlib.Path | None = None
    data_dir: str | None = None
    download: bool = False
    out: pathlib.Path | None = None


def main() -> int:
    """Command `deqsmooth-attack`; returns the exit status, 1 if a certificate is refuted."""
    return commands.run(Flags, run, prog="deqsmooth-attack")


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Attacks, writes what came of it line by line, and says how many survive."""
    from deqsmooth import data
    from deqsmooth.certificates import attempts, statements, verification, writing
    from deqsmooth.commands import progress
    from deqsmooth.config import checks, serialization
    from deqsmooth.models import checkpoints
    from deqsmooth.reports import terminal
    from deqsmooth.smoothing import attacks, provenance

    source = verification.verify(arguments.file)
    if source.differences:
        raise ValueError(f"{source.differences[0]}; only what verifies can be put to the test")
    checks.holds(len(source.found) > 0, "file", arguments.file, "one with certificates")
    selection = source.selection
    dataset = data.load(selection.dataset, selection.split, arguments.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(
        arguments.checkpoint or checkpoints.shipped(selection.dataset, source.settings.sigma)
    )
    provenance.agree(source.header, checkpoint, dataset)
    chosen = source.found[: arguments.max_images]
    largest = max(certificate.radius for certificate in chosen)
    radii = arguments.radii or [r for r in statements.radii(source.settings.sigma, largest) if r > 0]
    for radius in radii:
        checks.holds(radius > 0, "radii", radius, "positive")
    checks.holds(len(set(radii)) == len(radii), "radii", radii, "without repetition")
    out = arguments.out or pathlib.Path("runs", f"{arguments.file.stem}-{arguments.attack.target}-attack.jsonl")
    header = {
        "kind": attempts.KIND,
        "certificates": source.header["sha256"],
        "versions": provenance.versions(),
        "attack": serialization.to_json(arguments.attack),
        "radii": list(radii),
    }
    with writing.Lines(out, header) as file, progress.bar(console) as shown:
        found = [attempts.Attempt(**record) for record in file.records]
        done = {(one.index, one.budget) for one in found}
        left = [one for one in chosen if any((one.index, radius) not in done for radius in radii)]
        progress.begin(shown, "compiling", len(chosen) * len(radii), len(found))
        coming = attacks.attack(checkpoint, left, source.settings, dataset, radii, arguments.attack)
        for one in coming if left else ():
            if (one.index, one.budget) not in done:
                found.append(one)
                file.append(dataclasses.asdict(one))
                progress.advance(shown, f"{sum(x.refutes for x in found)} certificates refuted")
    console.print(terminal.survivors(found, arguments.attack.target))
    refuted = [one for one in found if one.refutes]
    for one in refuted:
        print(
            f"ALARM: image {one.index} is certified as {one.certified} to {one.radius:.4f}, but at distance "
            f"{one.distance:.4f} it is {one.prediction}",
            file=sys.stderr,
        )
    return int(bool(refuted))
