"""Settings of certification: as a user gives them, and with every number resolved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from deqsmooth.config import checks, fields, probability, solve, stopping
from deqsmooth.statistics import bounds, looks, rounded_normal

SAMPLERS = ("serial", "independent")
SETTLED = ("proof",)
_SERIAL = {
    "start": "previous",
    "budget": 3,
    "warmup_budget": 10,
    "reference_budget": 30,
    "bound": probability.AUDITED[0],
}
_LARGEST_AUDIT = 1000
_GRID = 255
_INDEPENDENT: dict[str, Any] = {"start": "zero", "budget": 30}
_SETTLED: dict[str, Any] = {"start": "previous", "budget": 60}
# On the shipped models at sigma 0.5, two evaluations from the learned start reach the ACR of thirty from zero up
# to 0.002; see results/README.md.
_LEARNED_BUDGET = 2
_LOOKS, _FIRST_LOOK, _STOP_GAIN = (0.05, 0.2), 20, 0.02
_SERIAL_ONLY = ("warmup_budget", "reference_budget", "num_audit", "alpha_audit")


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """Everything that determines a certificate, together with a classifier and an image.

    Settings that are None take the default of the sampler. Settings of the serial sampler stay None with the
    independent one. Without a sampler they stay None until the classifier is known; see
    `ds.Smoothing.recommended`.

    Attributes:
      sigma: standard deviation of the noise, in pixels of [0, 1].
      sampler: `independent` (standard randomized smoothing), or `serial` (SRS: each solve starts from the
        equilibrium of another sample, and an audit bounds the number of votes that this makes wrong). By default
        the recommended method, or serial if a setting is given that only it has.
      start: initial state of a solve. Serial: `previous`, `first` or `clean`; see
        `deqsmooth.smoothing.kernels.serial`. Independent: `zero`, `constant` (a stored mean) or `learned`.
      solver: `plain`, `anderson`, `sketched-anderson`, `broyden` or `jaxopt` (its Anderson, run to convergence);
        `sketched-anderson` by default, and `plain` for votes that are settled by proof.
      budget: cell evaluations of the solve of one sample; 3 for serial, 30 for independent; 2 for the recommended
        method from `learned`, or as many as model and start were trained together for.
      tolerance: relative residual at which that solve stops (absolute with `jaxopt`), for each sample by itself.
      settle: `proof` to certify the exact equilibrium of a model that is known to have only one. The solve of a
        sample stops where its class is proved to be that of the equilibrium, from any start: also from `previous`,
        the state of the sample before, and from `clean`, the equilibrium of the image without noise up to a
        relative residual of 1e-3. A sample that is not settled within the budget, 60 by default, is solved again
        in float64 with the same budget, and has no vote if that does not settle it. Serial: from `previous`.
      warmup_budget: serial: cell evaluations of the warm-up, the solve from zero that gives each lane its first
        state before its first sample, in selection and again in estimation; 10 by default.
      reference_budget: serial: cell evaluations of the reference classifier. It is the base classifier that is
        certified; it solves from zero, and the audit evaluates it. 30 by default.
      num_selection: samples that select the class (N0 in the papers).
      num_estimation: samples that the bound counts (N).
      num_audit: serial: votes that are solved again with the reference (K); by default 1,000, or half of N if that
        is less.
      looks: independent: increasing numbers of estimation samples at which a certificate may be read; the last one
        is N. By default only N; with the recommended method also a twentieth and a fifth of N, or with
        `stop_radii` those of `deqsmooth.statistics.looks.geometric`.
      spending: how the looks share alpha: `proportional` to their samples (the default), or `equal`.
      stop_radius: sampling stops at a look where this radius is certified or out of reach; see
        `deqsmooth.statistics.looks.is_last`.
      stop_gain: sampling stops at a look where further samples would add at most this to the radius; see
        `deqsmooth.statistics.looks.is_last`. 0.02 with the recommended method, unless another stop is given.
      stop_radii: radii at which certified accuracy will be read, increasing numbers from 0. Sampling stops at a
        look where the largest of them that an image can be certified for is decided; see
        `deqsmooth.statistics.looks.is_last`.
      only_correct: independent: an image whose selected class is not its label ends after the selection, as an
        abstention. It could not add to certified accuracy or ACR. The labels must be known.
      alpha: largest probability that a certificate is false.
      alpha_audit: part of alpha that the audit takes; half of it by default.
      bound: serial: `exact` (the default), `paper`, or `reference-code`, which is not a valid bound. Independent:
        `clopper-pearson` (the default), or `two-sided` (recommended), which also bounds the probabilities of the
        other classes; see `deqsmooth.statistics.bounds.others_upper`.
      alpha_upper: two-sided: part of alpha that the bound on the other classes takes; a tenth by default.
      noise: `gaussian`: rounded to float32. `exact`: images with noise are rounded to a grid, whose points are
        drawn with their exact probabilities; see `deqsmooth.smoothing.noise.rounded`. Images must be on the grid.
      grid: exact: points of the grid in a unit; 255, that of images of 8 bits, by default.
      lanes: samples of an image that are solved side by side; 100 by default. Serial: the number of chains,
        which each begin with a warm-up; the votes depend on it.
      images_per_batch: serial: images solved side by side. Independent: units in one call; a unit is up to `lanes`
        samples of one image. By default as many as keep every device busy.
      block: rows (lanes of any images) in one compiled evaluation; 100 by default on CPU, 400 elsewhere. The
        memory of a device grows with it; `auto` halves it until it fits.
      dtype: floating point type of the cell, and so of the classifier that is certified; all else is float32.
      seed: of all noise and of the audit's draw. On the command line `random` takes one from the operating system,
        and the record names it.

    Raises:
      ValueError: a setting is of the wrong type, out of range, not one of the sampler, or contradicts another; or
        not even unanimous votes would certify anything.

    Example:
      >>> import deqsmooth as ds
      >>> ds.Smoothing(num_audit=500).sampler
      'serial'
      >>> settings = ds.Smoothing(sigma=0.25).recommended(has_start=True)
      >>> settings.sampler, settings.start, settings.budget, settings.looks
      ('independent', 'learned', 2, (500, 2000, 10000))
    """

    sigma: float = 0.5
    sampler: str | None = None
    start: str | None = None
    solver: str | None = None
    budget: int | None = None
    tolerance: float | None = None
    warmup_budget: int | None = None
    reference_budget: int | None = None
    num_selection: int = 100
    num_estimation: int = 10_000
    num_audit: int | None = None
    looks: tuple[int, ...] | None = None
    stop_radius: float | None = None
    stop_gain: float | None = None
    alpha: float = 0.001
    alpha_audit: float | None = None
    bound: str | None = None
    lanes: int | None = None
    images_per_batch: int | None = None
    block: int | Literal["auto"] | None = None
    dtype: str = "float32"
    seed: int = 0
    spending: str | None = dataclasses.field(default=None, metadata=fields.LATER)
    settle: str | None = dataclasses.field(default=None, metadata=fields.LATER)
    stop_radii: tuple[float, ...] | None = dataclasses.field(default=None, metadata=fields.LATER)
    only_correct: bool = dataclasses.field(default=False, metadata=fields.LATER)
    alpha_upper: float | None = dataclasses.field(default=None, metadata=fields.LATER)
    noise: str = dataclasses.field(default="gaussian", metadata=fields.LATER)
    grid: int | None = dataclasses.field(default=None, metadata=fields.LATER)

    independent_bounds: ClassVar[tuple[str | None, ...]] = (None, bounds.CLOPPER_PEARSON, bounds.TWO_SIDED)

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.holds(0 < self.alpha < 1, "alpha", self.alpha, "in (0, 1)")
        if self.settle is not None:
            self._resolve_settled()
        elif self.sampler is None and self._is_serial():
            object.__setattr__(self, "sampler", "serial")
        if self.sampler is not None:
            checks.known("sampler", self.sampler, SAMPLERS)
        probability.check_bound(self)
        self._check_absent()
        for name, value in self._defaults().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        solve.check_noise(self.sigma, self.seed, self.dtype)
        solve.check(str(self.solver), 1 if self.budget is None else self.budget)
        solve.check_start(self)
        sizes = ("num_selection", "num_estimation", "lanes", "images_per_batch", "block", *_SERIAL_ONLY[:3])
        for name in sizes:
            if getattr(self, name) not in (None, "auto"):
                checks.positive(self, name)
        # The index of a sample is an int32; rows of a call are held in memory.
        for names, largest in ((sizes[:2], 2**31 - 1), (sizes[2:5], 10**6)):
            for name in names:
                fits = getattr(self, name) in (None, "auto") or getattr(self, name) <= largest
                checks.holds(fits, name, getattr(self, name), f"at most {largest:,}")
        if self.tolerance is not None:
            checks.finite_positive("tolerance", self.tolerance)
        self._fill_bound()
        probability.check(self)
        stopping.check(self)
        if not self.cap > 0:
            audit = f" with num_audit, {self.num_audit}," if self.num_audit else ""
            raise ValueError(
                f"num_estimation is {self.num_estimation};{audit} at alpha {self.alpha} not even unanimous votes "
                "would certify anything: it must be larger"
            )

    def recommended(self, has_start: bool, learned_budget: int = _LEARNED_BUDGET) -> Smoothing:
        """These settings with a sampler; if none is given, with the method that is recommended for a classifier.

        That is independent sampling with looks and two-sided bounds, from the learned start if the classifier has
        one, else from zero.

        Args:
          has_start: whether the classifier has a trained start: `classifier.start_training is not None`.
          learned_budget: evaluations from that start, where no budget is given; see `ds.recommended`.
        """
        if self.sampler is not None:
            return self
        defaults = _INDEPENDENT if self.settle is None else _SETTLED
        start = self.start or ("learned" if has_start else defaults["start"])
        is_short = start == "learned" and self.settle is None
        budget = self.budget or (learned_budget if is_short else defaults["budget"])
        shares = [int(share * self.num_estimation) for share in _LOOKS]
        read = (*(look for look in shares if look >= _FIRST_LOOK), self.num_estimation)
        if self.stop_radii is not None:
            read = looks.geometric(self.num_estimation)
        stops = any(getattr(self, name) is not None for name in stopping.RULES)
        return dataclasses.replace(
            self,
            sampler="independent",
            start=start,
            budget=budget,
            looks=self.looks or read,
            bound=self.bound or bounds.TWO_SIDED,
            stop_gain=self.stop_gain if stops else _STOP_GAIN,
        )

    def _resolve_settled(self) -> None:
        """Makes votes that are settled by proof independent, whatever their start.

        Raises:
          ValueError: another setting contradicts the proof.
        """
        checks.known("settle", str(self.settle), SETTLED)
        if self.sampler == "serial":
            object.__setattr__(self, "sampler", "independent")
            if self.start is None:
                object.__setattr__(self, "start", "previous")
        for name, value in (("dtype", "float32"), ("tolerance", None)):
            checks.holds(
                getattr(self, name) == value,
                name,
                getattr(self, name),
                f"{value} where votes are settled by proof",
            )
        checks.holds(self.solver != "jaxopt", "solver", self.solver, "another where votes are settled by proof")

    def _is_serial(self) -> bool:
        """Whether a setting is given that only the serial sampler has."""
        only = [getattr(self, name) for name in _SERIAL_ONLY]
        is_audited = self.bound not in self.independent_bounds
        return self.start in solve.SERIAL_STARTS or is_audited or any(value is not None for value in only)

    def _defaults(self) -> dict[str, Any]:
        """The defaults of the sampler."""
        solver = {"solver": "sketched-anderson" if self.settle is None else "plain"}
        if self.sampler is None:
            return solver
        if self.sampler == "independent":
            read = {"looks": (self.num_estimation,)} if self.only_correct else {}
            return {**(_INDEPENDENT if self.settle is None else _SETTLED), **solver, **read}
        audit = max(1, min(_LARGEST_AUDIT, self.num_estimation // 2))
        return {**_SERIAL, **solver, "num_audit": audit, "alpha_audit": self.alpha / 2}

    def _check_absent(self) -> None:
        """Raises `ValueError` if a setting of the serial sampler is given with the independent one."""
        if self.sampler == "serial":
            return
        which = "with the independent sampler" if self.settle is None else "where votes are settled by proof"
        for name in sorted(_SERIAL_ONLY):
            checks.holds(
                getattr(self, name) is None, name, getattr(self, name), f"left out {which}, which has no audit"
            )

    def _fill_bound(self) -> None:
        """Gives the settings of bound and noise that depend on others their defaults."""
        if self.sampler == "independent" and self.bound == bounds.CLOPPER_PEARSON:
            object.__setattr__(self, "bound", None)
        if self.bound == bounds.TWO_SIDED and self.alpha_upper is None:
            object.__setattr__(self, "alpha_upper", self.alpha / 10)
        if self.noise == "exact" and self.grid is None:
            object.__setattr__(self, "grid", _GRID)

    @property
    def continuous(self) -> bool:
        """Whether solves stop by themselves and the next samples take their lanes; see `continuous_batching`."""
        stops = self.tolerance is not None or self.settle is not None
        return self.sampler != "serial" and stops and self.solver != "jaxopt"

    @property
    def first_start(self) -> str | None:
        """The start of a first solve: zero where later solves start from other solutions."""
        return "zero" if self.start in solve.SERIAL_STARTS else self.start

    @property
    def cap(self) -> float:
        """Radius of unanimous votes without a mismatch. No certificate can be larger."""
        if self.sampler is None:
            # The recommended looks take a part of alpha, whatever the start is.
            return self.recommended(has_start=False).cap
        return probability.cap(self)

    def audit(self, num: int, mismatches: int) -> bounds.Audit:
        """The audit of an image by the serial sampler."""
        return bounds.Audit(num, mismatches, self.alpha_audit or 0.0, str(self.bound))

    def noise_error(self, image_shape: Sequence[int]) -> float:
        """Bound on the total variation distance between the noise of a sample and exact noise; 0 if not drawn so.

        Probabilities of classes are off by at most this. With Gaussian noise in float32 nothing is known of it.

        Args:
          image_shape: (height, width, channels).
        """
        if self.grid is None:
            return 0.0
        return rounded_normal.total_variation(self.sigma, self.grid, math.prod(image_shape))

    @property
    def alpha_count(self) -> float:
        """The part of alpha for the counts of the class, all looks together."""
        return self.alpha - (self.alpha_audit or 0.0) - (self.alpha_upper or 0.0)

    @property
    def look_alphas(self) -> dict[int, float]:
        """The part of alpha that each look takes, by its number of samples. Without looks, N takes all of it."""
        return self._shared(self.alpha_count)

    @property
    def upper_alphas(self) -> dict[int, float]:
        """The part of alpha that the bound on the other classes takes at each look."""
        return self._shared(self.alpha_upper or 0.0)

    def _shared(self, alpha: float) -> dict[int, float]:
        sizes = self.looks or (self.num_estimation,)
        return looks.alphas(alpha, sizes, self.spending or looks.PROPORTIONAL)
