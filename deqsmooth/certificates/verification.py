"""Verification: a file of certificates is checked from its own content, without the model.

Every bound and radius is computed again from the counts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

from deqsmooth import config
from deqsmooth.certificates import bound, jsonl, record
from deqsmooth.certificates.record import Certificate, Unreadable
from deqsmooth.config import serialization
from deqsmooth.statistics import bounds, looks

# Another version of scipy may compute bounds that differ by this.
_RELATIVE = 1e-9


@dataclasses.dataclass(frozen=True)
class Difference:
    """A value of a file that does not follow from the rest of it.

    Attributes:
      name: of the file.
      line: number of the line, from 1.
      message: what the line says and what it should say.
    """

    name: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.name}, line {self.line}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Checked:
    """A file of certificates and its differences.

    Attributes:
      file: its content.
      settings: of the certificates.
      selection: of their images.
      differences: values that do not follow from the rest.
    """

    file: jsonl.File
    settings: config.Smoothing
    selection: config.Selection
    differences: list[Difference]

    @property
    def header(self) -> dict[str, Any]:
        """The first line."""
        return self.file.header

    @functools.cached_property
    def found(self) -> list[Certificate]:
        """The certificates, in the order of the file."""
        return self.file.certificates

    @property
    def unreadable(self) -> list[Unreadable]:
        """Images that have no certificate because they could not be read."""
        return self.file.unreadable


def verify(path: jsonl.Path) -> Checked:
    """Checks a file of certificates, which may be compressed (`.gz`); see `verify_text`.

    Raises:
      ValueError: it cannot be read, is no file of certificates, or its header holds no settings.
    """
    return verify_text(str(path), jsonl.text(path))


def verify_text(name: str, text: str) -> Checked:
    """Checks the text of a file of certificates.

    Checked are the digest of the header; the chain of the lines; that every certificate has the header's settings
    and an image of its selection, once; and that count, bound, radius and prediction follow from its votes.

    Args:
      name: of the file, for messages.
      text: its content.

    Raises:
      ValueError: it is no file of certificates, or its header holds no settings.
    """
    file = jsonl.parse(name, text)
    differences = [Difference(name, 1, message) for message in _check_header(file.header)]
    settings, selection, solves = _settings(name, file.header)
    chain = str(file.header.get("sha256"))
    seen: dict[int, int] = {}
    for number, (entry, values, stated) in enumerate(file.lines, 2):
        messages = []
        if file.header["schema"] > 1:
            chain = jsonl.link(chain, values)
            if stated != chain:
                messages.append("the chain is broken: this line was changed, or one before it moved or taken out")
                chain = str(stated)
        if not selection.selects(entry.index):
            messages.append(f"index is {entry.index}, which the header does not select")
        if entry.index in seen:
            messages.append(f"image {entry.index} has a certificate already, in line {seen[entry.index]}")
        if isinstance(entry, Certificate):
            seen.setdefault(entry.index, number)
            messages += _check_votes(entry, settings, solves)
        differences += [Difference(name, number, message) for message in messages]
    if not file.is_whole:
        differences.append(Difference(name, len(file.lines) + 1, "the line does not end: it was cut off"))
    return Checked(file, settings, selection, differences)


def summary(checked: Checked) -> str:
    """The result of a verification in one sentence."""
    certified = [c for c in checked.found if c.prediction is not None]
    not_valid = sum(c.warning is not None for c in certified)
    text = (
        f"{len(checked.found)} certificates, {len(certified)} of them with a prediction, "
        f"{len(checked.differences)} differences"
    )
    if checked.unreadable:
        text += f", {len(checked.unreadable)} images without one because they could not be read"
    if not_valid:
        return f"{text}; {not_valid} say: {bound.NOT_VALID}"
    return f"{text}; of these, {sum(c.alpha for c in certified):.2g} are false in expectation, at most"


def _check_header(header: dict[str, Any]) -> Iterator[str]:
    stated = header.get("sha256")
    digest = serialization.digest({name: x for name, x in header.items() if name != "sha256"})
    if stated != digest:
        yield f"sha256 is {stated}; the header's is {digest}"


def _settings(name: str, header: dict[str, Any]) -> tuple[config.Smoothing, config.Selection, bool]:
    """Settings and selection of a header, and whether its classifier solves; missing ones take their defaults."""
    try:
        encoded = {key: x for key, x in header["smoothing"].items() if x is not None}
        kind = config.Paired if encoded.get("bound") == bounds.PAIRED else config.Smoothing
        if kind is config.Paired and header["schema"] < 3:
            for old, new in (("num_audit", "num_pairs"), ("alpha_audit", "alpha_pairs")):
                encoded[new] = encoded.pop(old)
        if "looks" in encoded:
            # Looks shared alpha equally before headers said how.
            encoded.setdefault("spending", looks.EQUAL)
        return (
            serialization.from_json(kind, serialization.without_retired(kind, encoded)),
            serialization.from_json(config.Selection, header["selection"]),
            header["reference"]["solver"] is not None,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{name}: its header holds no settings of a certification: {error!r}") from None


def _check_votes(certificate: Certificate, settings: config.Smoothing, solves: bool) -> Iterator[str]:
    """Values of a certificate that do not follow from its votes and the settings of the header."""
    try:
        _check_counts(certificate, settings)
        expected = _expected(certificate, settings, solves)
    except (TypeError, ValueError, IndexError) as error:
        yield str(error)
        return
    for name, value in expected.items():
        stated = getattr(certificate, name)
        # Older files do not have the part of alpha, which then follows from the number of looks.
        follows = name == "alpha_count" and stated is None and settings.spending != looks.PROPORTIONAL
        if not (follows or _same(stated, value)):
            yield f"{name} is {stated}; it should be {value}"


def _check_counts(certificate: Certificate, settings: config.Smoothing) -> None:
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
    largest = {"mismatches": settings.num_audit or 0, "lost": getattr(settings, "num_pairs", 0)}
    for name, most in largest.items():
        if not 0 <= getattr(certificate, name) <= most:
            raise ValueError(f"{name} is {getattr(certificate, name)}; it must be from 0 to {most}")


def _expected(certificate: Certificate, settings: config.Smoothing, solves: bool) -> dict[str, Any]:
    """The values of a certificate that follow from its votes and the settings."""
    audit = None
    if settings.num_audit is not None:
        # Only votes for the selected class are audited, of which there may be fewer.
        audited = min(settings.num_audit, certificate.counts[bound.selected_class(certificate.counts_selection)])
        audit = settings.audit(audited, min(certificate.mismatches, audited))
    again = bound.of_votes(
        settings,
        certificate.counts_selection,
        certificate.counts,
        audit=audit,
        pairs=settings.pairs(certificate.lost) if isinstance(settings, config.Paired) else None,
    )
    return {
        **record.claims(again),
        **record.choices(settings, solves),
        "lanes": settings.lanes,
        "correct": record.is_correct(again.prediction, certificate.label),
    }


def _same(stated: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(stated, int | float) and not isinstance(stated, bool):
        return math.isclose(stated, value, rel_tol=_RELATIVE, abs_tol=0.0)
    return type(stated) is type(value) and stated == value
