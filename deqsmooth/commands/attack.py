"""Command `deqsmooth-attack`: attacks on the images of certificates, and whether one refutes them."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import rich.console

from deqsmooth import data
from deqsmooth.certificates import attempts, jsonl, verification
from deqsmooth.commands import flags, progress
from deqsmooth.config import checks, serialization
from deqsmooth.models import checkpoints
from deqsmooth.reports import terminal
from deqsmooth.smoothing import attacks, provenance


def run(arguments: flags.Attack, console: rich.console.Console) -> int:
    """Attacks, writes what came of it line by line, and says how many survive."""
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
    radii = arguments.radii or [r for r in terminal.radii(source.settings.sigma, largest) if r > 0]
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
    with jsonl.Lines(out, header) as file, progress.bar(console) as shown:
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
