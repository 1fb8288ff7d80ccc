"""What attacks came to, one line an attempt, in a JSONL file that begins with how they were made.

Needs neither JAX nor the model.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any, NamedTuple

KIND = "attack"
"""Of the header of such a file; its `certificates` is the digest of the header of the certificates' file."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What an attack on an image came to.

    Attributes:
      index: of the image in its split.
      label: its class.
      budget: radius within which the attack was to stay.
      distance: L2 distance of the attacked image from the image.
      prediction: class of the attacked image; None if the smoothed classifier abstains.
      certified: class of the certificate; None if it abstains.
      radius: certified radius.
      refutes: whether the smoothed class of an image nearer than the radius is not the certified one.
    """

    index: int
    label: int
    budget: float
    distance: float
    prediction: int | None
    certified: int | None
    radius: float
    refutes: bool


class File(NamedTuple):
    """A file of attempts.

    Attributes:
      header: its first line.
      attempts: the others.
    """

    header: dict[str, Any]
    attempts: list[Attempt]


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file says of itself that it holds attempts."""
    try:
        with pathlib.Path(path).open() as file:
            return json.loads(file.readline()).get("kind") == KIND
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def read(path: str | os.PathLike[str]) -> File:
    """The attempts of a file.

    Raises:
      ValueError: a line is none.
    """
    header, *lines = pathlib.Path(path).read_text().splitlines()
    found = []
    for number, line in enumerate(lines, 2):
        try:
            attempt = Attempt(**json.loads(line))
            numbers = (attempt.budget, attempt.distance, attempt.radius)
            if (
                not all(isinstance(x, int | float) and x >= 0 for x in numbers)
                or type(attempt.refutes) is not bool
            ):
                raise ValueError("budget, distance and radius are numbers from 0, refutes is true or false")
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}, is no attempt: {error}") from None
        found.append(attempt)
    if not found:
        raise ValueError(f"{path} holds no attempt yet")
    return File(json.loads(header), found)


def refutes(target: str, distance: float, prediction: int | None, certified: int | None, radius: float) -> bool:
    """Whether an attacked image refutes a certificate: nearer than the radius, with another smoothed class.

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
    """What in a file does not follow from the rest of it, a sentence each."""
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
    """Radii, and the share of images whose class no attempt within each could change.

    An image on which the smoothed classifier abstains counts as broken, as it does for certified accuracy.
    """
    radii = sorted({attempt.budget for attempt in found})
    at = [[attempt for attempt in found if attempt.budget == radius] for radius in radii]
    return [
        (radius, sum(attempt.prediction == attempt.label for attempt in own) / len(own))
        for radius, own in zip(radii, at, strict=True)
    ]
