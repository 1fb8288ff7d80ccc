"""Results of attacks: one line an attempt, in a JSONL file that begins with the settings of the attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from deqsmooth.certificates import jsonl, record
from deqsmooth.config import checks

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

    def __post_init__(self) -> None:
        for name in ("index", "label", "budget", "distance", "radius"):
            checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")

    @property
    def correct(self) -> bool:
        """Whether the certified class is the label."""
        return self.certified == self.label


class File(NamedTuple):
    """A file of attempts.

    Attributes:
      header: its first line.
      attempts: the others; a last line that was cut off is not among them.
      is_whole: whether no line was cut off.
    """

    header: dict[str, Any]
    attempts: list[Attempt]
    is_whole: bool


def is_file(text: str) -> bool:
    """Whether the header of a text says that it holds attempts."""
    return jsonl.kind(text) == KIND


def parse(name: str, text: str) -> File:
    """The attempts of a text; `name` stands for it in errors.

    Raises:
      ValueError: the header is none of attacks, a line is no attempt, or there is none.
    """
    file = _parse(name, text)
    if not file.attempts:
        raise ValueError(f"{name} holds no attempt yet")
    return file


def read(name: str, text: str, certificates: Sequence[record.Certificate]) -> list[Attempt]:
    """The attempts of a file in which a run is to go on; there may be none.

    Raises:
      ValueError: see `parse`, or the file has differences; see `differences`.
    """
    file = _parse(name, text)
    for message in differences(file, certificates):
        raise ValueError(f"{name}, {message}; {jsonl.RULE}")
    return file.attempts


def _parse(name: str, text: str) -> File:
    file = File(*jsonl.records(name, text, Attempt))
    attack, radii = file.header.get("attack"), file.header.get("radii")
    target = attack.get("target") if isinstance(attack, dict) else None
    has_radii = isinstance(radii, list) and all(type(x) in (int, float) for x in radii)
    is_complete = has_radii and isinstance(target, str) and "certificates" in file.header
    if file.header.get("kind") != KIND or not is_complete:
        raise ValueError(
            f"{name}, line 1, is no header of a file of attacks, with the entries certificates, attack and radii"
        )
    return file


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


def differences(file: File, certificates: Sequence[record.Certificate] | None = None) -> list[str]:
    """Values of a file that do not follow from the rest of it, a sentence each.

    Args:
      file: the attempts.
      certificates: that were attacked; if given, each attempt must repeat what they say of its image.
    """
    found = []
    target = file.header["attack"]["target"]
    attacked = {} if certificates is None else {one.index: one for one in certificates}
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
        if certificates is not None:
            found += [f"line {number}: {message}" for message in _of_another(one, attacked.get(one.index))]
    return found


def _of_another(one: Attempt, certificate: record.Certificate | None) -> Iterator[str]:
    """Yields what an attempt says of its certificate and the certificate does not."""
    if certificate is None:
        yield f"image {one.index} has no certificate"
        return
    for name, stated in (("label", certificate.label), ("certified", certificate.prediction)):
        if getattr(one, name) != stated:
            yield f"{name} is {getattr(one, name)}; by the certificate of image {one.index} it is {stated}"
    if one.radius != certificate.radius:
        yield f"radius is {one.radius}; by the certificate of image {one.index} it is {certificate.radius}"


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
