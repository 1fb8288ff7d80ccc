"""Checks of user input: each raises `ValueError` with the name, the value and the rule that it breaks."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import reprlib
import types
import typing
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def known(kind: str, name: str, names: Iterable[str]) -> None:
    """Raises `ValueError` with the nearest known name unless `name` is one of `names`."""
    names = tuple(names)
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(names)}{hint}")


def holds(condition: bool, name: str, value: object, rule: str) -> None:
    """Raises `ValueError` with name, value and rule unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} is {value}; it must be {rule}")


def kind(name: str, value: object, kinds: type, rule: str) -> None:
    """Raises `ValueError` unless a value is of a type; `rule` says what to give, as in `holds`."""
    holds(isinstance(value, kinds), name, f"of type {type(value).__name__}", rule)


def positive(settings: object, *names: str) -> None:
    """Raises `ValueError` unless these attributes of settings are at least 1."""
    for name in names:
        holds(getattr(settings, name) >= 1, name, getattr(settings, name), "at least 1")


def finite_positive(name: str, value: float) -> None:
    """Raises `ValueError` unless the value is a finite number above 0."""
    holds(0 < value < math.inf, name, value, "a finite positive number")


def typed(settings: DataclassInstance) -> None:
    """Gives the attributes of settings the types that they are declared with.

    Numbers of numpy and JAX become those of Python, integers become floating point and lists become tuples where
    these are declared.

    Raises:
      ValueError: an attribute has another type.
    """
    for name, hint in _hints(type(settings)).items():
        object.__setattr__(settings, name, _as(name, getattr(settings, name), hint))


@functools.cache
def _hints(kind: type[DataclassInstance]) -> dict[str, Any]:
    """The types of the fields of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _as(name: str, value: Any, hint: Any) -> Any:
    """A value as the type of a hint, or of one of the types of a union."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    for option in options:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal and isinstance(value, str) and value in inner:
            return value
        if origin is tuple and isinstance(value, tuple | list):
            return tuple(_as(f"an entry of {name}", entry, inner[0]) for entry in value)
        if origin is None and type(value) is int and option is float:
            return float(value)
        if origin is None and isinstance(value, option) and (option is bool or type(value) is not bool):
            return value
    rule = " or ".join(_kind(option) for option in options)
    raise ValueError(f"{name} is {reprlib.repr(value)}; it must be {rule}")


def _kind(option: Any) -> str:
    """A type in words."""
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(option)))
    if typing.get_origin(option) is tuple:
        return f"a sequence of which each entry is {_kind(typing.get_args(option)[0])}"
    words = {int: "an integer", float: "a number", str: "a string", bool: "True or False", types.NoneType: "None"}
    return words.get(option, f"a {option.__name__}")


def unpacks_to(path: str | os.PathLike[str], largest: int) -> None:
    """Raises `ValueError` if a zip archive, such as an `.npz` file, unpacks to more bytes than `largest`.

    Raises:
      OSError: the file cannot be read.
      zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    holds(size <= largest, f"size of {path}", f"{size:,} bytes, unpacked", f"at most {largest:,}")


def images(shape: tuple[int, ...], num_classes: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raises `ValueError` unless the part of a model's size that describes images keeps its rules."""
    holds(len(shape) == 3 and min(shape) > 0, "image_shape", shape, "(height, width, channels), each at least 1")
    holds(num_classes >= 2, "num_classes", num_classes, "at least 2")
    for name, value in (("mean", mean), ("std", std)):
        rule = f"one number, or one for each of the {shape[2]} channels"
        holds(len(value) in (1, shape[2]) and all(map(math.isfinite, value)), name, value, rule)
    holds(min(std) > 0, "std", std, "positive")
