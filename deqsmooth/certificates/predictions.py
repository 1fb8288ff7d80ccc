"""Predictions: one line an image with its votes and its smoothed class, which follows from them.

The header is that of certificates with the same settings, with another `kind` and their digest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from deqsmooth import config
from deqsmooth.certificates import headers, jsonl, record
from deqsmooth.statistics import significance

KIND = "predictions"
"""Of the header of such a file."""
_HEADER = "header"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction of an image.

    Attributes:
      index: of the image in its split.
      label: class in the data set; None if unknown.
      prediction: class of the smoothed classifier, with probability at least 1 - alpha; None if it abstains.
      counts: votes by class; the last entry counts samples that were not finite.
    """

    index: int
    label: int | None
    prediction: int | None
    counts: tuple[int, ...]

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is the label; None if the label is unknown."""
        return record.is_correct(self.prediction, self.label)


class File(NamedTuple):
    """A file of predictions.

    Attributes:
      name: of the file.
      header: its first line.
      predictions: the others; a last line that was cut off is not among them.
      is_whole: whether no line was cut off.
    """

    name: str
    header: dict[str, Any]
    predictions: list[Prediction]
    is_whole: bool


def header(certificates: dict[str, Any]) -> dict[str, Any]:
    """The header of a file of predictions, from that of certificates with the same settings."""
    return {**certificates, "kind": KIND}


def parse(name: str, text: str) -> File:
    """The predictions of a text; `name` stands for it in errors.

    Raises:
      ValueError: the header is none of predictions, or a line is no prediction.
    """
    header, found, is_whole = jsonl.records(name, text, Prediction)
    if header.get("kind") != KIND:
        raise ValueError(f"{name}, line 1, is no header of a file of predictions")
    return File(name, header, found, is_whole)


def differences(file: File) -> list[str]:
    """Values of a file that do not follow from the rest of it, a sentence each.

    Raises:
      ValueError: the header holds no settings of predictions.
    """
    terms = headers.terms(file.name, file.header)
    found = [f"line 1: {message}" for message in headers.check_digest({**file.header, "kind": _HEADER})]
    seen: dict[int, int] = {}
    for number, one in enumerate(file.predictions, 2):
        messages = list(terms.check_index(one.index))
        if one.index in seen:
            messages.append(f"image {one.index} has a prediction already, in line {seen[one.index]}")
        seen.setdefault(one.index, number)
        messages += _check_votes(one, terms)
        found += [f"line {number}: {message}" for message in messages]
    return found


def smoothed_class(counts: Sequence[int], settings: config.Smoothing, noise_error: float) -> int | None:
    """Returns the class that votes predict, or None; see `deqsmooth.statistics.significance.smoothed_class`.

    Args:
      counts: votes by class [classes + 1]; the last entry counts samples without a vote. Where votes are settled
        by proof, each of these may be for any class; elsewhere it is for none.
      settings: of the prediction.
      noise_error: of a sample, see `ds.Smoothing.noise_error`; that of all samples is taken off alpha.
    """
    unknown = 0 if settings.settle is None else counts[-1]
    alpha = settings.alpha - sum(counts) * noise_error
    return significance.smoothed_class(counts[:-1], alpha, unknown)


def read(name: str, text: str) -> list[Prediction]:
    """The predictions of a file in which a run is to go on.

    Raises:
      ValueError: a line is no prediction, or does not follow from its votes.
    """
    file = parse(name, text)
    for message in differences(file):
        raise ValueError(f"{name}, {message}; {jsonl.RULE}")
    return file.predictions


def _check_votes(one: Prediction, terms: headers.Terms) -> Iterator[str]:
    """Yields values of a prediction that do not follow from its votes and the settings."""
    settings = terms.settings
    if len(one.counts) < 3 or min(one.counts) < 0:
        yield f"counts is {list(one.counts)}; it must be votes by class, whole numbers from 0"
        return
    if sum(one.counts) != settings.num_estimation:
        yield f"counts adds up to {sum(one.counts)}; the header says {settings.num_estimation}"
        return
    classes = len(one.counts) - 1
    expected = smoothed_class(one.counts, settings, terms.noise_error)
    if one.prediction != expected:
        yield f"prediction is {one.prediction}; it should be {expected}"
    if one.label is not None and not 0 <= one.label < classes:
        yield f"label is {one.label}; it must be from 0 to {classes - 1}"
