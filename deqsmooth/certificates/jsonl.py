"""Files of JSON lines, read: the header of a run and its certificates, line by line.

The first line is the header of the run. Every other line ends with `chain`: the SHA-256 of the previous line's
chain and of the values of the line. The chain begins with the digest of the header. A line that was changed or
moved breaks it, and so does a missing line, except at the end of the file. Plan and end lines show this, see
`plan`. An image without a certificate has a line with its `index` and the `error`.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import tarfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from deqsmooth.certificates import decoding, plan, record
from deqsmooth.certificates.plan import End, Plan
from deqsmooth.certificates.record import Certificate, Unreadable
from deqsmooth.statistics import bounds

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

_LARGEST_FILE = 2**31
_ARCHIVES = (".tar", ".tar.gz", ".tgz")

Path = str | os.PathLike[str]
Entry = Certificate | Unreadable | Plan | End
"""What a line after the header says."""

CUT_OFF = "a kill or a full disk does that, the lines before are whole, and the same command resumes the run"
"""What a message says of a last line without an end."""
RULE = "a run goes on only in a file that verifies: give another --out"
"""What a message says of a file with differences in which a run is to go on."""


class Line(NamedTuple):
    """A line of a file of certificates.

    Attributes:
      entry: what the line says.
      values: its JSON values, without the chain.
      chain: its place in the chain; None in schema 1.
    """

    entry: Entry
    values: dict[str, Any]
    chain: str | None


class File(NamedTuple):
    """What a file of certificates holds.

    Attributes:
      header: its first line.
      lines: the others; a last line that was cut off, by a kill or a full disk, is not among them.
      is_whole: whether no line was cut off.
    """

    header: dict[str, Any]
    lines: list[Line]
    is_whole: bool

    @property
    def plans(self) -> list[Plan]:
        """The plans, in the order of the file. A run that was extended has several."""
        return [line.entry for line in self.lines if isinstance(line.entry, Plan)]

    @property
    def certificates(self) -> list[Certificate]:
        """The certificates, in the order of the file."""
        return [line.entry for line in self.lines if isinstance(line.entry, Certificate)]

    @property
    def unreadable(self) -> list[Unreadable]:
        """The images that have no certificate because they could not be read."""
        done = {certificate.index for certificate in self.certificates}
        found = (line.entry for line in self.lines)
        entries = {entry.index: entry for entry in found if isinstance(entry, Unreadable)}
        return [entry for index, entry in entries.items() if index not in done]


def read(path: Path) -> tuple[dict[str, Any], list[Certificate]]:
    """Reads the header and the certificates of a file, which may be compressed (`.gz`).

    What they say is not checked; `ds.verify` checks it.

    Args:
      path: the file.

    Returns:
      The header, a dictionary, and the certificates in the order of the file.

    Raises:
      ValueError: the file cannot be read or is no file of certificates.

    Example:
      >>> import deqsmooth as ds
      >>> header, certificates = ds.read("runs/digits.jsonl")  # doctest: +SKIP
    """
    file = parse(path, text(path))
    return file.header, file.certificates


def text(path: Path) -> str:
    """Text of a file, decompressed if its name ends with `.gz`.

    Raises:
      ValueError: it cannot be read, is an archive, is not UTF-8, or is larger than 2 GiB.
    """
    if str(path).endswith(_ARCHIVES):
        raise ValueError(f"{path} is an archive and must be one file; `tar xf {path}` takes its files out")
    with _readable(path):
        open_file = gzip.open if str(path).endswith(".gz") else open
        with open_file(path, "rb") as file:
            return _decoded("it", file.read(_LARGEST_FILE + 1))


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every `.jsonl` file of an archive (`.tar.gz`), or of the file itself if it is no archive.

    Raises:
      ValueError: see `text`.
    """
    if not str(path).endswith(_ARCHIVES):
        yield str(path), text(path)
        return
    num = 0
    with _readable(path), tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".jsonl") else None
            if content is not None:
                num += 1
                yield f"{path}/{member.name}", _decoded(member.name, content.read(_LARGEST_FILE + 1))
    if not num:
        raise ValueError(f"{path} holds no .jsonl file")


def objects(name: Path, content: str) -> list[dict[str, Any]]:
    """The JSON object of every line of a text; `name` stands for the text in errors.

    Raises:
      ValueError: a line is no JSON object, has a key twice, or a number that is not finite or has more than 64
        bits; says which line.
    """
    found = []
    *lines, last = content.split("\n")
    for number, line in enumerate([*lines, last] if last else lines, 1):
        place = f"{name}, line {number},"
        try:
            values = decoding.values(line)
        except (json.JSONDecodeError, RecursionError) as error:
            if last and number > len(lines) and (number > 1 or line.startswith("{")):
                raise ValueError(f"{place} was cut off; {CUT_OFF}") from None
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too many brackets"
            raise ValueError(f"{place} is no JSON object: {reason}") from None
        except ValueError as error:
            raise ValueError(f"{place} {error}") from None
        found.append(values)
    return found


