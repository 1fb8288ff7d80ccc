"""Settings of a plan: what is to be certified, and how much may be spent on finding out at what cost."""

from __future__ import annotations

import dataclasses
import math

from deqsmooth.config import checks, solve


@dataclasses.dataclass(frozen=True)
class Planning:
    """What a plan is made for, and the pilot that it is made from.

    Attributes:
      radius: wanted L2 radius, in pixels of [0, 1].
      sigma: standard deviation of the noise, in the same unit.
      alpha: probability that a certificate is false, at most.
      max_samples: largest number of samples of an image.
      slack: by how much the expected certified accuracy may fall behind the best that was found; see
        `planning.choose`.
      pilot_images: how many images the pilot certifies, evenly spaced.
      pilot_samples: with how many samples each.
      pilot_audit: of which so many are audited, for serial sampling.
      dtype: floating point type of the cell.
      seed: of the noise of the pilot, which the certificates must not see again, and of the simulation.
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
        checks.holds(
            math.isfinite(self.radius) and self.radius > 0, "radius", self.radius, "a finite positive number"
        )
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
