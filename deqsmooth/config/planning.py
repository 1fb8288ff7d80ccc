"""Settings of planning: the radius to certify, and the size of the pilot runs."""

from __future__ import annotations

import dataclasses

from deqsmooth.config import checks, solve


@dataclasses.dataclass(frozen=True)
class Planning:
    """Settings of the search for the cheapest way to certify a radius.

    Attributes:
      radius: wanted L2 radius, in pixels of [0, 1].
      sigma: standard deviation of the noise, in the same unit.
      alpha: largest probability that a certificate is false.
      max_samples: largest number of samples of an image.
      slack: tolerated difference of the expected certified accuracy from the best.
      pilot_images: number of evenly spaced images of a pilot run.
      pilot_samples: samples of each.
      pilot_audit: audited votes of each, for serial sampling.
      dtype: floating point type of the cell.
      seed: of the pilot's noise and of the simulation; it must differ from the seed of the certificates.

    Raises:
      ValueError: a setting is out of range.
    """

    radius: float
    sigma: float = 0.5
    alpha: float = 0.001
    max_samples: int = 100_000
    slack: float = 0.01
    pilot_images: int = 24
    pilot_samples: int = 400
    pilot_audit: int = 100
    dtype: str = "float32"
    seed: int = 2**32 - 1

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.finite_positive("radius", self.radius)
        solve.check_noise(self.sigma, self.seed, self.dtype)
        checks.holds(0 < self.alpha < 1, "alpha", self.alpha, "in (0, 1)")
        checks.holds(0 <= self.slack < 1, "slack", self.slack, "in [0, 1)")
        checks.positive(self, "max_samples", "pilot_images", "pilot_samples", "pilot_audit")
        checks.holds(
            self.pilot_audit <= self.pilot_samples,
            "pilot_audit",
            self.pilot_audit,
            f"at most pilot_samples, {self.pilot_samples}",
        )
