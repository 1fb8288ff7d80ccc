"""Settings of certificates that are made from those of another classifier."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from deqsmooth.config import checks
from deqsmooth.config.smoothing import Smoothing
from deqsmooth.statistics import bounds, robustness


@dataclasses.dataclass(frozen=True)
class Paired(Smoothing):
    """Settings of certificates that are made from those of another classifier, for `ds.recertify`.

    `ds.paired` makes them. The settings of `ds.Smoothing` are as above; `sampler` is `independent`.

    Attributes:
      num_pairs: samples of an image on which both classifiers are evaluated.
      alpha_pairs: part of alpha that the pairs take; a tenth of it by default.
    """

    sampler: str = "independent"
    bound: str | None = bounds.PAIRED
    num_pairs: int = 1000
    alpha_pairs: float | None = None

    independent_bounds: ClassVar[tuple[str | None, ...]] = (bounds.PAIRED,)

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.holds(self.sampler == "independent", "sampler", repr(self.sampler), "'independent' with pairs")
        checks.positive(self, "num_pairs")
        if self.alpha_pairs is None:
            object.__setattr__(self, "alpha_pairs", self.alpha / 10)
        rule = f"in (0, alpha = {self.alpha})"
        checks.holds(0 < self.pairs(0).alpha < self.alpha, "alpha_pairs", self.alpha_pairs, rule)
        super().__post_init__()

    @property
    def cap(self) -> float:
        """Radius of unanimous votes of which the pairs lose none: no certificate can be larger."""
        votes = self.num_estimation
        p_lower = bounds.lower_bound(votes, votes, self.look_alphas[votes], pairs=self.pairs(0))
        return robustness.radius(p_lower, self.sigma)

    def pairs(self, lost: int) -> bounds.Pairs:
        """The pairs of an image."""
        return bounds.Pairs(self.num_pairs, lost, self.alpha_pairs or 0.0)

    @property
    def alpha_count(self) -> float:
        """The part of alpha for the counts, all looks together."""
        return self.alpha - (self.alpha_pairs or 0.0)
