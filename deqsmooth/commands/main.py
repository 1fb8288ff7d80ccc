"""The common part of every command: from a command line to an exit status.

Exit status: 0 success; 1 a check of the command failed; 2 bad input; 3 success, except for images that could not
be read; 130 interrupted (SIGINT); 143 terminated (SIGTERM).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import rich.console

from deqsmooth.commands import flags

Flags = TypeVar("Flags")


def run(
    arguments: type[Flags],
    command: Callable[[Flags, rich.console.Console], int],
    *,
    prog: str,
    preset: Callable[[str], Flags] | None = None,
    uses_jax: bool = True,
) -> int:
    """Parses the command line of this process, runs a command and reports errors.

    JAX is imported after the flags have been parsed, so that `--help` and wrong flags return quickly.

    Args:
      arguments: dataclass of the command's flags.
      command: (flags, console) -> exit status.
      prog: name of the command in its help text.
      preset: see `flags.parse`.
      uses_jax: whether the command uses JAX; if so, its devices are set up first.

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
        print("certification: try --block auto; training: try --accumulation 2", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes the run", file=sys.stderr)
        return 130
