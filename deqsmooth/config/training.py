"""Settings of training: of a model, and of the start of a trained one."""

from __future__ import annotations

import dataclasses

from deqsmooth import architecture, checks
from deqsmooth.config import selection, solve

GRADIENTS = ("one-step", "phantom", "neumann", "anderson", "broyden", "gmres", "normal-cg")
OPTIMISERS = ("adamw", "sgd")


@dataclasses.dataclass(frozen=True)
class Training:
    """How a model is trained under Gaussian noise.

    Attributes:
      dataset: name of the data set: `digits`, `cifar10` or `imagenet`.
      data_dir: TFDS data directory; by default its own.
      sigma: standard deviation of the noise, in pixels of [0, 1].
      epochs: passes over the training split.
      batch_size: images an update.
      optimiser: `adamw`, or `sgd` with Nesterov momentum 0.9.
      learning_rate: peak of the schedule.
      final_learning_rate: where its cosine ends.
      warmup: share of the updates over which the rate first rises from 0, linearly.
      weight_decay: of AdamW, or the weight of |params|^2 / 2 with SGD.
      clip_norm: global gradient norm at which gradients are clipped.
      pretraining_epochs: first epochs, with the cell unrolled and differentiated through.
      pretraining_budget: evaluations of the unrolled cell.
      solver: of the forward pass after that.
      budget: evaluations of the forward pass.
      gradient: how gradients pass the equilibrium: `one-step` (Jacobian-free), `phantom`, or implicit
        with the linear system solved by `neumann` terms, `anderson`, `broyden`, `gmres` or `normal-cg`.
      gradient_budget: terms, unrolled steps or iterations of the gradient; `one-step` takes one.
      jacobian_weight: weight of the Jacobian penalty.
      jacobian_frequency: share of the updates that have it.
      jacobian_budget: the forward budget of an update that has it is drawn from `budget` plus this range.
      jacobian_increment: added to the weight every `jacobian_interval` updates.
      jacobian_interval: updates between two increments.
      jacobian_epochs: epochs after which no update has it; by default all have it.
      pretraining_jacobian_weight: its weight in pre-training; by default `jacobian_weight`.
      reference_budget: evaluations of the Anderson solve that evaluation uses.
      evaluation_interval: epochs between evaluations under noise on the test split; also the
        interval of checkpoints.
      dtype: floating point type of the cell; parameters and all else are float32.
      seed: of initialisation, order, noise.
      model: size of the model.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    sigma: float = 0.5
    epochs: int = 80
    batch_size: int = 128
    optimiser: str = "adamw"
    learning_rate: float = 3e-3
    final_learning_rate: float = 0.0
    warmup: float = 0.05
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    pretraining_epochs: float = 5.0
    pretraining_budget: int = 8
    solver: str = "anderson"
    budget: int = 12
    gradient: str = "neumann"
    gradient_budget: int = 8
    jacobian_weight: float = 1.0
    jacobian_frequency: float = 1.0
    jacobian_budget: tuple[int, int] = (0, 0)
    jacobian_increment: float = 0.0
    jacobian_interval: int = 1
    jacobian_epochs: float | None = None
    pretraining_jacobian_weight: float | None = None
    reference_budget: int = 30
    evaluation_interval: int = 5
    dtype: str = "float32"
    seed: int = 0
    model: architecture.Equilibrium = dataclasses.field(default_factory=architecture.ConvModel)

    def __post_init__(self):
        checks.known("dataset", self.dataset, selection.DATASETS)
        checks.known("gradient", self.gradient, GRADIENTS)
        checks.known("optimiser", self.optimiser, OPTIMISERS)
        solve.check(self)
        checks.positive(
            self,
            "epochs",
            "batch_size",
            "pretraining_budget",
            "gradient_budget",
            "jacobian_interval",
            "reference_budget",
            "evaluation_interval",
        )
        checks.holds(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        checks.holds(self.clip_norm > 0, "clip_norm", self.clip_norm, "positive")
        for name in ("weight_decay", "jacobian_weight", "jacobian_increment", "final_learning_rate"):
            checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("warmup", "jacobian_frequency"):
            checks.holds(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        for name in ("jacobian_epochs", "pretraining_jacobian_weight"):
            if getattr(self, name) is not None:
                checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        low, high = self.jacobian_budget
        checks.holds(
            1 - self.budget <= low <= high,
            "jacobian_budget",
            self.jacobian_budget,
            f"a range that leaves of budget, {self.budget}, at least 1",
        )
        checks.holds(
            0 <= self.pretraining_epochs <= self.epochs,
            "pretraining_epochs",
            self.pretraining_epochs,
            f"between 0 and epochs, {self.epochs}",
        )
