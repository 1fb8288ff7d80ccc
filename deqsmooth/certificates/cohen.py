"""Result files in the format of Cohen et al. (2019), read and written: tab-separated, one image a line.

The columns are `idx, label, predict, radius, correct, time`; `predict` is -1 if the run abstained. The files hold
no counts, so that their radii can be compared but not verified.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import pathlib
from collections.abc import Iterable

from deqsmooth.certificates import jsonl, record, rounding

_COLUMNS = ["idx", "label", "predict", "radius", "correct", "time"]
_ABSTAINS = -1


@dataclasses.dataclass(frozen=True)
class Published:
    """A line of a result file.

    Attributes:
      index: of the image in its split.
      label: its class.
      prediction: certified class; None if the run abstained.
      radius: as it was rounded there, in the unit of sigma.
      correct: whether prediction and label agree.
      seconds: spent on the image.
    """

    index: int
    label: int
    prediction: int | None
    radius: float
    correct: bool
    seconds: float


def read(path: jsonl.Path) -> list[Published]:
    """The lines of a result file.

    Args:
      path: the file, which may be compressed (`.gz`).

    Raises:
      ValueError: the file cannot be read, or a line breaks the format.
    """
    return parse(str(path), jsonl.text(path))


def parse(name: str, text: str) -> list[Published]:
    """The lines of the text of a result file; `name` stands for the file in errors.

    Raises:
      ValueError: a line breaks the format.
    """
    rows = list(csv.reader(text.splitlines(), delimiter="\t"))
    if not rows or rows[0] != _COLUMNS:
        raise ValueError(f"{name} does not begin with the columns {', '.join(_COLUMNS)}")
    found = []
    for number, row in enumerate(rows[1:], 2):
        try:
            index, label, prediction, radius, correct, time = row
            line = Published(
                int(index),
                int(label),
                None if int(prediction) == _ABSTAINS else int(prediction),
                float(radius),
                bool(int(correct)),
                _seconds(time),
            )
            if line.correct != (line.prediction == line.label):
                raise ValueError(f"correct is {correct} for label {label} and prediction {prediction}")
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None
        found.append(line)
    return found


def write(path: jsonl.Path, found: Iterable[record.Certificate]) -> None:
    """Writes certificates as a result file, with radii rounded down.

    Args:
      path: the file; it is replaced if it exists.
      found: the certificates, whose labels are known.

    Raises:
      ValueError: a label is not known, or the file cannot be written.
    """
    lines = ["\t".join(_COLUMNS)]
    for certificate in found:
        if certificate.label is None:
            raise ValueError(f"image {certificate.index} has no label, which the format asks for")
        values = (
            certificate.index,
            certificate.label,
            _ABSTAINS if certificate.prediction is None else certificate.prediction,
            rounding.radius(certificate.radius),
            int(bool(certificate.correct)),
            datetime.timedelta(seconds=certificate.seconds),
        )
        lines.append("\t".join(map(str, values)))
    try:
        pathlib.Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from None


def _seconds(text: str) -> float:
    """Seconds, from a number of them or from hours:minutes:seconds."""
    hours, minutes, seconds = (["0", "0"] + text.split(":"))[-3:]
    return 3600 * float(hours) + 60 * float(minutes) + float(seconds)
