"""The plan of a file: which images it is to hold. A plan line says it, and an end line that all of it is done."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from deqsmooth.config import checks

_LARGEST = 10_000_000
_PART = re.compile(r"\d{1,12}|\d{1,12}:\d{1,12}(:\d{1,12})?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The images of a run, and the share of them that a file is to hold; a line of the file says it.

    Do not confuse it with what `ds.plan` returns.

    Attributes:
      images: indices of the whole run, of all shares, increasing.
      share: (number, total); the file holds every total-th of the images, from the number-th on.

    Raises:
      ValueError: there is no image, an index is negative or does not exceed the one before it, or the share does
        not exist.

    Example:
      >>> import deqsmooth as ds
      >>> plan = ds.Plan(range(0, 40, 8), (1, 2))
      >>> plan.own
      (8, 24)
      >>> plan.to_json()
      {'kind': 'plan', 'images': '0:40:8', 'share': [1, 2]}
    """

    images: Sequence[int]
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        images, (number, total) = tuple(self.images), self.share
        object.__setattr__(self, "images", images)
        checks.holds(0 < len(images) <= _LARGEST, "images", f"{len(images)} indices", f"1 to {_LARGEST:,}")
        increasing = all(a < b for a, b in itertools.pairwise(images))
        checks.holds(increasing and images[0] >= 0, "images", first(images), "increasing indices from 0 on")
        checks.holds(0 <= number < total, "share", f"{number} of {total}", "a number from 0 below a total")

    @property
    def own(self) -> Sequence[int]:
        """The images that the file is to hold."""
        return self.images[self.share[0] :: self.share[1]]

    def to_json(self) -> dict[str, Any]:
        """The values of the plan line."""
        return {"kind": "plan", "images": text(self.images), "share": list(self.share)}


class End(NamedTuple):
    """What an end line says: every image of the plans before it was done.

    Attributes:
      certificates: number of images with a certificate.
      unreadable: number of images without one, because they could not be read.
    """

    certificates: int
    unreadable: int

    def to_json(self) -> dict[str, Any]:
        """The values of the end line."""
        return {"kind": "end", **self._asdict()}


def from_json(values: dict[str, Any]) -> Plan | End:
    """The plan or the end that the values of a line say.

    Raises:
      ValueError: they say neither.
    """
    kind, others = values["kind"], {name: x for name, x in values.items() if name != "kind"}
    checks.holds(kind in ("plan", "end"), "kind", repr(kind), "'plan' or 'end', or left out in a certificate")
    names = ("images", "share") if kind == "plan" else End._fields
    checks.holds(others.keys() == set(names), f"the {kind} line", list(others), f"the entries {list(names)}")
    if kind == "end":
        for name, number in others.items():
            checks.holds(_is_count(number), name, repr(number), "a whole number from 0")
        return End(**others)
    images, share = others["images"], others["share"]
    checks.holds(isinstance(images, str), "images", repr(images), "a text such as '0:360:8'")
    is_pair = isinstance(share, list) and len(share) == 2 and all(map(_is_count, share))
    checks.holds(is_pair, "share", repr(share), "a number and a total")
    return Plan(_indices(images), (share[0], share[1]))


def text(images: Sequence[int]) -> str:
    """Increasing indices as the shortest list of slices and single numbers, separated by commas.

    Example:
      >>> text([0, 8, 16, 17, 30]), text(range(4))
      ('0:24:8,17,30', '0:4')
    """
    parts = []
    begin = 0
    while begin < len(images):
        end = begin + 1
        step = images[end] - images[begin] if end < len(images) else 1
        while end < len(images) and images[end] - images[end - 1] == step:
            end += 1
        # Two indices are no shorter as a slice, and the second may begin the next one.
        if end - begin < 3:
            end = begin + 1
            parts.append(str(images[begin]))
        else:
            stop = images[end - 1] + step
            parts.append(f"{images[begin]}:{stop}" if step == 1 else f"{images[begin]}:{stop}:{step}")
        begin = end
    return ",".join(parts)


def first(images: Sequence[int], num: int = 5) -> str:
    """The first indices for a message.

    Example:
      >>> first([3, 4]), first(range(9), 2)
      ('3, 4', '0, 1, ...')
    """
    return ", ".join(map(str, images[:num])) + (", ..." if len(images) > num else "")


def _indices(images: str) -> Sequence[int]:
    parts = []
    for part in images.split(","):
        checks.holds(
            _PART.fullmatch(part) is not None, "images", repr(images), "slices such as '0:360:8', or numbers"
        )
        begin, *others = map(int, part.split(":"))
        step = others[1] if len(others) == 2 else 1
        checks.holds(step > 0, "images", repr(images), "slices with a positive step")
        parts.append(range(begin, others[0] if others else begin + 1, step))
    checks.holds(sum(map(len, parts)) <= _LARGEST, "images", images[:40], f"at most {_LARGEST:,} indices")
    return [index for part in parts for index in part]


def _is_count(number: Any) -> bool:
    return type(number) is int and number >= 0
