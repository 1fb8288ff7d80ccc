"""Verification: a file of certificates is checked from its own content, without the model.

Every bound and radius is computed again from the counts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from deqsmooth import config
from deqsmooth.certificates import bound, headers, jsonl, plan, record, rounding
from deqsmooth.certificates.plan import End, Plan
from deqsmooth.certificates.record import Certificate, Unreadable
from deqsmooth.statistics import looks

# Another version of scipy, or a bound that was not rounded outward, may differ by this.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-11
_BROKEN = "the chain is broken: this line was changed, or one before it moved or taken out"
_CHANGED_HEADER = "the header was changed, and every line is judged by the settings that it states now: {}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """A value of a file that does not follow from the rest of it; as a text, one sentence.

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
      name: of the file.
      file: its content, a `deqsmooth.certificates.jsonl.File`.
      settings: of the certificates, a `ds.Smoothing` or `ds.Paired`.
      selection: of their images, a `ds.Selection`.
      differences: values that do not follow from the rest, each a
        `deqsmooth.certificates.verification.Difference`.
    """

    name: str
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

    @functools.cached_property
    def planned(self) -> list[int] | None:
        """Images that the file is to hold, by all of its plans, increasing; None in files of schema 1 to 3."""
        if self.header["schema"] < 4:
            return None
        return sorted({index for one in self.file.plans for index in one.own})

    @property
    def missing(self) -> list[int]:
        """Planned images without a line; none in files of schema 1 to 3, which have no plan."""
        there = {one.index for one in self.found} | {one.index for one in self.unreadable}
        return [index for index in self.planned or () if index not in there]

    @property
    def incomplete(self) -> str | None:
        """What the file lacks, as a sentence without a full stop; None if it lacks nothing.

        Files of schema 1 to 3 do not say which images were planned: of these, only unreadable images and a last
        line that was cut off are known.
        """
        if self.planned is not None and not self.file.plans:
            return "it holds no image and no plan: the run had not begun"
        num = len(self.found) + len(self.unreadable) if self.planned is None else len(self.planned)
        held = f"{len(self.found):,} of {rounding.number(num, 'image')}"
        reasons = []
        if self.unreadable:
            some = plan.first([one.index for one in self.unreadable])
            reasons.append(f"{len(self.unreadable)} could not be read ({some})")
        if self.missing:
            verb = "is" if len(self.missing) == 1 else "are"
            some = plan.first(self.missing)
            reasons.append(f"{len(self.missing)} {verb} missing ({some}): the run has not ended")
        elif self.planned is not None and not isinstance(self._last, End):
            if not reasons:
                held = "the image is there" if num == 1 else f"all {num:,} images are there"
            reasons.append("the end line is missing")
        if not self.file.is_whole:
            reasons.append(f"line {len(self.file.lines) + 2} was cut off; {jsonl.CUT_OFF}")
        if not reasons:
            return None
        between = ", but " if held.endswith("there") else "; "
        return f"{held}{between}{'; '.join(reasons)}"

    @property
    def _last(self) -> jsonl.Entry | None:
        return self.file.lines[-1].entry if self.file.lines else None

    def with_differences(self, found: Iterable[tuple[int, str]]) -> Checked:
        """Returns the same with differences that something else found, each given by its image and a message."""
        numbered = enumerate(self.file.lines, 2)
        lines = {x.entry.index: number for number, x in numbered if isinstance(x.entry, Certificate)}
        others = [Difference(self.name, lines[index], message) for index, message in found]
        return dataclasses.replace(self, differences=[*self.differences, *others])

    def must_hold(self, rule: str) -> Checked:
        """Returns the same if nothing differs; for whatever makes a statement from the certificates.

        Args:
          rule: what follows, as a sentence without a full stop.

        Raises:
          ValueError: a value does not follow from the rest; says which.
        """
        if self.differences:
            raise ValueError(f"{self.differences[0]}; {rule}")
        return self


def verify(path: jsonl.Path) -> Checked:
    """Checks a file of certificates, which may be compressed (`.gz`); see `verify_text`.

    Raises:
      ValueError: it cannot be read, is no file of certificates, or its header holds no settings.
    """
    return verify_text(str(path), jsonl.text(path))


def verify_text(name: str, text: str) -> Checked:
    """Checks the text of a file of certificates.

    Checked are the digest of the header; the chain of the lines; that every certificate has the header's settings
    and an image of its selection and of a plan, once; that count, bound, radius and prediction follow from its
    votes; and that the other values are such as a run writes. A file that lacks images has no difference for that,
    see `Checked.incomplete`.

    Args:
      name: of the file, for messages.
      text: its content.

    Raises:
      ValueError: it is no file of certificates, or its header holds no settings.
    """
    file = jsonl.parse(name, text)
    terms = headers.terms(name, file.header)
    changed = headers.check_digest(file.header)
    differences = [Difference(name, 1, _CHANGED_HEADER.format(message)) for message in changed]
    chain = str(file.header.get("sha256"))
    before = _Before(terms)
    for number, (entry, values, stated) in enumerate(file.lines, 2):
        messages = list(before.check(entry, number))
        if terms.schema > 1:
            chain = jsonl.link(chain, values)
            if stated != chain:
                messages.insert(0, _BROKEN)
                chain = str(stated)
        if isinstance(entry, Certificate):
            messages += [*_check_votes(entry, terms), *_check_work(entry)]
        differences += [Difference(name, number, message) for message in messages]
    return Checked(name, file, terms.settings, terms.selection, differences)


class _Before:
    """The images of the lines before a line, which it must agree with."""

    def __init__(self, terms: headers.Terms):
        self._terms = terms
        self._planned: set[int] = set()
        self._certified: dict[int, int] = {}
        self._unreadable: set[int] = set()
        self._classes = 0

    def check(self, entry: jsonl.Entry, number: int) -> Iterator[str]:
        """Yields what is wrong with the next line, and adds its images."""
        if isinstance(entry, End):
            yield from self._check_end(entry)
        elif isinstance(entry, Plan):
            wrong = (f"the plan is wrong: {x}" for index in entry.images for x in self._terms.check_index(index))
            yield from itertools.islice(wrong, 1)
            self._planned.update(entry.own)
        else:
            yield from self._terms.check_index(entry.index)
            if self._terms.schema > 3 and entry.index not in self._planned:
                yield f"index is {entry.index}, which no plan before it has"
            if entry.index in self._certified:
                line = self._certified[entry.index]
                yield f"image {entry.index} has a certificate already, in line {line}"
            if isinstance(entry, Certificate):
                self._certified.setdefault(entry.index, number)
                self._classes = self._classes or len(entry.counts) - 1
                if len(entry.counts) - 1 != self._classes:
                    yield f"counts has {len(entry.counts) - 1} classes; the lines before have {self._classes}"
            else:
                self._unreadable.add(entry.index)

    def _check_end(self, end: End) -> Iterator[str]:
        """Yields what differs between an end line and the lines before it."""
        expected = End(len(self._certified), len(self._unreadable - self._certified.keys()))
        for name, value in expected._asdict().items():
            if getattr(end, name) != value:
                yield f"{name} is {getattr(end, name)}; the lines before have {value}"
        missing = sorted(self._planned - self._certified.keys() - self._unreadable)
        if missing:
            yield (
                f"the run cannot have ended here: {rounding.number(len(missing), 'image')} "
                f"{'is' if len(missing) == 1 else 'are'} missing ({plan.first(missing)})"
            )


def _check_votes(certificate: Certificate, terms: headers.Terms) -> Iterator[str]:
    """Values of a certificate that do not follow from its votes and the settings of the header."""
    settings = terms.settings
    try:
        _check_counts(certificate, settings)
        expected = _expected(certificate, terms)
    except (TypeError, ValueError, IndexError, ArithmeticError) as error:
        yield str(error)
        return
    for name, value in expected.items():
        stated = getattr(certificate, name)
        # Older files do not have the part of alpha, which then follows from the number of looks.
        follows = name == "alpha_count" and stated is None and settings.spending != looks.PROPORTIONAL
        # The error of noise may be far below the tolerance of other numbers.
        if not (follows or (stated == value if name == "noise_error" else _same(stated, value))):
            yield f"{name} is {stated}; it should be {value}"
    label, classes = certificate.label, len(certificate.counts) - 1
    if label is not None and not 0 <= label < classes:
        yield f"label is {label}; it must be from 0 to {classes - 1}"


def _check_work(certificate: Certificate) -> Iterator[str]:
    """Values of a certificate that no run writes: negative costs, and quantiles that fall."""
    for name in ("evaluations", "fallbacks", "seconds"):
        if getattr(certificate, name) < 0:
            yield f"{name} is {getattr(certificate, name)}; it must be at least 0"
    for name in ("residuals", "reference_residuals"):
        found = getattr(certificate, name)
        if found is not None and not (len(found) == 3 and 0 <= found[0] <= found[1] <= found[2]):
            yield f"{name} is {list(found)}; it must be three numbers from 0, each at least the one before it"


def _check_counts(certificate: Certificate, settings: config.Smoothing) -> None:
    """Raises `ValueError` unless the votes are such that a bound can be computed."""
    for name in ("counts", "counts_selection"):
        counts = getattr(certificate, name)
        if len(counts) < 3 or min(counts) < 0:
            raise ValueError(f"{name} is {counts}; it must be votes by class, whole numbers from 0")
    if len(certificate.counts) != len(certificate.counts_selection):
        raise ValueError("counts and counts_selection have different numbers of classes")
    sizes = settings.looks or (settings.num_estimation,)
    if settings.only_correct:
        if certificate.label is None:
            raise ValueError("label is None; it must be a class, since the header says only_correct")
        if bound.selected_class(certificate.counts_selection) != certificate.label:
            sizes = (0,)
    if sum(certificate.counts) not in sizes:
        raise ValueError(f"counts add up to {sum(certificate.counts)}; the header allows {sizes}")
    if sum(certificate.counts_selection) != settings.num_selection:
        total = sum(certificate.counts_selection)
        raise ValueError(f"counts_selection adds up to {total}; the header says {settings.num_selection}")
    largest = {"mismatches": settings.num_audit or 0, "lost": getattr(settings, "num_pairs", 0)}
    for name, most in largest.items():
        if not 0 <= getattr(certificate, name) <= most:
            raise ValueError(f"{name} is {getattr(certificate, name)}; it must be from 0 to {most}")


def _expected(certificate: Certificate, terms: headers.Terms) -> dict[str, Any]:
    """The values of a certificate that follow from its votes and the header."""
    settings, audit = terms.settings, None
    if settings.num_audit is not None:
        # Only votes for the selected class are audited, of which there may be fewer.
        audited = min(settings.num_audit, certificate.counts[bound.selected_class(certificate.counts_selection)])
        audit = settings.audit(audited, min(certificate.mismatches, audited))
    again = bound.of_votes(
        settings,
        certificate.counts_selection,
        certificate.counts,
        noise_error=terms.noise_error,
        audit=audit,
        pairs=settings.pairs(certificate.lost) if isinstance(settings, config.Paired) else None,
    )
    return {
        **record.claims(again),
        **record.choices(settings, terms.solves),
        "lanes": settings.lanes,
        "correct": record.is_correct(again.prediction, certificate.label),
    }


def _same(stated: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(stated, int | float) and not isinstance(stated, bool):
        return math.isclose(stated, value, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return type(stated) is type(value) and stated == value
