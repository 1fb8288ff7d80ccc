"""Every setting of the project, as frozen dataclasses that check themselves.

A setting that is out of range raises `ValueError` with the value and the rule, before any work.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from deqsmooth import architecture, checks, statistics

DATASETS = ("digits", "cifar10", "imagenet", "arrays")
SAMPLERS = ("serial", "independent")
SOLVERS = ("plain", "anderson", "broyden", "jaxopt")
SERIAL_STARTS = ("previous", "first", "clean")
INDEPENDENT_STARTS = ("zero",)
BOUNDS = ("exact", "paper", "reference-code")
_STRIDES = {"digits": 8, "cifar10": 20, "imagenet": 100, "arrays": 1}
_SPLITS = {"digits": "test", "cifar10": "test", "imagenet": "validation", "arrays": "test"}
GRADIENTS = ("one-step", "phantom", "neumann", "anderson", "broyden", "gmres", "normal-cg")
OPTIMISERS = ("adamw", "sgd")
DTYPES = ("float32", "bfloat16")


def _check_shared(settings: Any) -> None:
    """The rules of the settings that training and certification share."""
    checks.holds(
        math.isfinite(settings.sigma) and settings.sigma > 0,
        "sigma",
        settings.sigma,
        "a finite positive number, in pixels of [0, 1]",
    )
    checks.holds(0 <= settings.seed < 2**32, "seed", settings.seed, "from 0 to 2**32 - 1")
    checks.known("solver", settings.solver, SOLVERS)
    checks.known("dtype", settings.dtype, DTYPES)
    checks.positive(settings, "budget")


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
        checks.known("dataset", self.dataset, DATASETS)
        checks.known("gradient", self.gradient, GRADIENTS)
        checks.known("optimiser", self.optimiser, OPTIMISERS)
        _check_shared(self)
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


_SERIAL_ONLY = {"warmup_budget": 10, "reference_budget": 30, "num_audit": 1000, "bound": "exact"}


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """Everything that, with a classifier and an image, determines a certificate.

    Settings left at None take the value that the sampler gives them; those that only the serial
    sampler has stay None for the independent one.

    Attributes:
      sigma: standard deviation of the noise, in pixels of [0, 1].
      sampler: `serial` (SRS: each solve starts from another sample's equilibrium, and an audit pays
        for it) or `independent` (standard randomized smoothing).
      start: where a solve begins: `previous`, `first` or `clean` for serial, `zero` for independent.
      solver: `plain`, `anderson`, `broyden` or `jaxopt` (its Anderson, run to convergence).
      budget: cell evaluations of the solve of one sample; 3 for serial, 30 for independent.
      tolerance: relative residual at which that solve stops, decided for each sample by itself.
      warmup_budget: serial: evaluations of the first solve of each lane; by default 10.
      reference_budget: serial: evaluations of the reference f that the audit solves with, from zero;
        by default 30.
      num_selection: samples that choose the class (N0 in the papers).
      num_estimation: samples that the bound counts (N).
      num_audit: serial: votes that are solved again with the reference (K); by default 1,000.
      alpha: probability that a certificate is false, at most.
      alpha_audit: serial: the part of alpha that the audit takes; half of it by default.
      bound: serial: `exact` (the default), `paper`, or `reference-code`, which is not a valid bound.
      lanes: samples of an image that are solved side by side; by default 100. Serial: the number of
        chains, which is part of the result. A number given here must divide by the devices.
      images_per_batch: images solved side by side; by default as many as keep every device busy.
      block: rows (lanes of any images) in one compiled evaluation; by default 100 on CPU, 400 elsewhere.
      dtype: floating point type of the cell, and so of the classifier that is certified; all else is float32.
      seed: of all noise and of the audit's draw.
    """

    sigma: float = 0.5
    sampler: str = "serial"
    start: str | None = None
    solver: str = "anderson"
    budget: int | None = None
    tolerance: float | None = None
    warmup_budget: int | None = None
    reference_budget: int | None = None
    num_selection: int = 100
    num_estimation: int = 10_000
    num_audit: int | None = None
    alpha: float = 0.001
    alpha_audit: float | None = None
    bound: str | None = None
    lanes: int | None = None
    images_per_batch: int | None = None
    block: int | None = None
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self):
        checks.known("sampler", self.sampler, SAMPLERS)
        serial = self.sampler == "serial"
        checks.holds(0 < self.alpha < 1, "alpha", self.alpha, "in (0, 1)")
        if not serial:
            for name in (*_SERIAL_ONLY, "alpha_audit"):
                value = getattr(self, name)
                checks.holds(
                    value is None, name, value, "left out with the independent sampler, which has no audit"
                )
        serial_defaults = {**_SERIAL_ONLY, "alpha_audit": self.alpha / 2, "start": "previous", "budget": 3}
        for name, value in (serial_defaults if serial else {"start": "zero", "budget": 30}).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        _check_shared(self)
        self._check_start()
        for name in ("num_selection", "num_estimation", "lanes", "images_per_batch", "block"):
            if getattr(self, name) is not None:
                checks.positive(self, name)
        if self.tolerance is not None:
            checks.holds(self.tolerance > 0, "tolerance", self.tolerance, "positive")
        if serial:
            self._check_audit()
        if not self.cap > 0:
            audit = f" with num_audit, {self.num_audit}," if serial else ""
            raise ValueError(
                f"num_estimation is {self.num_estimation};{audit} at alpha {self.alpha} not even unanimous votes "
                "would certify anything: it must be larger"
            )

    def _check_start(self):
        starts = SERIAL_STARTS if self.sampler == "serial" else INDEPENDENT_STARTS
        checks.known("start", self.start, SERIAL_STARTS + INDEPENDENT_STARTS)
        checks.holds(
            self.start in starts, "start", repr(self.start), f"one of {starts} for sampler {self.sampler!r}"
        )

    def _check_audit(self):
        checks.known("bound", self.bound, BOUNDS)
        checks.positive(self, "warmup_budget", "reference_budget", "num_audit")
        checks.holds(
            self.num_audit <= self.num_estimation,
            "num_audit",
            self.num_audit,
            f"at most num_estimation, {self.num_estimation}: the audit solves votes of the estimation again",
        )
        checks.holds(
            0 < self.alpha_audit < self.alpha, "alpha_audit", self.alpha_audit, f"in (0, alpha = {self.alpha})"
        )

    @property
    def cap(self) -> float:
        """Radius of unanimous votes without a mismatch: no certificate can be larger."""
        audit: dict[str, Any] = {}
        if self.sampler == "serial":
            audit = {"audited": self.num_audit, "alpha_audit": self.alpha_audit, "bound": self.bound}
        votes = self.num_estimation
        return statistics.radius(statistics.lower_bound(votes, votes, alpha=self.alpha, **audit), self.sigma)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which images are certified.

    Attributes:
      dataset: name of the data set: `digits`, `cifar10`, `imagenet` or `arrays`, a file of your own.
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file with `images` and `labels`.
      split: by default `test`, for imagenet `validation`.
      stride: every how many images; by default 8 for digits, 20 for cifar10, 100 for imagenet.
      start_index: index of the first image.
      max_images: how many images at most.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    split: str | None = None
    stride: int | None = None
    start_index: int = 0
    max_images: int | None = None

    def __post_init__(self):
        checks.known("data set", self.dataset, DATASETS)
        for name, defaults in (("stride", _STRIDES), ("split", _SPLITS)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults[self.dataset])
        checks.positive(self, "stride")
        checks.holds(self.start_index >= 0, "start_index", self.start_index, "at least 0")
        if self.max_images is not None:
            checks.positive(self, "max_images")

    def indices(self, num_images: int) -> range:
        """Indices of the chosen images in a split of a size.

        Raises:
          ValueError: there are none.
        """
        chosen = range(self.start_index, num_images, self.stride)[: self.max_images]
        checks.holds(
            len(chosen) > 0, "start_index", self.start_index, f"below the size of the split, {num_images}"
        )
        return chosen
