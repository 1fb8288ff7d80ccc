"""Command `deqsmooth-convert`: a PyTorch checkpoint to a model."""

from __future__ import annotations

import sys

import rich.console

from deqsmooth.commands import flags
from deqsmooth.models import checkpoints, parity, pytorch
from deqsmooth.reports import terminal


def run(arguments: flags.Convert, console: rich.console.Console) -> int:
    """Converts, checks if asked to, and saves."""
    checkpoints.check_place(arguments.out)
    variables = pytorch.convert(pytorch.read(arguments.file), arguments.model)
    failed = []
    if arguments.check is not None:
        found = parity.compare(variables, arguments.model, pytorch.read(arguments.check))
        console.print(terminal.comparisons(found))
        failed = [comparison.quantity for comparison in found if not comparison.passed]
    if failed:
        print(f"error: {len(failed)} quantities beyond their limit: {', '.join(failed)}", file=sys.stderr)
        return 1
    checkpoints.save(arguments.out, variables, arguments.model)
    console.print(f"model: {arguments.out}")
    return 0
