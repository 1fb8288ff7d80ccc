"""Settings of certification."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from deqsmooth.config import checks, serialization, solve
from deqsmooth.statistics import bounds, looks

SAMPLERS = ("serial", "independent")
SERIAL_STARTS = ("previous", "first", "clean")
INDEPENDENT_STARTS = ("zero", "constant", "learned")
BOUNDS = ("exact", "paper", "reference-code")
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
      start: where a solve begins: `previous`, `first` or `clean` for serial; `zero`, `constant` or `learned`,
        functions of the noisy input, for independent.
      solver: `plain`, `anderson`, `sketched-anderson`, `broyden` or `jaxopt` (its Anderson, run to convergence).
      budget: cell evaluations of the solve of one sample; 3 for serial, 30 for independent.
      tolerance: relative residual at which that solve stops, decided for each sample by itself.
      warmup_budget: serial: evaluations of the first solve of each lane; by default 10.
      warmup_solver: serial: its solver; by default that of the samples.
      warmup_interval: serial: samples of a lane after which it is warmed up anew; by default never.
      reference_budget: serial: evaluations of the reference f that the audit solves with, from zero;
        by default 30.
      num_selection: samples that choose the class (N0 in the papers).
      num_estimation: samples that the bound counts (N).
      num_audit: serial: votes that are solved again with the reference (K); by default 1,000. With the bound
        `paired`: samples on which both classifiers are evaluated.
      looks: independent: numbers of samples of the estimation at which a certificate may be read, the last one
        N. By default only N.
      spending: how the looks share alpha: `proportional` to their samples (the default), or `equal`.
      stop_radius: a look that certifies this radius, or leaves no hope of it, is the last.
      stop_gain: a look after which the rest, even with luck, would add no more than this to the radius is the
        last; see `looks.is_last`.
      alpha: probability that a certificate is false, at most.
      alpha_audit: the part of alpha that the audit takes, half of it by default; of `paired` that of the pairs, a
        tenth.
      bound: serial: `exact` (the default), `paper`, or `reference-code`, which is not a valid bound. Independent:
        `paired` where the votes are those of another classifier; see `recertification`.
      lanes: samples of an image that are solved side by side; by default 100. Serial: the number of
        chains, which is part of the result.
      images_per_batch: serial: images solved side by side. Independent: how many times `lanes` samples, of any
        images, make one call. By default as many as keep every device busy.
      block: rows (lanes of any images) in one compiled evaluation; by default 100 on CPU, 400 elsewhere. What a
        device needs of memory grows with it; `auto` halves it until it fits.
      dtype: floating point type of the cell, and so of the classifier that is certified; all else is float32.
      seed: of all noise and of the audit's draw. On the command line `random` takes one from the operating system,
        which records name.
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
    warmup_solver: str | None = dataclasses.field(default=None, metadata=serialization.LATER)
    warmup_interval: int | None = dataclasses.field(default=None, metadata=serialization.LATER)
    spending: str | None = dataclasses.field(default=None, metadata=serialization.LATER)

    def __post_init__(self):
        checks.known("sampler", self.sampler, SAMPLERS)
        serial = self.sampler == "serial"
        checks.holds(0 < self.alpha < 1, "alpha", self.alpha, "in (0, 1)")
        if not serial:
            alien = set(_SERIAL_ONLY) | {"alpha_audit", "warmup_solver", "warmup_interval"}
            if self.bound == "paired":
                alien -= {"bound", "num_audit", "alpha_audit"}
            for name in sorted(alien):
                value = getattr(self, name)
                checks.holds(
                    value is None, name, value, "left out with the independent sampler, which has no audit"
                )
        defaults: dict[str, Any] = {"start": "zero", "budget": 30}
        if serial:
            defaults = {**_SERIAL_ONLY, "alpha_audit": self.alpha / 2, "start": "previous", "budget": 3}
        elif self.bound == "paired":
            defaults |= {"num_audit": 1000, "alpha_audit": self.alpha / 10}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        solve.check(self)
        self._check_start()
        for name in ("num_selection", "num_estimation", "lanes", "images_per_batch", "block"):
            if getattr(self, name) not in (None, "auto"):
                checks.positive(self, name)
        if self.tolerance is not None:
            checks.holds(self.tolerance > 0, "tolerance", self.tolerance, "positive")
        if serial or self.bound == "paired":
            self._check_audit()
        self._check_looks()
        if not self.cap > 0:
            audit = f" with num_audit, {self.num_audit}," if self.num_audit else ""
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

    def _check_looks(self):
        if self.looks is None:
            for name in ("spending", "stop_radius", "stop_gain"):
                value = getattr(self, name)
                checks.holds(value is None, name, value, "left out without looks, at which a run may stop")
            return
        if self.spending is not None:
            checks.known("spending", self.spending, looks.SPENDING)
        checks.holds(
            self.sampler == "independent",
            "sampler",
            repr(self.sampler),
            "'independent' with looks, which read its votes",
        )
        increasing = all(a < b for a, b in zip((0, *self.looks), self.looks, strict=False))
        checks.holds(
            increasing and self.looks[-1:] == (self.num_estimation,),
            "looks",
            self.looks,
            f"increasing, from 1 to num_estimation, {self.num_estimation}",
        )
        for name in ("stop_radius", "stop_gain"):
            if getattr(self, name) is not None:
                checks.holds(getattr(self, name) > 0, name, getattr(self, name), "positive")

    def _check_audit(self):
        if self.sampler == "serial":
            checks.known("bound", self.bound, BOUNDS)
            checks.positive(self, "warmup_budget", "reference_budget", "num_audit")
            if self.warmup_solver is not None:
                checks.known("warmup_solver", self.warmup_solver, solve.SOLVERS)
            if self.warmup_interval is not None:
                checks.positive(self, "warmup_interval")
            checks.holds(
                self.num_audit <= self.num_estimation,
                "num_audit",
                self.num_audit,
                f"at most num_estimation, {self.num_estimation}: the audit solves votes of the estimation again",
            )
        else:
            checks.positive(self, "num_audit")
        checks.holds(
            0 < self.alpha_audit < self.alpha, "alpha_audit", self.alpha_audit, f"in (0, alpha = {self.alpha})"
        )

    @property
    def refills(self) -> bool:
        """Whether solves stop by themselves and the next samples take their lanes."""
        return self.sampler == "independent" and self.tolerance is not None and self.solver != "jaxopt"

    @property
    def cap(self) -> float:
        """Radius of unanimous votes without a mismatch: no certificate can be larger."""
        votes = self.num_estimation
        p_lower = bounds.lower_bound(votes, votes, audited=self.num_audit, **self.parts(votes))
        return bounds.radius(p_lower, self.sigma)

    def parts(self, trials: int) -> dict[str, Any]:
        """Bound of a certificate read after some samples, and its parts of alpha; see `bounds.lower_bound`."""
        return {
            "alpha_count": self.look_alphas[trials],
            "alpha_audit": self.alpha_audit or 0.0,
            "bound": self.bound or "clopper-pearson",
        }

    @property
    def look_alphas(self) -> dict[int, float]:
        """The part of alpha that each reading of the counts takes, by its number of samples."""
        alpha = self.alpha - (self.alpha_audit or 0.0)
        sizes = self.looks or (self.num_estimation,)
        return looks.alphas(alpha, sizes, self.spending or looks.PROPORTIONAL)

    @property
    def evaluations(self) -> int:
        """Cell evaluations of one image, at most; of the pairs none. Serial: lanes must be known."""
        evaluations = self.budget * (self.num_selection + self.num_estimation)
        if self.sampler == "serial":
            steps = [-(-samples // self.lanes) for samples in (self.num_selection, self.num_estimation)]
            warm_ups = sum(-(-step // (self.warmup_interval or step)) for step in steps)
            evaluations += warm_ups * self.lanes * self.warmup_budget + self.num_audit * self.reference_budget
        return evaluations
