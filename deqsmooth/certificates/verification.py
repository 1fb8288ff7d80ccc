"""Certificates checked from their file alone: every bound and radius again from the counts.

Needs numpy and scipy, but neither JAX nor the model.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from deqsmooth import config
from deqsmooth.certificates import bound, record
from deqsmooth.config import serialization
from deqsmooth.statistics import looks

_MEASURED = ("evaluations", "fallbacks", "residuals", "reference_residuals", "seconds")
# What another version of scipy may give for the same counts.
_RELATIVE = 1e-9


@dataclasses.dataclass(frozen=True)
class Difference:
    """Something in a file that does not follow from the rest of it.

    Attributes:
      path: the file.
      line: number of the line, from 1.
      message: what stands there and what should.
    """

    path: pathlib.Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Checked:
    """A file and what is wrong with it.

    Attributes:
      header: its first line.
      settings: of the certificates.
      selection: of their images.
      found: the certificates.
      unreadable: images that have none.
      differences: what does not follow from the rest.
    """

    header: dict[str, Any]
    settings: config.Smoothing
    selection: config.Selection
    found: list[record.Certificate]
    unreadable: list[record.Unreadable]
    differences: list[Difference]


def verify(path: str | os.PathLike[str]) -> Checked:
    """Checks a file of certificates.

    The digest of the header; the chain of the lines; that every certificate is of the header's settings and of an
    image of its selection, once; and that count, bound, radius and prediction follow from its votes.

    Args:
      path: the file.

    Raises:
      ValueError: it is no file of certificates, or its header holds no settings.
    """
    path = pathlib.Path(path)
    file = record.open_file(path)
    differences = [Difference(path, 1, message) for message in _check_header(file.header)]
    settings, selection, solves = _settings(path, file.header)
    chain = str(file.header.get("sha256"))
    seen: dict[int, int] = {}
    for number, (entry, values, stated) in enumerate(file.lines, 2):
        messages = []
        if file.header["schema"] > 1:
            chain = record.link(chain, values)
            if stated != chain:
                messages.append("the chain is broken: this line was changed, or one before it moved or taken out")
                chain = str(stated)
        steps, rest = divmod(entry.index - selection.start_index, selection.stride)
        if steps < 0 or rest:
            messages.append(f"index is {entry.index}, which the header does not select")
        if entry.index in seen:
            messages.append(f"image {entry.index} has a certificate already, in line {seen[entry.index]}")
        if isinstance(entry, record.Certificate):
            seen.setdefault(entry.index, number)
            messages += _check_votes(entry, settings, solves)
        differences += [Difference(path, number, message) for message in messages]
    if not file.is_whole:
        differences.append(Difference(path, len(file.lines) + 1, "the line does not end: it was cut off"))
    return Checked(file.header, settings, selection, file.certificates, file.unreadable, differences)


def _check_header(header: dict[str, Any]) -> Iterator[str]:
    stated = header.get("sha256")
    digest = serialization.digest({name: x for name, x in header.items() if name != "sha256"})
    if stated != digest:
        yield f"sha256 is {stated}; the header's is {digest}"


def _settings(path, header) -> tuple[config.Smoothing, config.Selection, bool]:
    """Settings and selection of a header, and whether its classifier solves; what it lacks is as by default."""
    try:
        encoded = {name: x for name, x in header["smoothing"].items() if x is not None}
        if "looks" in encoded:
            # Looks shared alpha equally before headers said how.
            encoded.setdefault("spending", looks.EQUAL)
        return (
            serialization.from_json(config.Smoothing, encoded),
            serialization.from_json(config.Selection, header["selection"]),
            header["reference"]["solver"] is not None,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: its header holds no settings of a certification: {error!r}") from None


def _check_votes(certificate, settings, solves) -> Iterator[str]:
    """What does not follow from the votes of a certificate and the settings of the header.

    The part of alpha may be missing, as it is in older files, where it follows from the number of looks.
    """
    try:
        _check_counts(certificate, settings)
        expected = _expected(certificate, settings, solves)
    except (TypeError, ValueError, IndexError) as error:
        yield str(error)
        return
    for name, value in expected.items():
        stated = getattr(certificate, name)
        follows = name == "alpha_count" and stated is None and settings.spending != looks.PROPORTIONAL
        if not (follows or _same(stated, value)):
            yield f"{name} is {stated}; it should be {value}"


def _check_counts(certificate, settings) -> None:
    """Raises `ValueError` unless the votes are such that a bound can be computed."""
    for name in ("counts", "counts_selection"):
        counts = getattr(certificate, name)
        if len(counts) < 3 or min(counts) < 0:
            raise ValueError(f"{name} is {counts}; it must be votes by class, whole numbers from 0")
    if len(certificate.counts) != len(certificate.counts_selection):
        raise ValueError("counts and counts_selection have different numbers of classes")
    sizes = settings.looks or (settings.num_estimation,)
    if sum(certificate.counts) not in sizes:
        raise ValueError(f"counts add up to {sum(certificate.counts)}; the header allows {sizes}")
    if sum(certificate.counts_selection) != settings.num_selection:
        total = sum(certificate.counts_selection)
        raise ValueError(f"counts_selection adds up to {total}; the header says {settings.num_selection}")
    if not 0 <= certificate.mismatches <= (settings.num_audit or 0):
        raise ValueError(f"mismatches is {certificate.mismatches}; it must be from 0 to {settings.num_audit or 0}")


def _expected(certificate, settings, solves) -> dict[str, Any]:
    """What the fields of a certificate should be."""
    counts = np.array(certificate.counts)
    selected = int(np.argmax(certificate.counts_selection[:-1]))
    audit: dict[str, Any] = {}
    if settings.num_audit is not None:
        # Only votes for the selected class are audited, of which there may be fewer; pairs are drawn anew.
        audited = (
            min(settings.num_audit, int(counts[selected])) if settings.sampler == "serial" else settings.num_audit
        )
        audit = {"audited": audited, "mismatches": min(certificate.mismatches, audited)}
    fields = bound.fields(
        settings,
        solves,
        selected=selected,
        counts_selection=np.array(certificate.counts_selection),
        counts=counts,
        residual=np.empty(0),
        evaluations=0,
        fallbacks=0,
        audit=audit,
    )
    correct = None if certificate.label is None else fields["prediction"] == certificate.label
    return {name: x for name, x in {**fields, "correct": correct}.items() if name not in _MEASURED}


def _same(stated: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(stated, int | float) and not isinstance(stated, bool):
        return math.isclose(stated, value, rel_tol=_RELATIVE, abs_tol=0.0)
    return type(stated) is type(value) and stated == value


def summary(checked: Checked) -> str:
    """What a file is worth, in a few words."""
    certified = [c for c in checked.found if c.prediction is not None]
    not_valid = sum(c.warning is not None for c in certified)
    text = (
        f"{len(checked.found)} certificates, {len(certified)} of them with a prediction, "
        f"{len(checked.differences)} differences"
    )
    if checked.unreadable:
        text += f", {len(checked.unreadable)} images without one because they could not be read"
    if not_valid:
        return f"{text}; {not_valid} say: {record.NOT_VALID}"
    return f"{text}; of these, {sum(c.alpha for c in certified):.2g} are false in expectation, at most"
