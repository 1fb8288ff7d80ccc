"""Files of JSON lines: certificates and their header, read line by line and appended line by line.

The first line is the header of the run. A line of a certificate ends with `chain`: the SHA-256 of the chain before
it and of the line itself. The chain begins with the digest of the header, so that a line that was changed, moved
or taken out breaks it. An image without a certificate has a line with its `index` and the `error`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
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
from collections.abc import Iterable, Iterator
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


class Lines:
    """Appends records to a file, each on disk before the next is begun; use as a context manager.

    A file that does not exist is made, with the header. One that exists must have the same header; its records are
    in `records`, and a last line that a killed run left unfinished is cut off. While one process writes, no other
    can.

    Attributes:
      records: that the file already holds, in its order.

    Raises:
      ValueError: the file has another header or is none of its kind, another process writes to it, or it cannot be
        written, or was removed or replaced while it was written.
    """

    records: list[dict[str, Any]]

    def __init__(self, path: Path, header: dict[str, Any]):
        self._path = pathlib.Path(path)
        self._header = json.loads(json.dumps(header))
        self.records = []
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise ValueError(f"cannot write {self._path}: {error.strerror}") from None
        try:
            self._lock()
            self._file.seek(0)
            content = self._file.read()
            complete = content[: content.rfind(b"\n") + 1]
            if complete:
                self._load(complete.decode())
            self._file.truncate(len(complete))
            if not complete:
                self.append(self._header)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _load(self, content: str) -> None:
        header, *self.records = objects(self._path, content)
        same_run(self._path, header, self._header)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self._path} is being written by another process; give another --out") from None
        except OSError as error:
            raise ValueError(f"cannot lock {self._path}: {error.strerror}") from None

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def append(self, values: dict[str, Any]) -> None:
        """Appends a line and waits until it is on disk."""
        left = json.dumps(values, allow_nan=False).encode() + b"\n"
        if not self._is_in_place():
            raise ValueError(f"{self._path} was removed or replaced while it was written; the run cannot go on")
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ValueError(
                f"cannot write {self._path}: {error.strerror}; every line before is whole, and the same command "
                "goes on from there"
            ) from None


class Writer(Lines):
    """Appends certificates to a file; see `Lines`.

    Attributes:
      done: certificates that the file holds, in its order.
    """

    def __init__(self, path: Path, header: dict[str, Any]):
        self.done: list[Certificate] = []
        self._unreadable: set[Unreadable] = set()
        self._chain: str = header["sha256"]
        super().__init__(path, header)

    def __enter__(self) -> Writer:
        return self

    def _load(self, content: str) -> None:
        file = parse(self._path, content)
        same_run(self._path, file.header, self._header)
        self.done, self._unreadable = file.certificates, set(file.unreadable)
        self._chain = (file.lines[-1].chain if file.lines else None) or self._chain

    def left(self, indices: Iterable[int]) -> list[int]:
        """Those of some images that have no certificate yet."""
        done = {certificate.index for certificate in self.done}
        return [index for index in indices if index not in done]

    def write(self, entry: Certificate | Unreadable) -> None:
        """Appends a certificate, or an image without one if it has no line yet, and waits until it is on disk."""
        if isinstance(entry, Unreadable):
            if entry in self._unreadable:
                return
            self._unreadable.add(entry)
        self.write_values(dataclasses.asdict(entry))
        if isinstance(entry, Certificate):
            self.done.append(entry)

    def write_values(self, values: dict[str, Any]) -> None:
        """Appends the values of a line, and its chain."""
        self._chain = link(self._chain, values)
        self.append({**values, "chain": self._chain})


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns every error of reading a file into a `ValueError` that names it."""
    try:
        if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
            raise ValueError("it is no regular file")
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
