"""Results of attacks: one line an attempt, in a JSONL file that begins with the settings of the attack."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from deqsmooth.certificates import jsonl

KIND = "attack"
"""Of the header of such a file; its `certificates` is the digest of the header of the certificates' file."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """The result of an attack on an image within one radius.

    Attributes:
      index: of the image in its split.
      label: its class.
      budget: largest L2 distance that the attack was allowed.
      distance: L2 distance of the attacked image from the image.
      prediction: class of the attacked image; None if the smoothed classifier abstains.
      certified: class of the certificate; None if it abstains.
      radius: certified radius.
      refutes: whether the attacked image lies within the certified radius and has another smoothed class.
    """

    index: int
    label: int
    budget: float
    distance: float
    prediction: int | None
    certified: int | None
    radius: float
    refutes: bool

    @property
    def correct(self) -> bool:
        """Whether the certified class is the label."""
        return self.certified == self.label


class File(NamedTuple):
    """A file of attempts.

    Attributes:
      header: its first line.
      attempts: the others.
    """

    header: dict[str, Any]
    attempts: list[Attempt]


def is_file(text: str) -> bool:
    """Whether the header of a text says that it holds attempts."""
    try:
        return jsonl.objects("", text.partition("\n")[0])[0].get("kind") == KIND
    except (ValueError, IndexError):
        return False


def parse(name: str, text: str) -> File:
    """The attempts of a text; `name` stands for it in errors.

    Raises:
      ValueError: a line is no attempt.
    """
    header, *lines = jsonl.objects(name, text)
    found = []
    for number, values in enumerate(lines, 2):
        try:
            attempt = Attempt(**values)
            numbers = (attempt.budget, attempt.distance, attempt.radius)
            if (
                not all(isinstance(x, int | float) and x >= 0 for x in numbers)
                or type(attempt.refutes) is not bool
            ):
                raise ValueError("budget, distance and radius are numbers from 0, refutes is true or false")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}, line {number}, is no attempt: {error}") from None
        found.append(attempt)
    if not found:
        raise ValueError(f"{name} holds no attempt yet")
    return File(header, found)


def refutes(target: str, distance: float, prediction: int | None, certified: int | None, radius: float) -> bool:
    """Whether an attacked image refutes a certificate: it lies within the radius and has another smoothed class.

    Args:
      target: the classifier that was attacked; only the smoothed one has certificates.
      distance: of the attacked image.
      prediction: its class; None if the smoothed classifier abstains.
      certified: class of the certificate; None if it abstains.
      radius: of the certificate.
    """
    other = certified is not None and prediction not in (None, certified)
    return target == "smoothed" and other and distance < radius


def differences(file: File) -> list[str]:
    """Values of a file that do not follow from the rest of it, a sentence each."""
    found = []
    target = file.header["attack"]["target"]
    seen: set[tuple[int, float]] = set()
    for number, one in enumerate(file.attempts, 2):
        expected = refutes(target, one.distance, one.prediction, one.certified, one.radius)
        if one.refutes != expected:
            found.append(f"line {number}: refutes is {one.refutes}; it should be {expected}")
        if one.distance > one.budget:
            found.append(f"line {number}: distance is {one.distance}; the attack was to stay within {one.budget}")
        if one.budget not in file.header["radii"] or (one.index, one.budget) in seen:
            found.append(
                f"line {number}: radius {one.budget} of image {one.index} is there twice or was not asked for"
            )
        seen.add((one.index, one.budget))
    return found


def robust_accuracy(found: list[Attempt]) -> list[tuple[float, float]]:
    """Each radius, and the share of its attempts whose prediction is the label.

    An abstention is not the label, as for certified accuracy.
    """
    radii = sorted({attempt.budget for attempt in found})
    at = [[attempt for attempt in found if attempt.budget == radius] for radius in radii]
    return [
        (radius, sum(attempt.prediction == attempt.label for attempt in own) / len(own))
        for radius, own in zip(radii, at, strict=True)
    ]
