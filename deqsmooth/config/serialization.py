"""Settings as JSON values and back, and their digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from deqsmooth.config import architecture, checks
from deqsmooth.config.fields import LATER

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

# Settings that earlier versions wrote and this version no longer has, by kind of settings. The value given here
# means the same as leaving the setting out; no other value can be read.
RETIRED: dict[str, dict[str, Any]] = {
    "Training": {"divide_state": False},
    "StartTraining": {"divide_state": False},
    "Smoothing": {"warmup_solver": None, "warmup_interval": None},
}


def to_json(settings: DataclassInstance) -> dict[str, Any]:
    """Settings as plain JSON values; a model carries its family under `name`. See also `LATER`."""
    encoded = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == field.default and field.metadata == LATER:
            continue
        is_settings = dataclasses.is_dataclass(value) and not isinstance(value, type)
        encoded[field.name] = to_json(value) if is_settings else value
    for name, kind in architecture.MODELS.items():
        if type(settings) is kind:
            encoded["name"] = name
    return json.loads(json.dumps(encoded))


def from_json(kind: type[Settings], encoded: dict[str, Any]) -> Settings:
    """Settings of a kind from what `to_json` gave.

    Files of older versions can be read: a missing setting takes its default, and a setting of `RETIRED` with the
    value given there is dropped.

    Raises:
      ValueError: a name is unknown, a retired setting has another value, or a value breaks its rule.
    """
    hints, values = typing.get_type_hints(kind), dict(encoded)
    if kind in architecture.MODELS.values():
        values.pop("name", None)
    check_retired(kind, values)
    values = without_retired(kind, values)
    unknown = values.keys() - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} has no settings {sorted(unknown)}")
    for name, value in values.items():
        if name == "model" and isinstance(value, dict):
            values[name] = model_from_json(value)
        elif dataclasses.is_dataclass(hints.get(name)) and isinstance(value, dict):
            values[name] = from_json(hints[name], value)
        else:
            values[name] = _decode(f"{kind.__name__}.{name}", value, hints[name])
    return kind(**values)


def without_retired(kind: type, encoded: dict[str, Any]) -> dict[str, Any]:
    """Encoded settings without those of `RETIRED`, whatever their values; for verification, which needs none."""
    return {name: value for name, value in encoded.items() if name not in RETIRED.get(kind.__name__, {})}


def check_retired(kind: type, encoded: dict[str, Any]) -> None:
    """Raises `ValueError` if a setting of `RETIRED` has another value than its only remaining one."""
    for name, value in RETIRED.get(kind.__name__, {}).items():
        if encoded.get(name, value) != value:
            raise ValueError(f"{name} is {encoded[name]}; this version no longer has that setting")


def model_from_json(encoded: dict[str, Any]) -> architecture.Model:
    """The size of a model, whose family stands under `name`; see `from_json`."""
    checks.known("model", str(encoded.get("name")), architecture.MODELS)
    return from_json(architecture.MODELS[encoded["name"]], encoded)


def _decode(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    allowed = tuple(option for option in options if isinstance(option, type))
    if float in allowed and type(value) is int:
        return float(value)
    if not isinstance(value, allowed):
        raise ValueError(f"{name} is {value!r}; it must be {hint}")
    return value


def digest(encoded: dict[str, Any]) -> str:
    """SHA-256 of JSON values in canonical form, hexadecimal."""
    return hashlib.sha256(json.dumps(encoded, sort_keys=True).encode()).hexdigest()
