"""Command `deqsmooth-verify`: checks files of certificates, and of attacks on them, without the model."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import rich.console
import tyro

from deqsmooth.commands import main as commands


@dataclasses.dataclass(frozen=True)
class Flags:
    """Check files of certificates: every bound and radius is computed again from the votes, without the model.

    Files of attacks on certificates are checked as well. Exit status: 0 nothing found, 1 differences, 2 bad input.

    Attributes:
      files: files of certificates or attacks.
      replay: number of certificates of each file that are sampled again, with the model.
      checkpoint: for replay: folder of the model; by default the one shipped for the data set and sigma.
      data_dir: for replay: TFDS data directory, by default its own; for `arrays` the `.npz` file.
    """

    files: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    replay: int = 0
    checkpoint: pathlib.Path | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("no file of certificates is given")


def main() -> int:
    """Command `deqsmooth-verify`; returns the exit status: 0 nothing found, 1 differences, 2 bad input."""
    return commands.run(Flags, run, prog="deqsmooth-verify", uses_jax=False)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Verifies every file; an unreadable one does not keep the others from being verified."""
    from deqsmooth.certificates import attempts, verification

    status = 0
    for path in arguments.files:
        try:
            if attempts.is_file(path):
                status = max(status, _verify_attempts(path))
                continue
            checked = verification.verify(path)
            messages = [str(difference) for difference in checked.differences]
            if arguments.replay > 0 and checked.found:
                messages += [f"{path}: {message}" for message in _replay(checked, arguments)]
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
            continue
        for message in messages:
            print(message)
        print(f"{path}: {verification.summary(checked)}")
        status = max(status, int(bool(messages)))
    return status


def _verify_attempts(path: pathlib.Path) -> int:
    """Prints what is wrong with a file of attacks; returns 1 if anything is, or if a certificate is refuted."""
    from deqsmooth.certificates import attempts

    file = attempts.read(path)
    found = attempts.differences(file)
    for message in found:
        print(f"{path}, {message}")
    refuted = sum(one.refutes for one in file.attempts)
    print(f"{path}: {len(file.attempts)} attacks, {len(found)} differences, {refuted} certificates refuted")
    return int(bool(found or refuted))


def _replay(checked, arguments: Flags) -> list[str]:
    """Samples some certificates again; returns the differences. Only this needs JAX and the model."""
    import numpy as np

    from deqsmooth import data, devices
    from deqsmooth.models import checkpoints
    from deqsmooth.smoothing import replay

    devices.start()
    selection = checked.selection
    dataset = data.load(selection.dataset, selection.split, arguments.data_dir)
    checkpoint = checkpoints.load(
        arguments.checkpoint or checkpoints.shipped(selection.dataset, checked.settings.sigma)
    )
    return replay.replay(
        checked.header,
        checked.found,
        checked.settings,
        checkpoint,
        dataset,
        arguments.replay,
        np.random.default_rng(),
    )
