"""Files side by side: certificates, verified as they are read, and published results.

Needs neither JAX nor the model.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from deqsmooth.certificates import attempts, cohen, record, statements, verification
from deqsmooth.certificates.attempts import Attempt


@dataclasses.dataclass(frozen=True)
class Run:
    """A file to be shown.

    Attributes:
      name: short name of the file, another for each.
      path: of the file.
      found: its lines.
      checked: what verification says of it; None for a published result, which holds no counts.
      attempts: attacks on its images.
    """

    name: str
    path: pathlib.Path
    found: Sequence[statements.Line]
    checked: verification.Checked | None
    attempts: list[Attempt] = dataclasses.field(default_factory=list)

    @property
    def is_certified(self) -> bool:
        """Whether its radii are certificates: they have counts, and their bound is valid."""
        return self.checked is not None and all(c.warning is None for c in self.checked.found)

    @property
    def is_sound(self) -> bool:
        """Whether everything in it follows from its votes and no attack refutes it, as far as that is known."""
        return not self.refuted and (self.checked is None or not self.checked.differences)

    @property
    def refuted(self) -> list[Attempt]:
        """Attempts that changed the class of an image within its certified radius."""
        return [attempt for attempt in self.attempts if attempt.refutes]

    def verdict(self) -> str:
        """What verification found, a sentence."""
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
            return f"{record.NOT_VALID}; its radii are no certificates"
        text = "every bound and radius was computed again from its votes, without a difference"
        return f"{text}; {len(self.attempts)} attacks refute none" if self.attempts else text


def read(paths: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """The runs of some files: certificates, and results in the format of Cohen et al. (`.tsv`).

    Files of attacks may be among them; they belong to the certificates that they name.

    Raises:
      ValueError: a file is none of these, holds no image, or its labels are not known.
    """
    files = [pathlib.Path(path) for path in paths]
    attacked = [path for path in files if attempts.is_file(path)]
    files = [path for path in files if path not in attacked]
    runs = [_read_one(path, name) for path, name in zip(files, _names(files), strict=True)]
    for path in attacked:
        file = attempts.read(path)
        own = [
            run for run in runs if run.checked and run.checked.header["sha256"] == file.header.get("certificates")
        ]
        if not own:
            raise ValueError(f"{path} holds attacks on certificates that are not among the files")
        for run in own:
            run.attempts.extend(file.attempts)
    return runs


def _read_one(path: pathlib.Path, name: str) -> Run:
    checked = None if path.suffix == ".tsv" else verification.verify(path)
    found: Sequence[statements.Line] = cohen.read(path) if checked is None else checked.found
    if not found:
        raise ValueError(f"{path} holds no image yet; a report needs at least one")
    if any(line.correct is None for line in found):
        raise ValueError(f"{path} has images without a label; accuracy needs them")
    return Run(name, path, found, checked)


def _names(paths: list[pathlib.Path]) -> list[str]:
    """The stems of paths, with folders before them where they would be alike."""
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a file of certificates is given twice" if paths else "no file of certificates is given")
