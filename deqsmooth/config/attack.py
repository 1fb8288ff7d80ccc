"""Settings of attacks."""

from __future__ import annotations

import dataclasses

from deqsmooth.config import checks

TARGETS = ("smoothed", "base")


@dataclasses.dataclass(frozen=True)
class Attack:
    """Settings of projected gradient ascent in L2, which changes images to lower the probability of their label.

    Attributes:
      target: `smoothed`, whose expectation over noise is approximated by a few draws, or `base`, the base
        classifier without noise.
      steps: steps of an ascent.
      step_size: length of a step, as a share of the radius; by default 2.5 / steps, which can cross the ball.
      restarts: ascents from different points, of which the largest loss counts; the first begins at the image.
      draws: noise draws, the same in every step.
      gradient_budget: terms of the Neumann series of the implicit gradient.
      num_estimation: samples of the prediction that decides whether an attack succeeded.
      alpha: largest probability that this prediction is wrong.
      seed: of the first points and of all noise.

    Raises:
      ValueError: a setting is out of range.

    Example:
      >>> import deqsmooth as ds
      >>> ds.Attack(steps=40, restarts=2).step_size
      0.0625
    """

    target: str = "smoothed"
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    draws: int = 16
    gradient_budget: int = 8
    num_estimation: int = 1000
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.known("target", self.target, TARGETS)
        checks.positive(self, "steps", "restarts", "draws", "gradient_budget", "num_estimation")
        checks.holds(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")
        object.__setattr__(self, "step_size", self.relative_step)
        checks.holds(self.relative_step > 0, "step_size", self.step_size, "positive")
        checks.holds(0 < self.alpha < 1, "alpha", self.alpha, "in (0, 1)")

    @property
    def relative_step(self) -> float:
        """Length of a step, as a share of the radius."""
        return 2.5 / self.steps if self.step_size is None else self.step_size
