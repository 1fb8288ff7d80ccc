"""Command `deqsmooth-convert`: from a PyTorch checkpoint to the folder of a model."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich.console
import rich.table
import tyro

from deqsmooth.commands import main as commands
from deqsmooth.config import architecture

if TYPE_CHECKING:
    from deqsmooth.models import parity


@dataclasses.dataclass(frozen=True)
class Flags:
    """Convert a PyTorch checkpoint into a model of this package.

    Attributes:
      file: `.pth.tar` file with a state dict, alone or as `state_dict` (needs PyTorch); or `.npz` file of one.
      out: folder that the model is written to.
      preset: name of the model, whose size the other flags then change.
      model: size of the model.
      check: file of recorded outputs of the PyTorch model; the converted model must reproduce them.
    """

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
    assert not isinstance(model, architecture.ConvModel)
    return Flags(file=tyro.MISSING, out=tyro.MISSING, preset=name, model=model)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Converts the checkpoint, compares its outputs if a file of outputs is given, and saves the model."""
    from deqsmooth.models import checkpoints, classifiers, parity, pytorch

    checkpoints.check_place(arguments.out)
    variables = pytorch.convert(pytorch.read(arguments.file), arguments.model)
    failed = []
    if arguments.check is not None:
        found = parity.compare(variables, arguments.model, pytorch.read(arguments.check))
        console.print(_comparisons(found))
        failed = [comparison.quantity for comparison in found if not comparison.passed]
    if failed:
        print(f"error: {len(failed)} quantities exceed their error limit: {', '.join(failed)}", file=sys.stderr)
        return 1
    checkpoints.save(arguments.out, classifiers.of_size(arguments.model, variables))
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
