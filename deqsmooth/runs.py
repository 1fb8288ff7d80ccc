"""Files side by side: certificates, verified as they are read, and published results.

Needs neither JAX nor the model.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from deqsmooth import certificates, cohen, statements, verification


@dataclasses.dataclass(frozen=True)
class Run:
    """A file to be shown.

    Attributes:
      name: short name of the file, another for each.
      path: of the file.
      found: its lines.
      checked: what verification says of it; None for a published result, which holds no counts.
    """

    name: str
    path: pathlib.Path
    found: Sequence[statements.Line]
    checked: verification.Checked | None

    @property
    def is_certified(self) -> bool:
        """Whether its radii are certificates: they have counts, and their bound is valid."""
        return self.checked is not None and all(c.warning is None for c in self.checked.found)

    @property
    def is_sound(self) -> bool:
        """Whether everything in it follows from its votes; nothing is known of a published result."""
        return self.checked is None or not self.checked.differences

    def verdict(self) -> str:
        """What verification found, a sentence."""
        if self.checked is None:
            return "published radii, which cannot be verified because their counts are not known"
        if not self.is_sound:
            first = self.checked.differences[0]
            return f"{len(self.checked.differences)} values do not follow from the votes; the first: {first}"
        if not self.is_certified:
            return f"{certificates.NOT_VALID}; its radii are no certificates"
        return "every bound and radius was computed again from its votes, without a difference"


def read(paths: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """The runs of some files: certificates, or results in the format of Cohen et al. (`.tsv`).

    Raises:
      ValueError: a file is neither, holds no image, or its labels are not known.
    """
    runs = []
    for path, name in zip(map(pathlib.Path, paths), _names([pathlib.Path(path) for path in paths]), strict=True):
        checked = None if path.suffix == ".tsv" else verification.verify(path)
        found: Sequence[statements.Line] = cohen.read(path) if checked is None else checked.found
        if not found:
            raise ValueError(f"{path} holds no image yet; a report needs at least one")
        if any(line.correct is None for line in found):
            raise ValueError(f"{path} has images without a label; accuracy needs them")
        runs.append(Run(name, path, found, checked))
    return runs


def _names(paths: list[pathlib.Path]) -> list[str]:
    """The stems of paths, with folders before them where they would be alike."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a file is given twice")
