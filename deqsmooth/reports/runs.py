"""Runs to report: from files of certificates, attacks and published results to verified, named runs."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from deqsmooth.certificates import attempts, bound, cohen, jsonl, predictions, rounding, statements, verification
from deqsmooth.certificates.attempts import Attempt
from deqsmooth.reports import names


@dataclasses.dataclass(frozen=True)
class Run:
    """A file of a report.

    Attributes:
      name: what the run is, unique in the report; see `names.names`.
      stem: short name of the file, unique in the report; files of the report are named after it.
      path: path of the file.
      found: results of the images.
      checked: result of the verification; None for a published result, which has no counts to verify.
      letter: by which the report calls the run for short; empty if there is no other run.
      attempts: attacks on the images.
      false_attempts: values of the files of attacks that do not follow from the rest, a sentence each.
    """

    name: str
    stem: str
    path: pathlib.Path
    found: Sequence[statements.Image]
    checked: verification.Checked | None
    letter: str = ""
    attempts: list[Attempt] = dataclasses.field(default_factory=list)
    false_attempts: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_certified(self) -> bool:
        """Whether the radii are certificates: they follow from known counts, and their bound is valid."""
        return self.checked is not None and self.is_sound and all(c.warning is None for c in self.checked.found)

    @property
    def is_sound(self) -> bool:
        """Whether verification found no difference and no attack refutes a certificate."""
        return not self.refuted and not self._differences

    @property
    def refuted(self) -> list[Attempt]:
        """The attacks that changed the class of an image within its certified radius."""
        return [attempt for attempt in self.attempts if attempt.refutes]

    @property
    def is_checked(self) -> bool:
        """Whether the soundness check of the classifier was not skipped, as far as the file says."""
        return self.checked is None or self.checked.header.get("soundness_check") != "skipped"

    @property
    def is_alarming(self) -> bool:
        """Whether a reader must know something before any number: see `verdict`."""
        if self.checked is None:
            return not self.is_sound
        return not (self.is_certified and self.is_checked) or self.checked.incomplete is not None

    @property
    def mark(self) -> str:
        """Why the numbers are no certificates, or not of all images, in brackets; empty if all is well."""
        if not self.is_sound:
            return f"[{'NOT VERIFIED' if self._differences else 'REFUTED'}]"
        if self.checked is None or self.is_certified:
            return "" if self.checked is None or self.checked.incomplete is None else "[incomplete]"
        return f"[{bound.NOT_VALID}]"

    @property
    def title(self) -> str:
        """Letter and name."""
        return f"{self.letter}: {self.name}" if self.letter else self.name

    @property
    def label(self) -> str:
        """Letter and name, with the mark; for every place that shows numbers of the run."""
        return f"{self.title} {self.mark}".rstrip()

    @property
    def short(self) -> str:
        """The letter with the mark; the label if there is no letter."""
        return f"{self.letter} {self.mark}".rstrip() if self.letter else self.label

    def verdict(self) -> str:
        """Returns the outcome of verification and attacks as a sentence without a full stop."""
        if self._differences:
            number = len(self._differences)
            values = "1 value does" if number == 1 else f"{number} values do"
            return (
                f"NOT VERIFIED: {values} not follow from the rest of the file; the first: {self._differences[0]}"
            )
        if self.refuted:
            one = self.refuted[0]
            return (
                f"REFUTED by {len(self.refuted)} of {len(self.attempts)} attacks; the first: image {one.index} is "
                f"certified as {one.certified} to {rounding.radius(one.radius)}, but at distance "
                f"{rounding.radius(one.distance, up=True)} it is {one.prediction}"
            )
        if self.checked is None:
            return "published radii, which cannot be verified because their counts are not known"
        if not self.is_certified:
            return f"{bound.NOT_VALID}; its radii are no certificates"
        text = "every bound and radius was computed again from its votes, without a difference"
        if self.attempts:
            text += f"; {len(self.attempts)} attacks refute none"
        if not self.is_checked:
            text += "; that the classifier is a function of one image was NOT CHECKED"
        return text if self.checked.incomplete is None else f"{text}; INCOMPLETE: {self.checked.incomplete}"

    @property
    def _differences(self) -> list[str]:
        """What does not follow from the rest of the file of certificates, or of those of attacks on them."""
        own = [] if self.checked is None else [str(one) for one in self.checked.differences]
        return own + self.false_attempts


class Runs(NamedTuple):
    """What some files hold.

    Attributes:
      runs: one for each file of certificates or published results.
      left_out: a sentence for each file that is left out, without a full stop.
    """

    runs: list[Run]
    left_out: list[str]


class _File(NamedTuple):
    """A file of certificates or published results; see `Run`."""

    path: pathlib.Path
    found: Sequence[statements.Image]
    checked: verification.Checked | None


class _LeftOutError(Exception):
    """The reason why a file is left out of a report."""


def read(paths: Sequence[jsonl.Path]) -> Runs:
    """Reads the runs of some files, and verifies them.

    Files of predictions, of metrics and other JSON lines, files without an image or without labels, and attacks on
    certificates that are not among the files are left out.

    Args:
      paths: files of certificates (`.jsonl`), files of attacks on these certificates, published results in the
        format of Cohen et al. (`.tsv`), each also compressed (`.gz`), and archives of them (`.tar.gz`).

    Raises:
      ValueError: a file cannot be read, is damaged, is given twice, or is of other images than the first; or no
        run is left.
    """
    texts = [(pathlib.Path(name), text) for path in paths for name, text in jsonl.texts(path)]
    if not texts:
        raise ValueError("no file of certificates is given")
    files, attacks, left_out = [], [], []
    for path, text in texts:
        try:
            if attempts.is_file(text):
                attacks.append((path, _attempts(path, text)))
            else:
                files.append(_file(path, text))
        except _LeftOutError as reason:
            left_out.append(f"{path} is left out: {reason}")
    runs = _named(files)
    _check_data(runs)
    for run in runs[1:]:
        _check_pair(runs[0], run)
    for path, file in attacks:
        if not _attach(runs, path, file):
            left_out.append(f"{path} is left out: it attacks certificates that are not among the files")
    if not runs:
        raise ValueError("there is no run to report: " + "; ".join(left_out))
    return Runs(runs, left_out)


def _named(files: Sequence[_File]) -> list[Run]:
    stems = names.stems([file.path for file in files])
    found = names.names([(stem, file.checked) for stem, file in zip(stems, files, strict=True)])
    everything = zip(found, stems, files, names.letters(len(files)), strict=True)
    return [Run(name, stem, *file, letter) for name, stem, file, letter in everything]


def _attempts(path: pathlib.Path, text: str) -> attempts.File:
    if len(text.splitlines()) == 1:
        raise _LeftOutError("it has no attack yet")
    return attempts.parse(str(path), text)


def _file(path: pathlib.Path, text: str) -> _File:
    """The results of a text, verified if it has counts.

    Raises:
      _LeftOutError: it is left out of a report.
      ValueError: it is damaged.
    """
    if path.name.removesuffix(".gz").endswith(".tsv"):
        checked = None
        found: Sequence[statements.Image] = cohen.parse(str(path), text)
    else:
        _check_kind(path, text)
        checked = verification.verify_text(str(path), text)
        found = checked.found
    if not found:
        raise _LeftOutError("it has no image yet")
    problem = statements.impossible(found)
    if problem is not None:
        raise ValueError(f"{path}: {problem}")
    if any(line.correct is None for line in found):
        if checked is not None and checked.differences:
            raise ValueError(str(checked.differences[0]))
        raise _LeftOutError("it has images without a label, and a report needs labels")
    return _File(path, found, checked)


def _check_kind(path: pathlib.Path, text: str) -> None:
    """Raises `_LeftOutError` if the first line of a text is not the header of a file of certificates."""
    if not text.strip():
        raise _LeftOutError("it is empty")
    try:
        kind = jsonl.header(path, text).get("kind")
    except ValueError:
        if "\n" in text:
            raise
        raise _LeftOutError("it holds no more than the beginning of a line") from None
    if kind == predictions.KIND:
        raise _LeftOutError("it holds predictions, which have no radius")
    if kind != "header" and '"chain": ' not in text:
        raise _LeftOutError("it holds neither certificates nor attacks")


def _check_data(runs: Sequence[Run]) -> None:
    """Raises `ValueError` unless all runs are of the same data; published results do not say of which they are."""
    described = [(run.path, _data(run.checked)) for run in runs if run.checked is not None]
    for path, data in described[1:]:
        if data != described[0][1]:
            raise ValueError(
                f"{described[0][0]} is of {described[0][1]}, {path} of {data}; a report compares the same images"
            )


def _check_pair(first: Run, second: Run) -> None:
    """Raises `ValueError` unless two runs have an image in common, and the same labels."""
    try:
        statements.paired(first.found, second.found)
    except ValueError as error:
        raise ValueError(f"{first.path} and {second.path}: {error}") from None


def _data(checked: verification.Checked) -> str:
    """Data set, split and identity that a header names, as text."""
    identity = checked.header.get("data")
    return f"{checked.selection.dataset} {checked.selection.split}" + (f" ({identity})" if identity else "")


def _attach(runs: Sequence[Run], path: pathlib.Path, file: attempts.File) -> bool:
    """Adds attacks to the runs whose certificates they attack; returns whether there are any."""
    digest = file.header.get("certificates")
    attacked = [run for run in runs if digest and run.checked and run.checked.header.get("sha256") == digest]
    for run in attacked:
        certificates = None if run.checked is None else run.checked.found
        run.attempts.extend(file.attempts)
        run.false_attempts.extend(f"{path}, {one}" for one in attempts.differences(file, certificates))
    return bool(attacked)
