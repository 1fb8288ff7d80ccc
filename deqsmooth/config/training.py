"""Settings of training: of a model, and of the start of a trained one."""

from __future__ import annotations

import dataclasses

from deqsmooth.config import architecture, checks, selection, serialization, solve

GRADIENTS = ("one-step", "neumann", "broyden", "gmres")
OPTIMISERS = ("adamw", "sgd")
LOSSES = ("cross-entropy", "consistency", "macer", "cat-rs")


@dataclasses.dataclass(frozen=True)
class Descent:
    """What every training has: images under noise, batches, and an optimiser.

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
      accumulation: parts in which a device takes its share of a batch, one after the other; more need less memory.
        Batch statistics are those of a part.
      evaluation_interval: epochs between evaluations under noise on the test split; also the
        interval of checkpoints.
      seed: of initialisation, order, noise.
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
    accumulation: int = 1
    evaluation_interval: int = 5
    seed: int = 0

    def __post_init__(self):
        checks.known("dataset", self.dataset, selection.DATASETS)
        checks.known("optimiser", self.optimiser, OPTIMISERS)
        checks.positive(self, "epochs", "batch_size", "accumulation", "evaluation_interval")
        for name in ("learning_rate", "clip_norm"):
            checks.holds(getattr(self, name) > 0, name, getattr(self, name), "positive")
        for name in ("weight_decay", "final_learning_rate"):
            checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        checks.holds(0 <= self.warmup <= 1, "warmup", self.warmup, "in [0, 1]")


@dataclasses.dataclass(frozen=True)
class Training(Descent):
    """How a model is trained under Gaussian noise; see also `Descent`.

    Attributes:
      pretraining_epochs: first epochs, with the cell unrolled and differentiated through.
      pretraining_budget: evaluations of the unrolled cell.
      solver: of the forward pass after that.
      budget: evaluations of the forward pass.
      gradient: how gradients pass the equilibrium: `one-step` (Jacobian-free), or implicit with the linear system
        solved by terms of the `neumann` series, `broyden` or `gmres`.
      gradient_budget: terms or iterations of the gradient; `one-step` takes one.
      rematerialise: whether pre-training computes the inside of the cell again in its backward pass instead of
        keeping it; needs less memory, and more time.
      loss: `cross-entropy`, `consistency` (Jeong & Shin 2020), `macer` (Zhai et al. 2020) or `cat-rs` (Jeong,
        Kim & Shin 2023); pre-training has the first.
      loss_weight: of the second term of the others, lambda in their papers.
      draws: noise draws of an image in an update, after pre-training.
      adversarial_radius: L2 radius within which training images are first changed so that the smoothed classifier
        errs (Salman et al. 2019), or with `cat-rs` each draw so that it differs from the others; 0 for no change.
      adversarial_steps: steps of that ascent.
      adversarial_epochs: epochs after pre-training over which the radius grows to its value.
      jacobian_weight: weight of the Jacobian penalty.
      jacobian_frequency: share of the updates that have it.
      jacobian_budget: the forward budget of an update that has it is drawn from `budget` plus this range.
      jacobian_increment: added to the weight every `jacobian_interval` updates.
      jacobian_interval: updates between two increments.
      jacobian_epochs: epochs after which no update has it; by default all have it.
      pretraining_jacobian_weight: its weight in pre-training; by default `jacobian_weight`.
      reference_budget: evaluations of the Anderson solve that evaluation uses.
      dtype: floating point type of the cell; parameters and all else are float32, multiplied with JAX's default
        precision, which on accelerators is less.
      model: size of the model.
    """

    pretraining_epochs: float = 5.0
    pretraining_budget: int = 8
    solver: str = "anderson"
    budget: int = 12
    gradient: str = "neumann"
    gradient_budget: int = 8
    rematerialise: bool = False
    loss: str = "cross-entropy"
    loss_weight: float = 10.0
    draws: int = 1
    adversarial_radius: float = 0.0
    adversarial_steps: int = 2
    adversarial_epochs: float = 10.0
    jacobian_weight: float = 1.0
    jacobian_frequency: float = 1.0
    jacobian_budget: tuple[int, int] = (0, 0)
    jacobian_increment: float = 0.0
    jacobian_interval: int = 1
    jacobian_epochs: float | None = None
    pretraining_jacobian_weight: float | None = None
    reference_budget: int = 30
    dtype: str = "float32"
    model: architecture.Model = dataclasses.field(default_factory=architecture.ConvModel)

    def __post_init__(self):
        super().__post_init__()
        solve.check(self)
        checks.known("gradient", self.gradient, GRADIENTS)
        checks.known("loss", self.loss, LOSSES)
        checks.positive(self, "pretraining_budget", "gradient_budget", "jacobian_interval", "reference_budget")
        checks.positive(self, "adversarial_steps", "draws")
        if self.loss != "cross-entropy":
            checks.holds(self.draws > 1, "draws", self.draws, f"at least 2 with loss {self.loss!r}")
        if self.loss == "cat-rs":
            value = self.adversarial_radius
            checks.holds(value > 0, "adversarial_radius", value, "positive with loss 'cat-rs'")
        if isinstance(self.model, architecture.ResnetModel):
            for name in ("pretraining_epochs", "jacobian_weight"):
                checks.holds(getattr(self, name) == 0, name, getattr(self, name), "0 for a model without a cell")
            checks.holds(self.dtype == "float32", "dtype", self.dtype, "float32 for a model without a cell")
        for name in ("loss_weight", "adversarial_radius", "adversarial_epochs"):
            checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("jacobian_weight", "jacobian_increment", "jacobian_epochs", "pretraining_jacobian_weight"):
            if getattr(self, name) is not None:
                checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        checks.holds(0 <= self.jacobian_frequency <= 1, "jacobian_frequency", self.jacobian_frequency, "in [0, 1]")
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


@dataclasses.dataclass(frozen=True)
class StartTraining(Descent):
    """How the start of a trained model's solves is learned; see also `Descent`.

    Attributes:
      solver: of the short solve from the start.
      budget: evaluations of that solve.
      reference_budget: evaluations of the Anderson solve from zero that it is to match.
      distance_weight: weight of the states' relative squared distance, beside the divergence of the logits.
      fine_tune: weight of the cross-entropy of the labels with which the model is trained too, for the short
        solve, together with the start that it has; by default it stays as it is and a new start is learned.
      dtype: floating point type of the cell; all else is float32.
      network: size of the network.
    """

    epochs: int = 60
    weight_decay: float = 0.01
    solver: str = "plain"
    budget: int = 1
    reference_budget: int = 30
    distance_weight: float = 1.0
    fine_tune: float | None = dataclasses.field(default=None, metadata=serialization.LATER)
    dtype: str = "float32"
    network: architecture.StartModel = dataclasses.field(default_factory=architecture.StartModel)

    def __post_init__(self):
        super().__post_init__()
        solve.check(self)
        checks.positive(self, "reference_budget")
        for name in ("distance_weight", "fine_tune"):
            if getattr(self, name) is not None:
                checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
