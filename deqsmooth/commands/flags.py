"""Flags as settings: a command line is parsed into the dataclass of a command's flags."""

from __future__ import annotations

import argparse
import re
import secrets
import sys
from collections.abc import Callable
from typing import Any

import tyro

Flat = tyro.conf.arg(name="")
"""Annotation of a dataclass whose fields are flags without its name as a prefix."""
_LIST = re.compile(r"[\d.]+(,[\d.]+)+")


def parse(arguments: type, prog: str, preset: Callable[[str], Any] | None = None) -> Any:
    """Parses the command line of this process.

    Lists of numbers may be written with commas, and `--seed random` takes a seed from the operating system.

    Args:
      arguments: the dataclass of the command's flags.
      prog: name of the command in its help.
      preset: value of `--preset` -> flags with these settings as defaults, which the other flags change; None for
        a command without presets.

    Returns:
      An instance of `arguments`.

    Raises:
      ValueError: a setting breaks its rule, or the preset is unknown.
      SystemExit: help was asked for (0), or a flag is unknown or malformed (2).
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
    """Value of one flag of this process, read before the others because it decides what they are."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(name, dest="value")
    return finder.parse_known_args()[0].value
