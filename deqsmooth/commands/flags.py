"""Command lines: from the arguments of this process to the dataclass of a command's flags."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import tyro

from deqsmooth.commands import help, listing
from deqsmooth.config import checks


class Command(Protocol):
    """The dataclass of a command's flags; its docstring is the help of the command.

    Attributes:
      GROUPS: the flags in the help, by their headings.
    """

    GROUPS: ClassVar[listing.Groups]
    __dataclass_fields__: ClassVar[dict[str, Any]]


Flags = TypeVar("Flags", bound=Command)
_NUMBERS = {int: "a whole number", float: "a number"}


def parse(arguments: type[Flags], prog: str, preset: Callable[[str], Flags] | None = None) -> Flags:
    """Parses the command line of this process.

    Numbers of a list may be separated by commas, and `--seed random` takes a seed from the operating system.
    `--help` prints the flags that most need, and `--help-all` all flags.

    Args:
      arguments: dataclass of the command's flags.
      prog: name of the command in its help text.
      preset: name of a preset -> flags with its settings, which replace the defaults; None for a command without
        presets.

    Returns:
      An instance of `arguments`.

    Raises:
      ValueError: a setting is invalid, or the preset is unknown.
      SystemExit: after `--help` (status 0), or if a flag is unknown or has no value (status 2).
    """
    given = sys.argv[1:]
    name = None if preset is None else value_of("--preset")
    default = None if preset is None or name is None else preset(name)
    known = list(listing.flags(arguments, default))
    asked = {"-h", "--help", "--help-all"} & set(given)
    if asked:
        about = arguments.__doc__ or ""
        print(help.page(prog, about, known, arguments.GROUPS, full="--help-all" in asked), flush=True)
        raise SystemExit(0)
    words = list(_words(given, {flag.name: flag for flag in known}))
    return tyro.cli(_identity(arguments, default), prog=prog, args=words)


def _identity(arguments: type[Flags], default: Flags | None) -> Callable[[Flags], Flags]:
    """A function that returns its argument; tyro leaves the errors of its dataclass to the caller."""

    def identity(given: Any) -> Any:
        return given

    identity.__annotations__["given"] = Annotated[arguments, listing.Flat]
    if default is not None:
        identity.__defaults__ = (default,)
    return identity


def value_of(name: str) -> str | None:
    """Returns the value of one flag of this process without parsing the others; None if it is not given."""
    value, words = None, sys.argv[1:]
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith(f"{name}="):
            value = word.partition("=")[2]
        elif word == name and not following.startswith("--"):
            value = following
    return value


def _words(given: Sequence[str], known: Mapping[str, listing.Flag]) -> Iterator[str]:
    """The arguments with lists of numbers split at their commas and a random seed drawn; checks every number."""
    flag: listing.Flag | None = None
    for word in given:
        value = word
        if word.startswith("--"):
            name, is_given, value = word.partition("=")
            flag = known.get(name.replace("_", "-"))
            if not is_given or flag is None or flag.number is None:
                yield word
                continue
            yield name
        if flag is None or flag.number is None:
            yield value
            continue
        if flag.name == "--seed" and value == "random":
            value = str(secrets.randbelow(2**32))
        for part in value.split(",") if flag.is_list else (value,):
            rule = " or ".join((_NUMBERS[flag.number], *flag.words))
            checks.holds(part in (*flag.words, "None") or _is_number(part, flag.number), flag.name, value, rule)
            yield part
        if not flag.is_list:
            flag = None


def _is_number(word: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True
