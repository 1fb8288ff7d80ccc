"""Command `deqsmooth-attack`: attacks on the images of certificates, and whether one refutes them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import rich.console

from deqsmooth import (
    attacks,
    attempts,
    checkpoints,
    checks,
    data,
    flags,
    progress,
    provenance,
    report,
    serialization,
    verification,
)


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
    radii = arguments.radii or [r for r in report.radii(source.settings.sigma, largest) if r > 0]
    for radius in radii:
        checks.holds(radius > 0, "radii", radius, "positive")
    out = arguments.out or pathlib.Path("runs", f"{arguments.file.stem}-{arguments.attack.target}-attack.jsonl")
    header = {
        "kind": attempts.KIND,
        "certificates": source.header["sha256"],
        "versions": provenance.versions(),
        "attack": serialization.to_json(arguments.attack),
        "radii": list(radii),
    }
    found = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x") as file, progress.bar(console) as shown:
            print(json.dumps(header), file=file, flush=True)
            shown.add_task("compiling", total=len(chosen) * len(radii))
            for one in attacks.attack(checkpoint, chosen, source.settings, dataset, radii, arguments.attack):
                found.append(one)
                print(json.dumps(dataclasses.asdict(one)), file=file, flush=True)
                progress.advance(shown, f"{sum(x.refutes for x in found)} certificates refuted")
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror}") from None
    console.print(report.survivors(found, arguments.attack.target))
    refuted = [one for one in found if one.refutes]
    for one in refuted:
        print(
            f"ALARM: image {one.index} is certified as {one.certified} to {one.radius:.4f}, but at distance "
            f"{one.distance:.4f} it is {one.prediction}",
            file=sys.stderr,
        )
    return int(bool(refuted))
