"""How every command runs: it parses its flags, calls its `run`, and turns errors into an exit status.

Exit status: 0 done, 1 what the command checks does not hold, 2 bad input, 3 done except for images that could not
be read, 130 interrupted (SIGINT), 143 terminated (SIGTERM).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rich.console

from deqsmooth.commands import flags


def run(
    arguments: type,
    command: Callable[[Any, rich.console.Console], int],
    *,
    prog: str,
    preset: Callable[[str], Any] | None = None,
    uses_jax: bool = True,
) -> int:
    """Runs a command with the flags of this process.

    JAX and the rooms that use it are imported after the flags were parsed, so that `--help` and a wrong flag
    answer at once.

    Args:
      arguments: the dataclass of the command's flags.
      command: (flags, console) -> exit status.
      prog: name of the command in its help.
      preset: see `flags.parse`.
      uses_jax: whether devices are set up first.

    Returns:
      The exit status.
    """
    console = rich.console.Console(soft_wrap=not sys.stdout.isatty())
    try:
        given = flags.parse(arguments, prog, preset)
        if uses_jax:
            from deqsmooth import devices

            devices.start()
            if getattr(given, "distributed", False):
                devices.connect()
        return command(given, console)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not uses_jax or not devices.is_out_of_memory(error):
            raise
        print(f"error: the device has too little memory: {str(error).splitlines()[0]}", file=sys.stderr)
        print("to certify, --block auto finds what fits; to train, try --accumulation 2", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
