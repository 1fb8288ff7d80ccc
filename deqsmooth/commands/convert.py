"""Command `deqsmooth-convert`: from a PyTorch checkpoint to the folder of a model."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import rich.console
import rich.table
import tyro

from deqsmooth.commands import listing
from deqsmooth.commands import main as commands
from deqsmooth.config import architecture

if TYPE_CHECKING:
    from deqsmooth.models import parity


@dataclasses.dataclass(frozen=True)
class Flags:
    """Convert a PyTorch checkpoint into a model of this package.

    Attributes:
      file: PyTorch file with a state dict, alone or as `state_dict`, `model_state_dict`, `model` or `net` (needs
        PyTorch); or `.npz` file of one.
      out: folder that the model is written to.
      preset: name of the model, whose size the other flags then change.
      model: size of the model.
      check: file of recorded outputs of the PyTorch model; the converted model must reproduce them.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which file": ("file check", ""),
        "which model": ("preset", "model"),
        "output": ("out", ""),
    }

    file: tyro.conf.Positional[pathlib.Path]
    out: pathlib.Path
    preset: str = "mdeq-small"
    model: tyro.conf.AvoidSubcommands[architecture.MdeqModel | architecture.ResnetModel] = dataclasses.field(
        default_factory=architecture.MdeqModel
    )
    check: pathlib.Path | None = None


def main() -> int:
    """Command `deqsmooth-convert`; returns the exit status: 1 if the check fails."""
    return commands.run(Flags, run, prog="deqsmooth-convert", preset=_preset)


def _preset(name: str) -> Flags:
    from deqsmooth.config import presets

    model = presets.find("preset", name, presets.MODELS)
    assert not isinstance(model, architecture.ConvModel | architecture.Branched)
    return Flags(file=tyro.MISSING, out=tyro.MISSING, preset=name, model=model)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Converts the checkpoint, compares its outputs if a file of outputs is given, and saves the model."""
    from deqsmooth.models import checkpoints, classifiers, parity, pytorch, state_dicts

    checkpoints.check_place(arguments.out)
    vectors = None if arguments.check is None else state_dicts.read(arguments.check)
    variables, size = pytorch.convert(state_dicts.read(arguments.file), arguments.model)
    source = "the flags" if size is arguments.model else "the file"
    console.print(f"input normaliser of {source}: mean {_list(size.mean)}, standard deviation {_list(size.std)}")
    failed = []
    if vectors is not None:
        found = parity.compare(variables, size, vectors)
        console.print(_comparisons(found))
        failed = [comparison.quantity for comparison in found if not comparison.passed]
    if failed:
        print(f"error: beyond the limits of their errors: {', '.join(failed)}", file=sys.stderr)
        return 1
    try:
        checkpoints.save(arguments.out, classifiers.of_size(size, variables))
    except OSError as error:
        raise ValueError(f"cannot write {arguments.out}: {error.strerror or error}") from None
    console.print(f"model: {arguments.out}")
    return 0


def _comparisons(found: Sequence[parity.Comparison]) -> rich.table.Table:
    """Table of the errors of a converted model and their limits."""
    shown = rich.table.Table(title="largest error of each quantity")
    for heading in ("quantity", "error", "limit", ""):
        shown.add_column(heading)
    for comparison in found:
        verdict = "passed" if comparison.passed else "FAILED"
        shown.add_row(comparison.quantity, f"{comparison.error:.1e}", f"{comparison.limit:g}", verdict)
    return shown


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
