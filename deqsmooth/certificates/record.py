"""The record of one image: a certificate with the counts that its radius follows from.

A record can be checked from the file alone, without the model; see `verification`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from deqsmooth import config
from deqsmooth.certificates.bound import Bound

SCHEMA = 5
"""Version of the format. All are read, and the newest is written.

Schema 1 had no chain. Schemas 1 and 2 wrote pairs as an audit. Schemas 1 to 3 had no plan and no end lines, see
`plan`, and no `num_images` in the header: the number of images of the data set, null if it is not known. Schemas 1
to 4 had no `noise` in the header, and no `p_upper`, `alpha_upper` and `noise_error`.
"""
_QUANTILES = (0.5, 0.9, 1.0)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was found for one image.

    With probability at least 1 - alpha, every image within L2 distance `radius` (pixels in [0, 1]) gets
    `prediction` from the smoothed classifier whose base classifier the header describes as `reference`.

    Attributes:
      index: of the image in its split.
      label: class in the data set; None if unknown.
      prediction: certified class; None if the run abstains.
      correct: whether prediction and label agree; None if the label is unknown.
      radius: certified radius, float64; 0 if the run abstains.
      p_lower: lower bound on the probability of the selected class.
      p_upper: upper bound on that of every other class; None if it is 1 - p_lower.
      selected: class that the selection chose.
      count: votes of the estimation for it.
      counts_selection: votes of the selection by class; the last entry counts samples that were not finite.
      counts: the same of the estimation.
      num_selection: samples of the selection (N0).
      num_estimation: samples of the estimation that were drawn (N, or the look at which sampling stopped; 0 if the
        image ended after its selection).
      num_audit: serial votes that were solved again with the reference (K); 0 without an audit.
      mismatches: audited votes that the reference does not give to the selected class.
      bound: name of the bound: `clopper-pearson`, `two-sided`, `paired`, or that of an audited bound; `none` for
        an image that ended after its selection.
      warning: "not a valid bound" if the formula is none, else None.
      alpha: failure probability in all.
      alpha_audit: part of it that the audit takes.
      sigma: standard deviation of the noise.
      sampler: `serial` or `independent`.
      start: initial state of the solve of a sample, as in `ds.Smoothing`.
      solver: solver of a sample; None for a classifier that solves nothing, as are start, budget and tolerance.
      budget: largest number of cell evaluations of that solve.
      tolerance: residual at which that solve stops, or None; see `ds.Smoothing`.
      warmup_budget: cell evaluations of a lane's warm-up; None for the independent sampler.
      reference_budget: cell evaluations of the certified base classifier; `budget` for the independent sampler.
      lanes: samples side by side; for serial the number of chains.
      seed: of the noise and the audit.
      evaluations: cell evaluations spent on the image, warm-up and audit included; of a recertified certificate
        those of the pairs.
      invalid: samples of the estimation whose logits were not finite.
      fallbacks: solver steps replaced by plain iteration, in selection, estimation and audit.
      residuals: quantiles 0.5, 0.9 and 1 of the relative residuals of the estimation's solves, see
        `ds.Solution`; None for a classifier that solves nothing, and in a paired certificate.
      reference_residuals: the same of the audit's solves; None without an audit.
      seconds: wall time of the image's batch, divided by its images; compilation not included.
      dtype: floating point type of the cell.
      looks: numbers of samples at which the certificate might have been read; None if only at the end.
      alpha_count: part of alpha that the count took where it was read; None in old files, whose looks have equal
        parts.
      num_pairs: samples on which the certified classifier was compared with the one whose votes are counted; 0
        without such a comparison.
      lost: of these, samples to which only the classifier of the votes gave the selected class.
      alpha_pairs: part of alpha that the pairs take.
      alpha_upper: part of alpha that p_upper takes.
      noise_error: what the error of exactly drawn noise takes off p_lower; see `ds.Smoothing.noise_error`.
    """

    index: int
    label: int | None
    prediction: int | None
    correct: bool | None
    radius: float
    p_lower: float
    selected: int
    count: int
    counts_selection: tuple[int, ...]
    counts: tuple[int, ...]
    num_selection: int
    num_estimation: int
    num_audit: int
    mismatches: int
    bound: str
    warning: str | None
    alpha: float
    alpha_audit: float
    sigma: float
    sampler: str
    start: str | None
    solver: str | None
    budget: int | None
    tolerance: float | None
    warmup_budget: int | None
    reference_budget: int | None
    lanes: int
    seed: int
    evaluations: int
    invalid: int
    fallbacks: int
    residuals: tuple[float, ...] | None
    reference_residuals: tuple[float, ...] | None
    seconds: float
    dtype: str = "float32"
    looks: tuple[int, ...] | None = None
    alpha_count: float | None = None
    num_pairs: int = 0
    lost: int = 0
    alpha_pairs: float = 0.0
    p_upper: float | None = None
    alpha_upper: float = 0.0
    noise_error: float = 0.0


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An image without a certificate, because it could not be read or the model does not take it.

    Attributes:
      index: of the image in its split.
      error: what is wrong with it.
    """

    index: int
    error: str


@dataclasses.dataclass(frozen=True)
class Work:
    """What the certificate of an image took.

    Attributes:
      evaluations: cell evaluations, warm-up and audit included.
      fallbacks: solver steps replaced by plain iteration.
      residual: relative residuals of the estimation's solves [samples].
      reference_residual: the same of the audit's solves [audited].
      seconds: wall time.
    """

    evaluations: int
    fallbacks: int
    residual: np.ndarray
    reference_residual: np.ndarray
    seconds: float


def certificate(
    index: int,
    label: int | None,
    bound: Bound,
    settings: config.Smoothing,
    *,
    solves: bool,
    lanes: int,
    work: Work,
) -> Certificate:
    """The certificate of an image.

    Args:
      index: of the image in its split.
      label: class in the data set; None if unknown.
      bound: what its votes prove.
      settings: of the run.
      solves: whether the classifier has an equilibrium to solve for.
      lanes: samples side by side.
      work: what it took.
    """
    return Certificate(
        index=index,
        label=label,
        correct=is_correct(bound.prediction, label),
        lanes=lanes,
        evaluations=work.evaluations,
        fallbacks=work.fallbacks,
        residuals=_quantiles(work.residual),
        reference_residuals=_quantiles(work.reference_residual),
        seconds=work.seconds,
        **claims(bound),
        **choices(settings, solves),
    )


def claims(bound: Bound) -> dict[str, Any]:
    """The fields of a certificate that state its bound, by name."""
    audit, pairs = bound.audit, bound.pairs
    return {
        "prediction": bound.prediction,
        "radius": bound.radius,
        "p_lower": bound.p_lower,
        "p_upper": bound.p_upper,
        "selected": bound.selected,
        "count": bound.count,
        "counts_selection": bound.counts_selection,
        "counts": bound.counts,
        "num_estimation": sum(bound.counts),
        "num_audit": 0 if audit is None else audit.num,
        "mismatches": 0 if audit is None else audit.mismatches,
        "bound": bound.formula,
        "warning": bound.warning,
        "alpha": bound.alpha,
        "alpha_count": bound.alpha_count,
        "alpha_audit": 0.0 if audit is None else audit.alpha,
        "invalid": bound.counts[-1],
        "num_pairs": 0 if pairs is None else pairs.num,
        "lost": 0 if pairs is None else pairs.lost,
        "alpha_pairs": 0.0 if pairs is None else pairs.alpha,
        "alpha_upper": bound.alpha_upper,
        "noise_error": bound.noise_error,
    }


def choices(settings: config.Smoothing, solves: bool) -> dict[str, Any]:
    """The fields of a certificate that repeat the settings of its run, by name.

    Args:
      settings: of the run.
      solves: whether the classifier has an equilibrium to solve for; without, it has no solve to describe.
    """
    serial = settings.sampler == "serial"
    reference_budget = settings.reference_budget if serial else settings.budget
    return {
        "num_selection": settings.num_selection,
        "sigma": settings.sigma,
        "sampler": settings.sampler,
        "start": settings.start if solves else None,
        "solver": settings.solver if solves else None,
        "budget": settings.budget if solves else None,
        "tolerance": settings.tolerance if solves else None,
        "warmup_budget": settings.warmup_budget,
        "reference_budget": reference_budget if solves else None,
        "seed": settings.seed,
        "dtype": settings.dtype,
        "looks": settings.looks,
    }


def is_correct(prediction: int | None, label: int | None) -> bool | None:
    """Whether a prediction is right; None if the label is unknown. An abstention is not right."""
    return None if label is None else prediction == label


def _quantiles(residual: np.ndarray) -> tuple[float, ...] | None:
    finite: Sequence[float] = residual[np.isfinite(residual)]
    return tuple(np.quantile(finite, _QUANTILES).tolist()) if len(finite) else None
