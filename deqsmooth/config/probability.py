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
# The table of exact noise is then made in seconds.
_LARGEST_GRID = 2048


def check(settings: Smoothing) -> None:
    """Raises `ValueError` unless bound, audit and noise fit together and fit the sampler."""
    if settings.sampler == "serial":
        checks.known("bound", str(settings.bound), AUDITED)
    if settings.num_audit is not None:
        checks.holds(
            settings.num_audit <= settings.num_estimation,
            "num_audit",
            settings.num_audit,
            f"at most num_estimation, {settings.num_estimation}: the audit solves votes of the estimation again",
        )
    if settings.bound != bounds.TWO_SIDED:
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
    p_upper = bounds.clopper_pearson_upper(0, votes, settings.upper_alphas[votes])
    return robustness.radius(p_lower, settings.sigma, min(p_upper, 1.0 - p_lower))


def _check_noise(settings: Smoothing) -> None:
    checks.known("noise", settings.noise, NOISES)
    if settings.grid is None:
        return
    rule = "left out with 'gaussian' noise, which is not rounded to a grid"
    checks.holds(settings.noise == "exact", "grid", settings.grid, rule)
    checks.positive(settings, "grid")
    most = _LARGEST_GRID / settings.sigma
    checks.holds(settings.grid <= most, "grid", settings.grid, f"at most {_LARGEST_GRID} / sigma, {most:g}")
