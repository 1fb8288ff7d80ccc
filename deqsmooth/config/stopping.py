"""Checks of the settings by which sampling stops early: looks, and the rules that stop at them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from deqsmooth.config import checks
from deqsmooth.statistics import looks

if TYPE_CHECKING:
    from deqsmooth.config.smoothing import Smoothing

RULES = ("stop_radius", "stop_gain", "stop_radii")
"""Settings that name a rule by which sampling stops at a look."""


def check(settings: Smoothing) -> None:
    """Raises `ValueError` unless looks, stopping rules and `only_correct` fit together and fit the sampler."""
    if settings.only_correct:
        rule = "left out with serial sampling, which draws both phases of an image at once"
        checks.holds(settings.sampler != "serial", "only_correct", settings.only_correct, rule)
    _check_rules(settings)
    if settings.looks is None:
        for name in ("spending", *RULES):
            value = getattr(settings, name)
            rule = "left out without looks, at which a run may stop"
            checks.holds(value is None or settings.sampler is None, name, value, rule)
        return
    if settings.spending is not None:
        checks.known("spending", settings.spending, looks.SPENDING)
    rule = "'independent' with looks, which read its votes"
    checks.holds(settings.sampler != "serial", "sampler", repr(settings.sampler), rule)
    increasing = all(a < b for a, b in zip((0, *settings.looks), settings.looks, strict=False))
    rule = f"increasing, at least 1, and end with num_estimation, {settings.num_estimation}"
    ends = settings.looks[-1:] == (settings.num_estimation,)
    checks.holds(increasing and ends, "looks", settings.looks, rule)


def _check_rules(settings: Smoothing) -> None:
    for name in ("stop_radius", "stop_gain"):
        if getattr(settings, name) is not None:
            checks.finite_positive(name, getattr(settings, name))
    if settings.stop_radii is not None:
        grid = settings.stop_radii
        increasing = all(0 <= a < b for a, b in itertools.pairwise(grid))
        is_grid = len(grid) > 0 and increasing and 0 <= grid[-1] < float("inf")
        checks.holds(is_grid, "stop_radii", grid, "increasing finite numbers from 0, at least one")
