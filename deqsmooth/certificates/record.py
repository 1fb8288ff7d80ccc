"""Certificates as evidence: one frozen record an image, in a JSONL file that begins with the run's header.

A record holds the counts from which its radius follows, so that it can be recomputed from the file alone. An image
that could not be read has a line with its `index` and the `error`. Every line ends with `chain`, the digest of
itself and of the chain before it, which begins with the digest of the header: lines that were changed, moved or
taken out leave a gap.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import types
import typing
from typing import Any, NamedTuple

SCHEMA = 2
"""Version of the format. 1 had no chain."""
NOT_VALID = "not a valid bound"
_LARGEST_FILE = 2**31


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was found for one image.

    With probability at least 1 - alpha, every image within L2 distance `radius` (pixels in [0, 1]) gets
    `prediction` from the smoothed reference classifier that the header names.

    Attributes:
      index: of the image in its split.
      label: class in the data set; None if unknown.
      prediction: certified class; None if the run abstains.
      correct: whether prediction and label agree; None if the label is unknown.
      radius: certified radius, float64; 0 if the run abstains.
      p_lower: lower bound on the probability of the selected class.
      selected: class that the selection chose.
      count: votes of the estimation for it.
      counts_selection: votes by class; the last entry counts samples that were not finite.
      counts: the same of the estimation.
      num_selection: samples of the selection (N0).
      num_estimation: samples of the estimation that were drawn (N, or the look that was the last).
      num_audit: votes that were solved again with the reference (K); 0 without an audit.
      mismatches: audited votes that the reference does not give to the selected class.
      bound: `clopper-pearson`, or the name of the audited bound.
      warning: "not a valid bound" where the bound is none, else None.
      alpha: failure probability in all.
      alpha_audit: part of it that the audit takes.
      sigma: standard deviation of the noise.
      sampler: `serial` or `independent`.
      start: where the solve of a sample begins.
      solver: its solver; None for a classifier that solves nothing.
      budget: its evaluations at most.
      tolerance: its relative residual to stop at, or None.
      warmup_budget: evaluations of a lane's first solve; None for the independent sampler.
      reference_budget: evaluations of the reference f.
      lanes: samples side by side; for serial the number of chains.
      seed: of the noise and the audit.
      evaluations: cell evaluations spent on the image, warm-up and audit included.
      invalid: samples of the estimation whose logits were not finite.
      fallbacks: solver steps replaced by plain iteration, in selection, estimation and audit.
      residuals: relative residual of the last evaluated iterate of the estimation's solves at the
        quantiles 0.5, 0.9 and 1; None for a classifier that solves nothing.
      reference_residuals: the same of the audit's solves; None without an audit.
      seconds: wall time of the image's batch, divided by its images; compilation not included.
      dtype: floating point type of the cell.
      looks: numbers of samples at which the certificate might have been read, each at its part of alpha; None if
        only at the end.
      alpha_count: the part of alpha that the count took where it was read; None in files written before it was
        named, whose looks have equal parts.
    """

    index: int
    label: int | None
    prediction: int | None
    correct: bool | None
    radius: float
    p_lower: float
    selected: int
    count: int
    counts_selection: tuple[int, ...]
    counts: tuple[int, ...]
    num_selection: int
    num_estimation: int
    num_audit: int
    mismatches: int
    bound: str
    warning: str | None
    alpha: float
    alpha_audit: float
    sigma: float
    sampler: str
    start: str | None
    solver: str | None
    budget: int | None
    tolerance: float | None
    warmup_budget: int | None
    reference_budget: int | None
    lanes: int
    seed: int
    evaluations: int
    invalid: int
    fallbacks: int
    residuals: tuple[float, ...] | None
    reference_residuals: tuple[float, ...] | None
    seconds: float
    dtype: str = "float32"
    looks: tuple[int, ...] | None = None
    alpha_count: float | None = None


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An image that could not be certified because it could not be read, or is none that the model takes.

    Attributes:
      index: of the image in its split.
      error: what is wrong with it.
    """

    index: int
    error: str


def link(chain: str, record: dict[str, Any]) -> str:
    """The chain after a line's values, from the chain before it; both are SHA-256, hexadecimal."""
    return hashlib.sha256(f"{chain} {json.dumps(record, sort_keys=True)}".encode()).hexdigest()


class Line(NamedTuple):
    """A certificate as it stands in a file.

    Attributes:
      entry: what the line says.
      record: its values, but for the chain.
      chain: its place in the chain; None in schema 1.
    """

    entry: Certificate | Unreadable
    record: dict[str, Any]
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


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Certificate]]:
    """Header and certificates of a file.

    Raises:
      ValueError: the file cannot be read or is no file of certificates.
    """
    file = open_file(path)
    return file.header, file.certificates


def open_file(path: str | os.PathLike[str]) -> File:
    """A file of certificates, line by line.

    Raises:
      ValueError: the file cannot be read or is no file of certificates.
    """
    file = pathlib.Path(path)
    try:
        size = file.stat().st_size
        if not file.is_file() or size > _LARGEST_FILE:
            raise ValueError(f"it has {size:,} bytes; a file of certificates has at most {_LARGEST_FILE:,}")
        text = file.read_text()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    return parse(path, text)


def parse(path: str | os.PathLike[str], text: str) -> File:
    """The text of a file of certificates, line by line; `path` is its name in errors."""
    header, lines = None, []
    for number, encoded in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(encoded)
            if number > 1:
                lines.append(_line(record))
                continue
            if record.get("kind") != "header" or record.get("schema") not in range(1, SCHEMA + 1):
                raise ValueError(f"its first line is no header of schema 1 to {SCHEMA}")
            header = record
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}, is no line of a certificate file: {error}") from None
    if header is None:
        raise ValueError(f"{path} is empty; a certificate file begins with its header")
    return File(header, lines, text.endswith("\n"))


def _line(record: dict[str, Any]) -> Line:
    chain = record.pop("chain", None)
    values: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in record.items()}
    entry = Unreadable if "error" in values else Certificate
    for name, (hint, kinds) in _kinds(entry).items():
        if name in values and not any(_is_a(values[name], kind) for kind in kinds):
            raise ValueError(f"{name} is {values[name]!r}; it must be {hint}")
    return Line(entry(**values), record, chain)


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


def same_run(path: str | os.PathLike[str], found: dict[str, Any], header: dict[str, Any]) -> None:
    """Raises `ValueError` unless the header of a file is that of a run."""
    different = [name for name in sorted(found.keys() | header.keys()) if found.get(name) != header.get(name)]
    if different:
        name = different[0]
        raise ValueError(
            f"{path} was begun by another run: its {', '.join(different)} differ "
            f"({name} there: {json.dumps(found.get(name))}; here: {json.dumps(header.get(name))}); "
            "a file holds one run: give another --out, or the same settings to resume"
        )
