"""The common part of every command: from a command line to an exit status.

Exit status: 0 success; 1 a check of the command failed; 2 bad input, or the machine lacks what the run needs
(memory, disk space, a device); 3 success, except for images that could not be read; 130 interrupted (SIGINT);
141 the reader of the output has closed it (SIGPIPE), as in `deqsmooth-verify FILE | head -1`; 143 terminated
(SIGTERM).
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import rich.console

from deqsmooth.commands import flags, signals

Flags = TypeVar("Flags", bound=flags.Command)
_ESCAPED = "deqsmooth-escaped"
_CLOSED = 128 + signal.SIGPIPE
_TERMINATED = 128 + signal.SIGTERM


class _Console(rich.console.Console):
    """A console that leaves a closed pipe to the command."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def run(
    arguments: type[Flags],
    command: Callable[[Flags, rich.console.Console], int],
    *,
    prog: str,
    preset: Callable[[str], Flags] | None = None,
    uses_jax: bool = True,
    resumes: str | None = None,
) -> int:
    """Parses the command line of this process, runs a command and reports errors.

    JAX is imported after the flags have been parsed, so that `--help` and wrong flags return quickly.

    Args:
      arguments: dataclass of the command's flags.
      command: (flags, console) -> exit status.
      prog: name of the command in its help text.
      preset: see `flags.parse`.
      uses_jax: whether the command uses JAX; if so, its devices are set up first.
      resumes: what resumes the command after an interruption, such as `the same command`; None if nothing does.

    Returns:
      The exit status.

    Raises:
      SystemExit: see `flags.parse`.
    """
    _prepare_streams()
    try:
        status = _status(arguments, command, prog, preset, uses_jax, resumes)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return _CLOSED
    except OSError as error:
        _discard_output()
        return _report(_sentence(error))
    return status


def _status(
    arguments: type[Flags],
    command: Callable[[Flags, rich.console.Console], int],
    prog: str,
    preset: Callable[[str], Flags] | None,
    uses_jax: bool,
    resumes: str | None,
) -> int:
    """The exit status of a command, whose errors are reported in a sentence."""
    console = _Console(soft_wrap=not sys.stdout.isatty())
    try:
        given = flags.parse(arguments, prog, preset)
        with signals.handled():
            if uses_jax:
                from deqsmooth import devices

                devices.start(distributed=getattr(given, "distributed", False))
            return command(given, console)
    except ValueError as error:
        return _report(str(error))
    except MemoryError:
        return _report("this machine has too little memory")
    except RuntimeError as error:
        if not _is_out_of_device_memory(error):
            raise
        status = _report(f"the device has too little memory: {str(error).splitlines()[0]}")
        print("certification: try --block auto; training: try --accumulation 2", file=sys.stderr)
        return status
    except BrokenPipeError:
        raise
    except OSError as error:
        return _report(_sentence(error))
    except KeyboardInterrupt:
        return _ended("interrupted", resumes, 128 + signal.SIGINT)
    except SystemExit as end:
        if end.code != _TERMINATED:
            raise
        return _ended("terminated", resumes, _TERMINATED)


def _report(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else "cannot write: " if error.errno == errno.ENOSPC else ""
    return f"{where}{error.strerror or error}"


def _ended(word: str, resumes: str | None, status: int) -> int:
    print(word if resumes is None else f"{word}; {resumes} resumes the run", file=sys.stderr)
    return status


def _is_out_of_device_memory(error: RuntimeError) -> bool:
    # An error of a device comes from JAX, which is then loaded.
    if "jax" not in sys.modules:
        return False
    from deqsmooth import devices

    return devices.is_out_of_memory(error)


def _prepare_streams() -> None:
    """Lets every text be printed: also where a stream is closed, or its encoding lacks a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            codecs.register_error(_ESCAPED, _escaped)
            stream.reconfigure(errors=_ESCAPED)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encodes the bytes of a file's name as they are, and any other character as an escape sequence."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def _discard_output() -> None:
    """Discards what cannot be printed, which Python would try again at exit, and fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
