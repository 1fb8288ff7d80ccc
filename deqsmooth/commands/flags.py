"""Command lines: from the arguments of this process to the dataclass of a command's flags."""

from __future__ import annotations

import argparse
import re
import secrets
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

Flags = TypeVar("Flags")
Flat = tyro.conf.arg(name="")
"""Annotation of a field whose own fields become flags without the field's name as a prefix."""
_LIST = re.compile(r"[\d.]+(,[\d.]+)+")


def parse(arguments: type[Flags], prog: str, preset: Callable[[str], Flags] | None = None) -> Flags:
    """Parses the command line of this process.

    Numbers of a list may be separated by commas, and `--seed random` takes a seed from the operating system.

    Args:
      arguments: dataclass of the command's flags.
      prog: name of the command in its help text.
      preset: name of a preset -> flags with its settings, which replace the defaults; None for a command without
        presets.

    Returns:
      An instance of `arguments`.

    Raises:
      ValueError: a setting is invalid, or the preset is unknown.
      SystemExit: after `--help` (status 0), or if a flag is unknown or malformed (status 2).
    """
    words = [part for word in sys.argv[1:] for part in (word.split(",") if _LIST.fullmatch(word) else [word])]
    for place, word in enumerate(words[:-1]):
        if word == "--seed" and words[place + 1] == "random":
            words[place + 1] = str(secrets.randbelow(2**32))
    name = None if preset is None else value_of("--preset")
    if preset is None or name is None:
        return tyro.cli(arguments, prog=prog, args=words)
    return tyro.cli(arguments, prog=prog, args=words, default=preset(name))


def value_of(name: str) -> str | None:
    """Returns the value of one flag of this process without parsing the others; None if it is not given."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(name, dest="value")
    return finder.parse_known_args()[0].value
