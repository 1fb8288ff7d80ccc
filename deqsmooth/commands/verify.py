"""Command `deqsmooth-verify`: checks files of certificates and attacks by computing their values again."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, ClassVar

import rich.console
import tyro

from deqsmooth.commands import listing
from deqsmooth.commands import main as commands
from deqsmooth.config import checks

if TYPE_CHECKING:
    from deqsmooth.certificates import verification


@dataclasses.dataclass(frozen=True)
class Flags:
    """Check files of certificates: every bound and radius is computed again from the votes, without the model.

    Files of attacks on certificates are checked as well. Exit status: 0 no difference; 1 differences; 2 bad input.

    Attributes:
      files: files of certificates or attacks, also compressed (`.gz`), and archives of them (`.tar.gz`).
      replay: number of certificates of each file whose samples are drawn and classified again, with the model.
      checkpoint: for replay: folder of the model; by default the shipped model for the data set and sigma.
      data_dir: for replay: TFDS data directory; by default that of TFDS. For `arrays` the `.npz` file.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which files": ("files", ""),
        "sampling again": ("replay checkpoint data_dir", ""),
    }

    files: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    replay: int = 0
    checkpoint: pathlib.Path | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("no file of certificates is given")
        checks.holds(self.replay >= 0, "replay", self.replay, "at least 0")


def main() -> int:
    """Command `deqsmooth-verify`; returns the exit status: 1 if there are differences."""
    return commands.run(Flags, run, prog="deqsmooth-verify", uses_jax=False)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Verifies every file and every file of an archive; after a file that cannot be read, the others follow."""
    from deqsmooth.certificates import attempts, jsonl

    status = 0
    for path in arguments.files:
        try:
            for name, text in jsonl.texts(path):
                verify = _attempts if attempts.is_file(text) else _certificates
                status = max(status, verify(name, text, arguments))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
    return status


def _certificates(name: str, text: str, arguments: Flags) -> int:
    """Prints the differences of a file of certificates; returns 1 if there are any."""
    from deqsmooth.certificates import verification

    checked = verification.verify_text(name, text)
    messages = [str(difference) for difference in checked.differences]
    if arguments.replay > 0 and checked.found:
        messages += [f"{name}: {message}" for message in _replay(checked, arguments)]
    for message in messages:
        print(message)
    print(f"{name}: {verification.summary(checked)}")
    return int(bool(messages))


def _attempts(name: str, text: str, arguments: Flags) -> int:
    """Prints the differences of a file of attacks; returns 1 if there are any, or if a certificate is refuted."""
    from deqsmooth.certificates import attempts

    file = attempts.parse(name, text)
    found = attempts.differences(file)
    for message in found:
        print(f"{name}, {message}")
    refuted = sum(attempt.refutes for attempt in file.attempts)
    print(f"{name}: {len(file.attempts)} attacks, {len(found)} differences, {refuted} certificates refuted")
    return int(bool(found or refuted))


def _replay(checked: verification.Checked, arguments: Flags) -> list[str]:
    """Draws the samples of some certificates again, with JAX and the model; returns the differences."""
    import numpy as np

    from deqsmooth import data, devices
    from deqsmooth.models import checkpoints
    from deqsmooth.smoothing import replay

    devices.start()
    selection = checked.selection
    dataset = data.load(selection.dataset, selection.split, arguments.data_dir)
    checkpoint = checkpoints.load_or_shipped(arguments.checkpoint, selection.dataset, checked.settings.sigma)
    return replay.replay(
        checked.header,
        checked.found,
        checked.settings,
        checkpoint,
        dataset,
        arguments.replay,
        np.random.default_rng(),
    )
