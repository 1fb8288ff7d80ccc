"""The help of a command: its flags in groups, those that most need or all."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from deqsmooth.commands import listing

_WIDEST = 110
_INDENT = 26
"""Column in which the texts of flags begin."""


def page(prog: str, about: str, flags: Sequence[listing.Flag], groups: listing.Groups, *, full: bool) -> str:
    """Returns the help of a command.

    Args:
      prog: name of the command.
      about: what it does.
      flags: its flags.
      groups: headings and the flags below each. Flags without a heading are shown with all flags, at the end.
      full: whether all flags are shown.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    own = " ".join(_positional(flag) for flag in flags if flag.is_positional)
    lines = [" ".join(filter(None, ("usage:", prog, own, "[flags]")))]
    for paragraph in inspect.cleandoc(about).partition("\nAttributes:")[0].split("\n\n"):
        lines += ["", *textwrap.wrap(paragraph, width)]
    num_shown = 0
    for heading, members in _headings(flags, groups, full):
        num_shown += len(members)
        lines += ["", heading]
        for flag in members:
            lines += _entry(flag, width)
    hidden = len(flags) - num_shown
    if hidden:
        lines += ["", f"--help-all shows {hidden} more flags"]
    return "\n".join(lines)


def _headings(
    flags: Sequence[listing.Flag], groups: listing.Groups, full: bool
) -> Iterator[tuple[str, list[listing.Flag]]]:
    """The headings that are shown, each with its flags in the order of the groups."""
    left = list(flags)
    for heading, (common, others) in groups.items():
        members = [flag for name in f"{common} {others}".split() for flag in _take(left, name)]
        shown = members if full else [flag for flag in members if flag.field in common.split()]
        if shown:
            yield heading, shown
    if full and left:
        yield "other", left


def _take(left: list[listing.Flag], name: str) -> Iterable[listing.Flag]:
    found = [flag for flag in left if flag.field == name]
    left[:] = [flag for flag in left if flag.field != name]
    return found


def _positional(flag: listing.Flag) -> str:
    word = flag.name.upper()
    if flag.is_list:
        return f"{word.removesuffix('S')} [{word.removesuffix('S')} ...]"
    return word if flag.is_required else f"[{word}]"


def _entry(flag: listing.Flag, width: int) -> list[str]:
    """The lines of a flag."""
    name = _positional(flag) if flag.is_positional else f"{flag.name} {flag.values}".rstrip()
    notes = "(required)" if flag.is_required and not flag.is_positional else ""
    if flag.default:
        notes = f"(default: {flag.default})"
    indent = " " * _INDENT
    lines = textwrap.wrap(
        f"{flag.text} {notes}".strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    if lines and len(name) + 4 <= _INDENT:
        lines[0] = f"  {name}".ljust(_INDENT) + lines[0][_INDENT:]
        return lines
    return [f"  {name}", *lines]
