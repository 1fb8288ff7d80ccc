"""The counts of one image: what a sampler gives, and what a bound is made from."""

from __future__ import annotations

import dataclasses

import numpy as np

from deqsmooth.certificates import record
from deqsmooth.statistics import bounds


@dataclasses.dataclass(frozen=True)
class Image:
    """An image to certify.

    Attributes:
      index: in its data set; its noise depends on it.
      pixels: float32 in [0, 1] [H, W, C].
      label: its class; None if unknown.
    """

    index: int
    pixels: np.ndarray
    label: int | None


@dataclasses.dataclass(frozen=True)
class Tally:
    """The counts of one image.

    Attributes:
      image: the image.
      counts_selection: votes of the selection by class [classes + 1]; the last entry counts samples that were not
        finite.
      counts: the same of the estimation.
      audit: of serial votes, else None.
      work: what the counts took.
    """

    image: Image
    counts_selection: tuple[int, ...]
    counts: tuple[int, ...]
    audit: bounds.Audit | None
    work: record.Work
