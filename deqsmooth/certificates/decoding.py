"""Decoding: from a line of JSON to values that every reader understands the same way, and to a typed record."""

from __future__ import annotations

import collections
import functools
import inspect
import json
import math
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def values(line: str) -> dict[str, Any]:
    """The entries of the JSON object of a line.

    Raises:
      json.JSONDecodeError: it is no JSON.
      RecursionError: it is nested too deeply.
      ValueError: it is no object, has a key twice, or a number that is not finite or has more than 64 bits.
    """
    found = _DECODER.decode(line)
    if not isinstance(found, dict):
        raise ValueError(f"is no JSON object: it is of type {type(found).__name__}")
    return found


def record(kind: type[Record], values: dict[str, Any]) -> Record:
    """A record of a kind from its JSON values, whose names and types must be those of its fields.

    Args:
      kind: dataclass of the record; lists become tuples.
      values: by the names of the fields; those with a default may be left out.

    Raises:
      ValueError: a name is missing or unknown, or a value has another type.
    """
    fields = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
    hints, required = _fields(kind)
    missing, unknown = [x for x in required if x not in fields], [x for x in fields if x not in hints]
    if missing or unknown:
        problems = [f"{', '.join(names)} missing" for names in [missing] if names]
        problems += [f"{', '.join(names)} unknown" for names in [unknown] if names]
        raise ValueError(f"its entries are not those of a {kind.__name__.lower()}: {'; '.join(problems)}")
    for name, value in fields.items():
        hint = hints[name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not any(_is_a(value, one) for one in kinds):
            raise ValueError(f"{name} is {value!r}; it must be {getattr(hint, '__name__', hint)}")
    return kind(**fields)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((twice, _),) = collections.Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"has the key {twice!r} twice")
    return values


def _number(kind: type[int] | type[float], literal: str) -> int | float:
    value = kind(literal) if len(literal) < 100 else math.inf
    if not -(2**63) <= value < 2**63 and not (kind is float and math.isfinite(value)):
        raise ValueError(f"has the number {literal[:20]}, which is not finite or has more than 64 bits")
    return value


def _no_number(literal: str) -> None:
    raise ValueError(f"has the value {literal}, which is no finite number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_no_number,
    parse_int=functools.partial(_number, int),
    parse_float=functools.partial(_number, float),
)


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], list[str]]:
    """The type of every field of a record, and the fields that have no default."""
    parameters = inspect.signature(kind).parameters
    return typing.get_type_hints(kind), [name for name, x in parameters.items() if x.default is x.empty]


def _is_a(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(x, typing.get_args(kind)[0]) for x in value)
    return type(value) in ((int, float) if kind is float else (kind,))
