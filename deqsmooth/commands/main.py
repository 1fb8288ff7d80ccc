"""The commands: flags to configuration, one call, and progress to look at.

Exit status: 0 done, 1 what the command checks does not hold, 2 bad input, 3 done but for images that could not be
read, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rich.console

from deqsmooth import commands, devices
from deqsmooth.commands import flags
from deqsmooth.config import checks, presets


def certify() -> int:
    """Command `deqsmooth-certify`; returns the exit status."""
    return _run(flags.Certify, commands.certify.run, lambda name: {"smoothing": _named(name, presets.SMOOTHING)})


def train() -> int:
    """Command `deqsmooth-train`; returns the exit status."""
    if flags.flag("--phase") == "start":
        starts = presets.START_TRAINING
        return _run(flags.TrainStart, commands.train.run_start, lambda name: {"settings": _named(name, starts)})
    return _run(flags.Train, commands.train.run, lambda name: {"settings": _named(name, presets.TRAINING)})


def plan() -> int:
    """Command `deqsmooth-plan`; returns the exit status, 1 if the radius cannot be certified."""
    return _run(flags.Plan, commands.plan.run)


def recertify() -> int:
    """Command `deqsmooth-recertify`; returns the exit status."""
    return _run(flags.Recertify, commands.recertify.run)


def attack() -> int:
    """Command `deqsmooth-attack`; returns the exit status, 1 if a certificate is refuted."""
    return _run(flags.Attack, commands.attack.run)


def reproduce() -> int:
    """Command `deqsmooth-reproduce`; returns the exit status."""
    return _run(flags.Reproduce, commands.reproduce.run)


def convert() -> int:
    """Command `deqsmooth-convert`; returns the exit status, 1 if the check fails."""
    return _run(flags.Convert, commands.convert.run, lambda name: {"model": _named(name, presets.MODELS)})


def _named(name: str, known: dict[str, Any]) -> Any:
    checks.known("preset", name, known)
    return known[name]


def _run(
    arguments: type, command: Callable[..., int], preset: Callable[[str], dict[str, Any]] | None = None
) -> int:
    console = rich.console.Console(soft_wrap=not sys.stdout.isatty())
    try:
        given = flags.parse(arguments, preset)
        devices.start()
        if getattr(given, "distributed", False):
            devices.connect()
        return command(given, console)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not devices.is_out_of_memory(error):
            raise
        print(f"error: the device has too little memory: {str(error).splitlines()[0]}", file=sys.stderr)
        print(
            "to certify, --block auto finds what fits; to train, try --accumulation 2",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