def header(name: Path, content: str) -> dict[str, Any]:
    """The JSON object of the first line of a text; empty for an empty text.

    Raises:
      ValueError: see `objects`.
    """
    line, newline, _ = content.partition("\n")
    return (objects(name, line + newline) or [{}])[0]


def kind(content: str) -> str | None:
    """The `kind` in the header of a text: `header` for certificates; None if the text has no such header."""
    try:
        found = header("", content).get("kind")
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def complete(name: Path, content: str) -> tuple[list[dict[str, Any]], bool]:
    """The JSON objects of the lines of a text that end, and whether these are all lines; see `objects`.

    Raises:
      ValueError: see `objects`, or no line ends.
    """
    if not content:
        raise ValueError(f"{name} is empty; a file of records begins with a header")
    lines, newline, rest = content.rpartition("\n")
    if not newline:
        objects(name, content)
        raise ValueError(f"{name}, line 1, was cut off: the file has no whole line, and so no record")
    return objects(name, lines + newline), not rest


def records(name: Path, content: str, kind: type[Record]) -> tuple[dict[str, Any], list[Record], bool]:
    """The header of a text, the records of its other whole lines, and whether all lines are whole.

    Args:
      name: of the file, for messages.
      content: the text.
      kind: dataclass of the records.

    Raises:
      ValueError: a line is no such record; says which line.
    """
    (first, *lines), is_whole = complete(name, content)
    found = []
    for number, values in enumerate(lines, 2):
        if "kind" in values:
            raise ValueError(f"{name}, line {number}, is a second header: two files were joined")
        try:
            found.append(decoding.record(kind, values))
        except ValueError as error:
            raise ValueError(f"{name}, line {number}, is no {kind.__name__.lower()}: {error}") from None
    return first, found, is_whole


def parse(name: Path, content: str) -> File:
    """The text of a file of certificates, line by line; `name` stands for the file in errors.

    Raises:
      ValueError: it is no file of certificates; says which line.
    """
    (first, *others), is_whole = complete(name, content)
    schema = first.get("schema")
    if first.get("kind") != "header" or type(schema) is not int or not 1 <= schema <= record.SCHEMA:
        raise ValueError(
            f"{name}, line 1, is no line of a certificate file: its first line is no header of schema 1 to "
            f"{record.SCHEMA}"
        )
    lines = []
    for number, values in enumerate(others, 2):
        if values.get("kind") == "header":
            raise ValueError(
                f"{name}, line {number}, is a second header: two files were joined; deqsmooth-merge joins files"
            )
        try:
            lines.append(_line(values, schema))
        except ValueError as error:
            raise ValueError(f"{name}, line {number}, is no line of a certificate file: {error}") from None
    return File(first, lines, is_whole)


def link(chain: str, values: dict[str, Any]) -> str:
    """The chain after a line, from the chain before it and the line's values; both are SHA-256, hexadecimal."""
    return hashlib.sha256(f"{chain} {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


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
    except tarfile.TarError:
        raise ValueError(f"cannot read {path}: it is no archive, or a damaged one") from None
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {path}: {reason}") from None


def _decoded(name: Path, content: bytes) -> str:
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"{name} has more than {_LARGEST_FILE:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no UTF-8 text, from byte {error.start} on") from None


def _line(values: dict[str, Any], schema: int) -> Line:
    chain = values.pop("chain", None)
    if chain is not None and not isinstance(chain, str):
        raise ValueError(f"chain is {chain!r}; it must be a text")
    if "kind" in values and schema > 3:
        return Line(plan.from_json(values), values, chain)
    fields = dict(values)
    if schema < 3 and fields.get("bound") == bounds.PAIRED:
        _separate_pairs(fields)
    if "error" in fields:
        return Line(decoding.record(Unreadable, fields), values, chain)
    return Line(decoding.record(Certificate, fields), values, chain)


def _separate_pairs(fields: dict[str, Any]) -> None:
    """Gives pairs, which schemas 1 and 2 wrote in the fields of the audit, the fields that they have now."""
    for old, new in (("num_audit", "num_pairs"), ("mismatches", "lost"), ("alpha_audit", "alpha_pairs")):
        if old in fields:
            fields[new], fields[old] = fields[old], 0 if old != "alpha_audit" else 0.0
