"""Settings of training: of a model, and of the initial state (start) of a trained model's solves."""

from __future__ import annotations

import dataclasses
import math

from deqsmooth.config import architecture, checks, fields, selection, solve

GRADIENTS = ("one-step", "neumann", "broyden", "gmres")
OPTIMISERS = ("adamw", "sgd")
INJECTION_DTYPES = ("float32", "bfloat16")
AUGMENTATIONS = ("none", "crop-and-flip")
LOSSES = ("cross-entropy", "consistency", "macer", "cat-rs")
_PRETRAINING_EPOCHS = 5.0


@dataclasses.dataclass(frozen=True)
class Descent:
    """Settings that every training has: data, noise, batches and the optimiser.

    `ds.Training` and `ds.StartTraining` inherit them.

    Attributes:
      dataset: name of the data set: `digits`, `arrays` (images of your own, whose mean and standard deviation are
        measured) or a name of TFDS. From Python the images are given, and this is their name in records.
      data_dir: TFDS data directory, by default that of TFDS; for `arrays` the `.npz` file with `images` and
        `labels`.
      sigma: standard deviation of the noise, in pixels of [0, 1].
      epochs: number of passes over the training split.
      batch_size: images per update.
      optimiser: `adamw`, or `sgd` with Nesterov momentum 0.9.
      learning_rate: largest learning rate of the schedule.
      final_learning_rate: learning rate at the end of the cosine schedule.
      warmup: fraction of the updates during which the learning rate first rises linearly from 0.
      weight_decay: weight decay of AdamW, or the weight of |params|^2 / 2 with SGD.
      clip_norm: gradients with a larger global norm are scaled down to this norm.
      accumulation: number of parts into which a device splits its share of a batch, to process them one after
        another; more parts need less memory. Batch statistics are those of a part.
      evaluation_interval: epochs between evaluations under noise on the test split, and between saved states.
      seed: seed of the initialisation, the order of images and the noise.
      held_out: every how many-th training image, in an order that the seed gives, is held out: the model is
        evaluated on it and never trained on it. By default none if there are test images, otherwise every tenth.
      ema: decay by update of an exponentially weighted mean of the parameters, in (0, 1). If it is given, the mean
        is what is evaluated and saved as the model.
      augment: `crop-and-flip` (random crops of the images padded with four pixels, half of them flipped) or
        `none`; by default that of the data set.
      updates_per_call: number of updates in one call of a compiled program that holds all images on the device.
        Order and augmentation of the images are then part of the program, and metrics are means over the updates
        of a call. By default every update is a call, and its images come from the host.
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
    held_out: int | None = dataclasses.field(default=None, metadata=fields.LATER)
    ema: float | None = dataclasses.field(default=None, metadata=fields.LATER)
    augment: str | None = dataclasses.field(default=None, metadata=fields.LATER)
    updates_per_call: int | None = dataclasses.field(default=None, metadata=fields.LATER)

    def __post_init__(self) -> None:
        checks.typed(self)
        selection.check_dataset(self.dataset)
        checks.known("optimiser", self.optimiser, OPTIMISERS)
        checks.positive(self, "epochs", "batch_size", "accumulation", "evaluation_interval")
        for name in ("learning_rate", "clip_norm"):
            checks.finite_positive(name, getattr(self, name))
        for name in ("weight_decay", "final_learning_rate"):
            value = getattr(self, name)
            checks.holds(0 <= value < math.inf, name, value, "finite and at least 0")
        checks.holds(0 <= self.warmup <= 1, "warmup", self.warmup, "in [0, 1]")
        if self.held_out is not None:
            checks.holds(self.held_out >= 2, "held_out", self.held_out, "at least 2")
        if self.ema is not None:
            checks.holds(0 < self.ema < 1, "ema", self.ema, "in (0, 1)")
        if self.augment is not None:
            checks.known("augment", self.augment, AUGMENTATIONS)
        if self.updates_per_call is not None:
            checks.positive(self, "updates_per_call")


@dataclasses.dataclass(frozen=True)
class Training(Descent):
    """How a model is trained under Gaussian noise.

    The data, noise, batches and the optimiser are those of `deqsmooth.config.training.Descent`.

    Attributes:
      pretraining_epochs: number of first epochs in which the cell is unrolled and differentiated through; by
        default 5, or a quarter of the epochs if that is less; 0 for a model without an equilibrium.
      pretraining_budget: number of evaluations of the unrolled cell.
      solver: solver of the forward pass after pre-training.
      budget: cell evaluations of the forward pass.
      gradient: gradient of the equilibrium: `one-step` (Jacobian-free), or implicit with the linear system solved
        by terms of its Neumann series (`neumann`), by `broyden` or by `gmres`.
      gradient_budget: number of terms or iterations of the gradient; `one-step` does not use it.
      rematerialise: whether the backward pass of pre-training computes the activations inside the cell again
        instead of keeping them; this needs less memory and more time.
      loss: `cross-entropy`, `consistency` (Jeong & Shin 2020), `macer` (Zhai et al. 2020) or `cat-rs` (Jeong, Kim
        & Shin 2023); pre-training always uses `cross-entropy`.
      loss_weight: weight of the second term of the other losses, lambda in their papers.
      draws: noise draws per image and update, after pre-training.
      adversarial_radius: L2 radius within which training images are first perturbed to increase the loss of the
        smoothed classifier (Salman et al. 2019), or with `cat-rs` each noise draw to increase its divergence from
        the mean prediction; 0 for no perturbation.
      adversarial_steps: gradient steps of the perturbation.
      adversarial_epochs: epochs after pre-training over which the radius grows linearly to its value.
      jacobian_weight: weight of the Jacobian penalty (Bai et al. 2021).
      jacobian_frequency: fraction of the updates that have the penalty.
      jacobian_budget: (low, high), the range of a random integer that an update with the penalty adds to `budget`.
      jacobian_increment: added to the weight every `jacobian_interval` updates.
      jacobian_interval: number of updates between two increments.
      jacobian_epochs: epochs after which no update has the penalty; by default the penalty never ends.
      pretraining_jacobian_weight: weight of the penalty in pre-training; by default `jacobian_weight`.
      reference_budget: cell evaluations of the Anderson solve with which the model is evaluated.
      dtype: floating point type of the cell. Parameters and everything else are float32, multiplied in JAX's
        default precision, which is lower on accelerators.
      injection_dtype: floating point type in which the injection is computed, by default float32; the parameters
        that are trained are float32.
      model: size of the model, by default `ds.ConvModel()`; None for a model of the caller's own.
      initial: folder of a checkpoint of the same model, with whose variables the training begins; by default they
        are random. In the settings of a trained classifier, the SHA-256 of that checkpoint.

    Raises:
      ValueError: a setting is of the wrong type, out of range, or contradicts another.
    """

    pretraining_epochs: float | None = None
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
    model: architecture.Model | None = dataclasses.field(default_factory=architecture.ConvModel)
    injection_dtype: str | None = dataclasses.field(default=None, metadata=fields.LATER)
    initial: str | None = dataclasses.field(default=None, metadata=fields.LATER)

    def __post_init__(self) -> None:
        checks.typed(self)
        super().__post_init__()
        solve.check_noise(self.sigma, self.seed, self.dtype)
        solve.check(self.solver, self.budget)
        checks.known("gradient", self.gradient, GRADIENTS)
        checks.known("loss", self.loss, LOSSES)
        checks.positive(self, "pretraining_budget", "gradient_budget", "jacobian_interval", "reference_budget")
        checks.positive(self, "adversarial_steps", "draws")
        if self.injection_dtype is not None:
            checks.known("injection_dtype", self.injection_dtype, INJECTION_DTYPES)
        if self.loss != "cross-entropy":
            checks.holds(self.draws > 1, "draws", self.draws, f"at least 2 with loss {self.loss!r}")
        if self.loss == "cat-rs":
            value = self.adversarial_radius
            checks.holds(value > 0, "adversarial_radius", value, "positive with loss 'cat-rs'")
        if isinstance(self.model, architecture.ResnetModel):
            self.check_explicit()
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
            f"a range (low, high) that leaves at least 1 of budget, {self.budget}",
        )
        if self.pretraining_epochs is not None:
            rule = f"between 0 and epochs, {self.epochs}"
            value = self.pretraining_epochs
            checks.holds(0 <= value <= self.epochs, "pretraining_epochs", value, rule)

    def check_explicit(self) -> None:
        """Raises `ValueError` if a model without an equilibrium cannot be trained with these settings."""
        rule = "0 for a model without an equilibrium"
        for name in ("pretraining_epochs", "jacobian_weight"):
            checks.holds(getattr(self, name) in (0, None), name, getattr(self, name), rule)
        rule = "float32 for a model without an equilibrium"
        for name in ("dtype", "injection_dtype"):
            checks.holds(getattr(self, name) in ("float32", None), name, getattr(self, name), rule)

    def resolved(self) -> Training:
        """These settings with the number of epochs of pre-training that they stand for."""
        if self.pretraining_epochs is not None:
            return self
        explicit = isinstance(self.model, architecture.ResnetModel)
        return dataclasses.replace(
            self, pretraining_epochs=0.0 if explicit else min(_PRETRAINING_EPOCHS, self.epochs / 4)
        )


@dataclasses.dataclass(frozen=True)
class StartTraining(Descent):
    """How the start of a trained model's solves is learned.

    The data, noise, batches and the optimiser are those of `deqsmooth.config.training.Descent`, with other
    defaults.

    Attributes:
      solver: solver of the short solve from the start.
      budget: cell evaluations of the short solve.
      reference_budget: cell evaluations of the Anderson solve from zero, which is the target of the short solve.
      distance_weight: weight of the relative squared distance of the states, added to the divergence of the
        logits.
      fine_tune: weight of the cross-entropy of the labels. If it is given, the model is trained for the short
        solve together with the start that it has. By default the model does not change and a new start is learned.
      settle_weight: for a contraction in L2: weight of what is left to prove after the short solve by plain
        iteration, see `deqsmooth.smoothing.proof.Proof.remaining`; more weight settles votes after fewer
        evaluations.
      dtype: floating point type of the cell; everything else is float32.
      network: size of the network that predicts the start, a `deqsmooth.config.architecture.StartModel`.

    Raises:
      ValueError: a setting is of the wrong type or out of range.
    """

    epochs: int = 60
    weight_decay: float = 0.01
    solver: str = "plain"
    budget: int = 1
    reference_budget: int = 30
    distance_weight: float = 1.0
    fine_tune: float | None = dataclasses.field(default=None, metadata=fields.LATER)
    settle_weight: float | None = dataclasses.field(default=None, metadata=fields.LATER)
    dtype: str = "float32"
    network: architecture.StartModel = dataclasses.field(default_factory=architecture.StartModel)

    def __post_init__(self) -> None:
        checks.typed(self)
        super().__post_init__()
        solve.check_noise(self.sigma, self.seed, self.dtype)
        solve.check(self.solver, self.budget)
        checks.positive(self, "reference_budget")
        for name in ("distance_weight", "fine_tune", "settle_weight"):
            if getattr(self, name) is not None:
                checks.holds(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        if self.settle_weight is not None:
            checks.holds(self.solver == "plain", "solver", self.solver, "'plain' with settle_weight")
