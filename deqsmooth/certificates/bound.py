"""From the votes on an image to the fields of its certificate: counts, bound, and what made them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from deqsmooth import config
from deqsmooth.certificates import record
from deqsmooth.statistics import bounds

_QUANTILES = (0.5, 0.9, 1.0)


@dataclasses.dataclass(frozen=True)
class Image:
    """An image to certify.

    Attributes:
      index: in its data set, on which its noise depends.
      pixels: float32 in [0, 1] [H, W, C].
      label: its class; None if unknown.
    """

    index: int
    pixels: np.ndarray
    label: int | None


class Found(NamedTuple):
    """What a sampler found for an image.

    Attributes:
      image: that it certifies.
      fields: of its certificate, but for index, label, correct and seconds.
      seconds: spent on it.
    """

    image: Image
    fields: dict[str, Any]
    seconds: float


def fields(
    settings: config.Smoothing,
    solves: bool,
    *,
    selected: int,
    counts_selection: np.ndarray,
    counts: np.ndarray,
    residual: np.ndarray,
    evaluations: int,
    fallbacks: int,
    audit: dict[str, Any],
) -> dict[str, Any]:
    """Bound and record of an image from what was counted.

    Args:
      settings: of the certificates.
      solves: whether the classifier has an equilibrium.
      selected: class that the selection chose.
      counts_selection: votes by class [classes + 1].
      counts: the same of the estimation.
      residual: of the estimation's samples [samples].
      evaluations: spent on the image.
      fallbacks: of its solves.
      audit: `audited`, `mismatches` and `residual` [audited] of an audit, or of pairs; empty without.
    """
    serial = settings.sampler == "serial"
    count, trials = int(counts[selected]), int(counts.sum())
    parts = settings.parts(trials)
    mismatches, audited = audit.get("mismatches", 0), audit.get("audited")
    return {
        **_statement(settings, parts, selected, count, trials, mismatches, audited),
        "selected": selected,
        "count": count,
        "counts_selection": tuple(counts_selection.tolist()),
        "counts": tuple(counts.tolist()),
        "num_selection": settings.num_selection,
        "num_estimation": trials,
        "num_audit": audited or 0,
        "mismatches": mismatches,
        "warning": record.NOT_VALID if settings.bound == "reference-code" else None,
        "alpha": settings.alpha,
        "alpha_count": parts["alpha_count"],
        "alpha_audit": settings.alpha_audit or 0.0,
        "sigma": settings.sigma,
        "sampler": settings.sampler,
        "start": settings.start if solves else None,
        "solver": settings.solver if solves else None,
        "budget": settings.budget if solves else None,
        "tolerance": settings.tolerance if solves else None,
        "warmup_budget": settings.warmup_budget,
        "reference_budget": settings.reference_budget if serial else settings.budget if solves else None,
        "lanes": settings.lanes,
        "seed": settings.seed,
        "dtype": settings.dtype,
        "looks": settings.looks,
        "evaluations": evaluations,
        "invalid": int(counts[-1]),
        "fallbacks": fallbacks,
        "residuals": _quantiles(residual),
        "reference_residuals": _quantiles(audit.get("residual", np.empty(0))),
    }


def under(bound: str, settings: config.Smoothing, c: record.Certificate) -> record.Certificate:
    """The certificate that another bound of the serial sampler makes of the same votes."""
    trials = sum(c.counts)
    parts = {**settings.parts(trials), "bound": bound}
    statement = _statement(settings, parts, c.selected, c.count, trials, c.mismatches, c.num_audit)
    correct = None if c.label is None else statement["prediction"] == c.label
    return dataclasses.replace(c, correct=correct, **statement)


def _statement(settings, parts, selected, count, trials, mismatches, audited) -> dict[str, Any]:
    p_lower = bounds.lower_bound(count, trials, mismatches=mismatches, audited=audited, **parts)
    return {
        "prediction": selected if p_lower > 0.5 else None,
        "radius": bounds.radius(p_lower, settings.sigma),
        "p_lower": p_lower,
        "bound": parts["bound"],
    }


def _quantiles(residual: np.ndarray) -> tuple[float, ...] | None:
    finite = residual[np.isfinite(residual)]
    return tuple(np.quantile(finite, _QUANTILES).tolist()) if len(finite) else None
