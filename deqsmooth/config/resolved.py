"""Resolved settings of certification: those of a sampler, in which nothing that it needs is None."""

from __future__ import annotations

import dataclasses

from deqsmooth.config.smoothing import Smoothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved(Smoothing):
    """Settings in which every number is known that the sampler or the devices decide; see `layout.resolve`."""

    solver: str
    start: str
    budget: int
    lanes: int
    images_per_batch: int
    block: int

    @property
    def evaluations(self) -> int:
        """Largest number of cell evaluations of one image, those of pairs left out."""
        return self.budget * (self.num_selection + self.num_estimation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Independent(Resolved):
    """Resolved settings of the independent sampler."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serial(Resolved):
    """Resolved settings of the serial sampler."""

    warmup_budget: int
    reference_budget: int
    num_audit: int
    alpha_audit: float
    bound: str

    @property
    def evaluations(self) -> int:
        """Largest number of cell evaluations of one image, warm-up and audit included."""
        # Every phase begins with a warm-up of every lane.
        warm_up = 2 * self.lanes * self.warmup_budget
        return super().evaluations + warm_up + self.num_audit * self.reference_budget
