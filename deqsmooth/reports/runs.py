"""Runs to report: from files of certificates, attacks and published results to verified, named runs."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from deqsmooth.certificates import attempts, bound, cohen, jsonl, statements, verification
from deqsmooth.certificates.attempts import Attempt


@dataclasses.dataclass(frozen=True)
class Run:
    """A file of a report.

    Attributes:
      name: short name of the file, unique in the report.
      path: path of the file.
      found: results of the images.
      checked: result of the verification; None for a published result, which has no counts to verify.
      attempts: attacks on the images.
    """

    name: str
    path: pathlib.Path
    found: Sequence[statements.Image]
    checked: verification.Checked | None
    attempts: list[Attempt] = dataclasses.field(default_factory=list)

    @property
    def is_certified(self) -> bool:
        """Whether the radii are certificates: their counts are known and their bound is valid."""
        return self.checked is not None and all(c.warning is None for c in self.checked.found)

    @property
    def is_sound(self) -> bool:
        """Whether verification found no difference and no attack refutes a certificate."""
        return not self.refuted and (self.checked is None or not self.checked.differences)

    @property
    def refuted(self) -> list[Attempt]:
        """The attacks that changed the class of an image within its certified radius."""
        return [attempt for attempt in self.attempts if attempt.refutes]

    def verdict(self) -> str:
        """Returns the outcome of verification and attacks as a sentence without a full stop."""
        if self.checked is None:
            return "published radii, which cannot be verified because their counts are not known"
        if self.refuted:
            one = self.refuted[0]
            return (
                f"{len(self.refuted)} attacks refute it; the first: image {one.index} is certified as "
                f"{one.certified} to {one.radius:.3f}, but at distance {one.distance:.3f} it is {one.prediction}"
            )
        if not self.is_sound:
            first = self.checked.differences[0]
            return f"{len(self.checked.differences)} values do not follow from the votes; the first: {first}"
        if not self.is_certified:
            return f"{bound.NOT_VALID}; its radii are no certificates"
        text = "every bound and radius was computed again from its votes, without a difference"
        return f"{text}; {len(self.attempts)} attacks refute none" if self.attempts else text


def read(paths: Sequence[jsonl.Path]) -> list[Run]:
    """Reads the runs of some files.

    Args:
      paths: files of certificates (`.jsonl`), files of attacks on these certificates, published results in the
        format of Cohen et al. (`.tsv`), and archives of such files (`.tar.gz`).

    Returns:
      One run for each file of certificates or published results; attacks are added to the runs that they attack.

    Raises:
      ValueError: a file is none of these, is given twice, holds no image, or has images without labels; or attacks
        are on certificates of none of the files.
    """
    files = [(pathlib.Path(name), text) for path in paths for name, text in jsonl.texts(path)]
    attacks = [file for file in files if attempts.is_file(file[1])]
    others = [file for file in files if not attempts.is_file(file[1])]
    names = _names([path for path, _ in others])
    runs = [_run(name, path, text) for name, (path, text) in zip(names, others, strict=True)]
    for path, text in attacks:
        _attach(runs, path, attempts.parse(str(path), text))
    return runs


def _attach(runs: Sequence[Run], path: pathlib.Path, file: attempts.File) -> None:
    """Adds attacks to the runs whose certificates they attack."""
    certificates = file.header.get("certificates")
    attacked = [run for run in runs if run.checked and run.checked.header["sha256"] == certificates]
    if not attacked:
        raise ValueError(f"{path} has attacks on certificates that are not among the files")
    for run in attacked:
        run.attempts.extend(file.attempts)


def _run(name: str, path: pathlib.Path, text: str) -> Run:
    checked = None if path.suffix == ".tsv" else verification.verify_text(str(path), text)
    found: Sequence[statements.Image] = cohen.parse(str(path), text) if checked is None else checked.found
    if not found:
        raise ValueError(f"{path} has no image yet; a report needs at least one")
    if any(line.correct is None for line in found):
        raise ValueError(f"{path} has images without a label; a report needs labels")
    return Run(name, path, found, checked)


def _names(paths: list[pathlib.Path]) -> list[str]:
    """Returns the stems of paths, each preceded by the fewest folders that make all of them different."""
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = ["/".join(path.parts[-depth:]).removesuffix(".gz") for path in paths]
        names = [name.rpartition(".")[0] or name for name in names]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a file of certificates is given twice" if paths else "no file of certificates is given")
