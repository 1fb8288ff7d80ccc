"""Checks of the settings on which a statement of probability depends: the bound, its parts of alpha, the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deqsmooth.config import checks
from deqsmooth.statistics import bounds, robustness

if TYPE_CHECKING:
    from deqsmooth.config.smoothing import Smoothing

AUDITED = tuple(bounds.AUDITED)
"""Bounds of serial votes; the first is the default."""
NOISES = ("gaussian", "exact")
GENERATOR = "threefry2x32"
"""Generator of all random bits. Its draws do not depend on how they are batched; those of others may."""
# Points of a grid in a unit, so that pixels and noise are exact in float32; and in a standard deviation, so that
# the table of exact noise is made in seconds.
_LARGEST_GRID, _LARGEST_SCALE = 2**16, 2048


def check_bound(settings: Smoothing) -> None:
    """Raises `ValueError` if a bound is given that the sampler does not have."""
    if settings.bound is None:
        return
    checks.known("bound", settings.bound, (*AUDITED, bounds.CLOPPER_PEARSON, bounds.TWO_SIDED, bounds.PAIRED))
    independent = tuple(name for name in settings.independent_bounds if name is not None)
    fitting = AUDITED if settings.sampler == "serial" else independent
    rule = f"one of {', '.join(fitting)} with sampler {settings.sampler!r}"
    checks.holds(settings.bound in fitting, "bound", settings.bound, rule)


def check(settings: Smoothing) -> None:
    """Raises `ValueError` unless audit, parts of alpha and noise fit together."""
    if settings.num_audit is not None:
        checks.holds(
            settings.num_audit <= settings.num_estimation,
            "num_audit",
            settings.num_audit,
            f"at most num_estimation, {settings.num_estimation}: the audit solves votes of the estimation again",
        )
    is_recommended = settings.sampler is None and settings.bound is None
    if settings.bound != bounds.TWO_SIDED and not is_recommended:
        rule = f"left out without the bound {bounds.TWO_SIDED!r}"
        checks.holds(settings.alpha_upper is None, "alpha_upper", settings.alpha_upper, rule)
    for name in ("alpha_audit", "alpha_upper"):
        part = getattr(settings, name)
        if part is not None:
            checks.holds(0 < part < settings.alpha, name, part, f"in (0, alpha = {settings.alpha})")
    _check_noise(settings)


def cap(settings: Smoothing) -> float:
    """Radius of unanimous votes without a mismatch, by settings with a sampler and without pairs."""
    votes = settings.num_estimation
    audit = None if settings.num_audit is None else settings.audit(settings.num_audit, 0)
    p_lower = bounds.lower_bound(votes, votes, settings.look_alphas[votes], audit=audit)
    if settings.alpha_upper is None:
        return robustness.radius(p_lower, settings.sigma)
    # Of two classes, for which the bound on the other one is lowest.
    upper = bounds.clopper_pearson_upper(0, votes, settings.upper_alphas[votes])
    return robustness.radius(p_lower, settings.sigma, robustness.rest(p_lower, upper))


def _check_noise(settings: Smoothing) -> None:
    checks.known("noise", settings.noise, NOISES)
    if settings.grid is None:
        return
    rule = "left out with 'gaussian' noise, which is not rounded to a grid"
    checks.holds(settings.noise == "exact", "grid", settings.grid, rule)
    checks.positive(settings, "grid")
    most = largest_grid(settings.sigma)
    rule = f"at most {most}: {_LARGEST_GRID:,}, and {_LARGEST_SCALE} / sigma"
    checks.holds(settings.grid <= most, "grid", settings.grid, rule)


def largest_grid(sigma: float) -> int:
    """The largest number of points of a grid in a unit that exact noise can have."""
    return int(min(_LARGEST_GRID, _LARGEST_SCALE / sigma))
