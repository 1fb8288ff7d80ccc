"""Files of JSON lines, read: the header of a run and its certificates, line by line.

The first line is the header of the run. Every other line ends with `chain`: the SHA-256 of the previous line's
chain and of the values of the line. The chain begins with the digest of the header. A line that was changed or
moved breaks it, and so does a missing line, except at the end of the file. An image without a certificate has a
line with its `index` and the `error`.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import json
import os
import pathlib
import tarfile
import types
import typing
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from deqsmooth.certificates import record
from deqsmooth.certificates.record import Certificate, Unreadable
from deqsmooth.statistics import bounds

_LARGEST_FILE = 2**31
_ARCHIVES = (".tar", ".tar.gz", ".tgz")

Path = str | os.PathLike[str]


class Line(NamedTuple):
    """A line of a file of certificates.

    Attributes:
      entry: what the line says.
      values: its JSON values, without the chain.
      chain: its place in the chain; None in schema 1.
    """

    entry: Certificate | Unreadable
    values: dict[str, Any]
    chain: str | None


class File(NamedTuple):
    """What a file of certificates holds.

    Attributes:
      header: its first line.
      lines: the others.
      is_whole: whether the last line ends; a killed run may leave one that does not.
    """

    header: dict[str, Any]
    lines: list[Line]
    is_whole: bool

    @property
    def certificates(self) -> list[Certificate]:
        """The certificates, in the order of the file."""
        return [line.entry for line in self.lines if isinstance(line.entry, Certificate)]

    @property
    def unreadable(self) -> list[Unreadable]:
        """The images that have no certificate because they could not be read."""
        done = {certificate.index for certificate in self.certificates}
        found = (line.entry for line in self.lines)
        return [entry for entry in found if isinstance(entry, Unreadable) and entry.index not in done]


def read(path: Path) -> tuple[dict[str, Any], list[Certificate]]:
    """Header and certificates of a file, which may be compressed (`.gz`).

    Raises:
      ValueError: the file cannot be read or is no file of certificates.
    """
    file = parse(path, text(path))
    return file.header, file.certificates


def text(path: Path) -> str:
    """Text of a file, decompressed if its name ends with `.gz`.

    Raises:
      ValueError: it cannot be read, is not UTF-8, or is larger than 2 GiB.
    """
    with _readable(path):
        open_file = gzip.open if str(path).endswith(".gz") else open
        with open_file(path, "rb") as file:
            return _decoded(file.read(_LARGEST_FILE + 1))


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every `.jsonl` file of an archive (`.tar.gz`), or of the file itself if it is no archive.

    Raises:
      ValueError: see `text`.
    """
    if not str(path).endswith(_ARCHIVES):
        yield str(path), text(path)
        return
    with _readable(path), tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".jsonl") else None
            if content is not None:
                yield f"{path}/{member.name}", _decoded(content.read(_LARGEST_FILE + 1))


def objects(name: Path, content: str) -> list[dict[str, Any]]:
    """The JSON object of every line of a text; `name` stands for the text in errors.

    Raises:
      ValueError: a line is no JSON object; says which.
    """
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError(f"it is {type(values).__name__}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}, line {number}, is no JSON object: {error}") from None
        found.append(values)
    return found


def parse(name: Path, content: str) -> File:
    """The text of a file of certificates, line by line; `name` stands for the file in errors.

    Raises:
      ValueError: it is no file of certificates; says which line.
    """
    found = objects(name, content)
    if not found:
        raise ValueError(f"{name} is empty; a certificate file begins with its header")
    header, *others = found
    schema = header.get("schema")
    if header.get("kind") != "header" or type(schema) is not int or not 1 <= schema <= record.SCHEMA:
        raise ValueError(
            f"{name}, line 1, is no line of a certificate file: its first line is no header of schema 1 to "
            f"{record.SCHEMA}"
        )
    lines = []
    for number, values in enumerate(others, 2):
        try:
            lines.append(_line(values, schema))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{name}, line {number}, is no line of a certificate file: {error}") from None
    return File(header, lines, content.endswith("\n"))


def link(chain: str, values: dict[str, Any]) -> str:
    """The chain after a line, from the chain before it and the line's values; both are SHA-256, hexadecimal."""
    return hashlib.sha256(f"{chain} {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


def same_run(name: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
    """Raises `ValueError` unless the header of a file is that of a run."""
    different = [key for key in sorted(found.keys() | header.keys()) if found.get(key) != header.get(key)]
    if different:
        key = different[0]
        raise ValueError(
            f"{name} was begun by another run: its {', '.join(different)} differ "
            f"({key} there: {json.dumps(found.get(key))}; here: {json.dumps(header.get(key))}); "
            "a file holds one run: give another --out, or the same settings to resume"
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns every error of reading a file into a `ValueError` that names it."""
    try:
        if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
            raise ValueError("it is no regular file")
        size = pathlib.Path(path).stat().st_size
        if size > _LARGEST_FILE:
            raise ValueError(f"it has {size:,} bytes; a file has at most {_LARGEST_FILE:,}")
        yield
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _decoded(content: bytes) -> str:
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"it has more than {_LARGEST_FILE:,} bytes")
    return content.decode()


def _line(values: dict[str, Any], schema: int) -> Line:
    chain = values.pop("chain", None)
    fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
    entry = Unreadable if "error" in fields else Certificate
    if schema < 3 and fields.get("bound") == bounds.PAIRED:
        _separate_pairs(fields)
    for name, (hint, kinds) in _kinds(entry).items():
        if name in fields and not any(_is_a(fields[name], kind) for kind in kinds):
            raise ValueError(f"{name} is {fields[name]!r}; it must be {hint}")
    return Line(entry(**fields), values, chain)


def _separate_pairs(fields: dict[str, Any]) -> None:
    """Gives pairs, which schemas 1 and 2 wrote in the fields of the audit, the fields that they have now."""
    for old, new in (("num_audit", "num_pairs"), ("mismatches", "lost"), ("alpha_audit", "alpha_pairs")):
        fields[new], fields[old] = fields[old], 0 if old != "alpha_audit" else 0.0


@functools.cache
def _kinds(entry: type) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The type of every field, and the types that it unites."""
    hints = typing.get_type_hints(entry)
    return {
        name: (hint, typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,))
        for name, hint in hints.items()
    }


def _is_a(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(x, typing.get_args(kind)[0]) for x in value)
    return type(value) in ((int, float) if kind is float else (kind,))
