"""Command `deqsmooth-verify`: checks files of certificates and others by computing their values again."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pathlib
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import rich.console
import tyro

from deqsmooth.commands import listing
from deqsmooth.commands import main as commands
from deqsmooth.config import checks

if TYPE_CHECKING:
    from deqsmooth.certificates import verification

_OK, _DIFFERENCES, _BAD_INPUT, _INCOMPLETE = range(4)
_ORDER = (_OK, _INCOMPLETE, _DIFFERENCES, _BAD_INPUT)
"""Exit statuses; of several files the last of this order counts."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Check files of certificates: every bound and radius is computed again from the votes, without the model.

    Files of attacks on certificates and of predictions are checked as well. Exit status: 0 no difference; 1
    differences; 2 bad input; 3 no difference, but images are missing or could not be read. Of several files the
    worst counts, in the order 2, 1, 3, 0.

    Attributes:
      files: files of certificates, attacks or predictions, also compressed (`.gz`), and archives (`.tar.gz`).
      replay: number of certificates of each file whose samples are drawn and classified again, with the model.
      checkpoint: for replay: folder of the model, or name of a shipped one; by default that for data and sigma.
      model: for replay, instead of a checkpoint: `module:name` of a classifier of your own, or of a function
        without arguments that returns one. The module is imported, and so its code is run.
      data_dir: for replay: TFDS data directory; by default that of TFDS. For `arrays` the `.npz` file.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which files": ("files", ""),
        "sampling again": ("replay checkpoint model data_dir", ""),
    }

    files: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    replay: int = 0
    checkpoint: pathlib.Path | None = None
    model: str | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("no file of certificates is given")
        checks.holds(self.replay >= 0, "replay", self.replay, "at least 0")
        if self.model is not None:
            checks.holds(self.model.count(":") == 1, "model", self.model, "module:name")
            checks.holds(self.checkpoint is None, "model", self.model, "left out with --checkpoint")
        for name in ("model", "checkpoint", "data_dir"):
            value = getattr(self, name)
            checks.holds(
                value is None or self.replay > 0, name, value, "left out without --replay, which needs it"
            )


def main() -> int:
    """Command `deqsmooth-verify`; returns the exit status, see `Flags`."""
    return commands.run(Flags, run, prog="deqsmooth-verify", uses_jax=False)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Verifies every file, also of archives, each once; after one that cannot be read, the others follow."""
    from deqsmooth.certificates import attempts, jsonl, predictions

    kinds = {attempts.KIND: _attempts, predictions.KIND: _predictions}
    statuses = [_OK]
    # A file that several patterns of a shell match is given several times.
    for path in {path.resolve(): path for path in arguments.files}.values():
        try:
            for name, text in jsonl.texts(path):
                try:
                    statuses.append(kinds.get(jsonl.kind(text) or "", _certificates)(name, text, arguments))
                except ValueError as error:
                    statuses.append(_complain(error))
        except ValueError as error:
            statuses.append(_complain(error))
    return max(statuses, key=_ORDER.index)


def _complain(error: ValueError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return _BAD_INPUT


def _certificates(name: str, text: str, arguments: Flags) -> int:
    """Prints what is wrong with a file of certificates; returns the exit status."""
    from deqsmooth.certificates import outcome, verification

    checked = verification.verify_text(name, text)
    if arguments.replay > 0 and checked.found:
        checked = _replay(checked, arguments)
    for difference in checked.differences:
        print(difference)
    if checked.incomplete:
        print(f"{name}: incomplete: {checked.incomplete}")
    print(f"{name}: {outcome.summary(checked)}")
    return _status(len(checked.differences), is_complete=checked.incomplete is None)


def _predictions(name: str, text: str, arguments: Flags) -> int:
    """Prints what is wrong with a file of predictions; returns the exit status."""
    from deqsmooth.certificates import outcome, predictions, rounding

    file = predictions.parse(name, text)
    found = _print_differences(name, predictions.differences(file), len(file.predictions), is_whole=file.is_whole)
    abstained = sum(one.prediction is None for one in file.predictions)
    num = rounding.number(len(file.predictions), "prediction")
    text = f"{num}, {rounding.number(abstained, 'abstention')}"
    print(f"{name}: {outcome.verdict(text, len(found))}")
    return _status(len(found), is_complete=file.is_whole)


def _attempts(name: str, text: str, arguments: Flags) -> int:
    """Prints what is wrong with a file of attacks; returns the exit status: 1 also if a certificate is refuted."""
    from deqsmooth.certificates import attempts, outcome, rounding

    file = attempts.parse(name, text)
    found = _print_differences(name, attempts.differences(file), len(file.attempts), is_whole=file.is_whole)
    refuted = sum(attempt.refutes for attempt in file.attempts)
    num = rounding.number(len(file.attempts), "attack")
    text = f"{num}, {rounding.number(refuted, 'certificate')} refuted"
    print(f"{name}: {outcome.verdict(text, len(found))}")
    return _status(len(found) + refuted, is_complete=file.is_whole)


def _print_differences(name: str, found: list[str], num: int, *, is_whole: bool) -> list[str]:
    from deqsmooth.certificates import jsonl

    for message in found:
        print(f"{name}, {message}")
    if not is_whole:
        print(f"{name}: incomplete: line {num + 2} was cut off; {jsonl.CUT_OFF}")
    return found


def _status(num_problems: int, *, is_complete: bool) -> int:
    return _DIFFERENCES if num_problems else _OK if is_complete else _INCOMPLETE


def _replay(checked: verification.Checked, arguments: Flags) -> verification.Checked:
    """Draws the samples of some certificates again, with JAX and the model, and says of which images.

    Returns:
      The file with the differences that were found.
    """
    import numpy as np

    from deqsmooth import data, devices
    from deqsmooth.certificates import rounding
    from deqsmooth.models import checkpoints, classifiers
    from deqsmooth.smoothing import replay

    devices.start()
    selection = checked.selection
    dataset = data.load(selection.dataset, selection.split, arguments.data_dir)
    if arguments.model is not None:
        classifier = classifiers.classifier(_imported(arguments.model))
    else:
        settings = checked.settings
        classifier = checkpoints.load_or_shipped(
            arguments.checkpoint, selection.dataset, settings.sigma, settings.settle
        )
    seed, num = np.random.SeedSequence().entropy, arguments.replay
    chosen = replay.choice(checked.found, num, np.random.default_rng(seed))
    found = replay.replay(
        checked.header, checked.found, checked.settings, classifier, dataset, num, np.random.default_rng(seed)
    )
    images = f"{rounding.number(len(chosen), 'image')} ({', '.join(str(one.index) for one in chosen)})"
    if replay.is_exact(checked.header):
        rule = "the votes had to be equal, because machine and code are like those of the record"
    else:
        share = f"1 in {1 / replay.TOLERANCE:,.0f} votes of an image"
        rule = f"up to {share} could differ, because machine or code are not like those of the record"
    print(f"{checked.name}: votes of {images} drawn again, {rounding.number(len(found), 'difference')}; {rule}")
    return checked.with_differences(found)


def _imported(name: str) -> Any:
    """The classifier `module:name`, from the current folder or an installed package.

    Raises:
      ValueError: there is none.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
        takes_nothing = inspect.isfunction(found) and not inspect.signature(found).parameters
        return found() if takes_nothing else found
    except Exception as error:
        # The module is the caller's own, and its code raises whatever it likes.
        raise ValueError(f"--model {name} cannot be imported: {type(error).__name__}: {error}") from error
