"""The flags of a command as a list: names, values, defaults and help texts, read from its dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import tyro

Flat = tyro.conf.arg(name="")
"""Annotation of a field whose own fields become flags without the field's name as a prefix."""
Groups = Mapping[str, tuple[str, str]]
"""Heading in the help -> names of the fields that `--help` shows below it, and of those that only `--help-all`
shows, both separated by spaces. The name of a nested dataclass stands for all of its fields."""
_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]
_VALUES: dict[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", pathlib.Path: "PATH"}
_ATTRIBUTE = re.compile(r"^  (\w+): (.+(?:\n    .+)*)", re.MULTILINE)


class Flag(NamedTuple):
    """A flag or a positional argument.

    Attributes:
      name: `--max-images`; of a positional argument the name of its field.
      field: name of the field; of a nested dataclass, the name that the dataclass has in the command's one.
      values: what the help shows for its values; empty for a switch.
      number: int or float if its values are numbers; otherwise None.
      words: values that are accepted beside numbers.
      is_list: whether it takes several values.
      is_required: whether it must be given.
      default: the default value as text; empty if there is none to show.
      text: what it means.
    """

    name: str
    field: str
    values: str
    number: type[int] | type[float] | None
    words: tuple[str, ...]
    is_list: bool
    is_required: bool
    default: str
    text: str

    @property
    def is_positional(self) -> bool:
        """Whether its value is given without its name."""
        return not self.name.startswith("--")


def flags(arguments: type, given: object = None) -> Iterator[Flag]:
    """Yields the flags of a command.

    Args:
      arguments: dataclass of the flags; every field is described in an `Attributes:` section.
      given: instance whose values are the defaults; None for the defaults of the dataclass.
    """
    return _flags(arguments, given, "", "")


def _flags(arguments: type, given: object, prefix: str, group: str) -> Iterator[Flag]:
    hints = typing.get_type_hints(arguments, include_extras=True)
    texts = _texts(arguments)
    for field in dataclasses.fields(arguments):
        kind, marks = _unwrapped(hints[field.name])
        default = _default(field) if given is None else getattr(given, field.name)
        nested = type(default) if dataclasses.is_dataclass(default) else kind
        if dataclasses.is_dataclass(nested):
            below = prefix if Flat in marks else f"{prefix}{field.name}."
            values = default if isinstance(default, nested) else None
            yield from _flags(nested, values, below, "" if Flat in marks else group or field.name)
            continue
        name = field.name if _POSITIONAL in marks else f"--{prefix}{field.name}".replace("_", "-")
        is_required = default is dataclasses.MISSING or default in (tyro.MISSING, tyro.MISSING_NONPROP)
        is_shown = not (is_required or default is None or default is False or default == ())
        shown = _text(default) if is_shown else ""
        yield Flag(name, group or field.name, *_values(kind), is_required, shown, texts.get(field.name, ""))


def _texts(arguments: type) -> dict[str, str]:
    """Help texts of the fields, those of base classes included."""
    found: dict[str, str] = {}
    for one in reversed(arguments.__mro__):
        attributes = inspect.cleandoc(one.__doc__ or "").partition("\nAttributes:\n")[2]
        found |= {match[1]: " ".join(match[2].split()) for match in _ATTRIBUTE.finditer(attributes)}
    return found


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its annotations, and the annotations."""
    if typing.get_origin(hint) is Annotated:
        kind, *marks = typing.get_args(hint)
        return kind, tuple(marks)
    return hint, ()


def _default(field: dataclasses.Field[Any]) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _values(kind: Any) -> tuple[str, type[int] | type[float] | None, tuple[str, ...], bool]:
    """What the help shows for the values of a type; whether they are numbers, also words, and several."""
    if kind is bool:
        return "", None, (), False
    options = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    words = tuple(
        word for one in options if typing.get_origin(one) is Literal for word in map(str, typing.get_args(one))
    )
    kinds = [one for one in options if typing.get_origin(one) is not Literal and one is not types.NoneType]
    is_list = any(typing.get_origin(one) is tuple for one in kinds)
    # A list has one type of entries, or a fixed number of them.
    entries = [entry for one in kinds for entry in (typing.get_args(one) if is_list else (one,))]
    number = next((one for one in (int, float) if one in entries), None)
    shown = ("," if number else " ").join("..." if entry is Ellipsis else _VALUES[entry] for entry in entries)
    return "|".join(filter(None, (shown, *words))), number, words, is_list
