"""Checks of user input: each raises `ValueError` with the name, the value and the rule that it breaks."""

from __future__ import annotations

import difflib
import math
import os
import zipfile
from collections.abc import Iterable


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


def positive(settings: object, *names: str) -> None:
    """Raises `ValueError` unless these attributes of settings are at least 1."""
    for name in names:
        holds(getattr(settings, name) >= 1, name, getattr(settings, name), "at least 1")


def finite_positive(name: str, value: float) -> None:
    """Raises `ValueError` unless the value is a finite number above 0."""
    holds(0 < value < math.inf, name, value, "a finite positive number")


def unpacks_to(path: str | os.PathLike[str], largest: int) -> None:
    """Raises `ValueError` if a zip archive, such as an `.npz` file, unpacks to more bytes than `largest`.

    Raises:
      OSError: the file cannot be read.
      zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    holds(size <= largest, f"size of {path}", f"{size:,} bytes, unpacked", f"at most {largest:,}")
