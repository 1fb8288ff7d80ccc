"""Rules that training and certification share: how an equilibrium is solved for, and under which noise."""

from __future__ import annotations

import math
from typing import Any

from deqsmooth.config import checks

SOLVERS = ("plain", "anderson", "sketched-anderson", "broyden", "jaxopt")
DTYPES = ("float32", "tensorfloat32", "bfloat16")


def check(settings: Any) -> None:
    """Raises `ValueError` unless sigma, seed, dtype, solver and budget keep their rules."""
    check_noise(settings)
    checks.known("solver", settings.solver, SOLVERS)
    checks.positive(settings, "budget")


def check_noise(settings: Any) -> None:
    """Raises `ValueError` unless sigma, seed and dtype keep their rules."""
    checks.holds(
        math.isfinite(settings.sigma) and settings.sigma > 0,
        "sigma",
        settings.sigma,
        "a finite positive number, in pixels of [0, 1]",
    )
    checks.holds(0 <= settings.seed < 2**32, "seed", settings.seed, "from 0 to 2**32 - 1")
    checks.known("dtype", settings.dtype, DTYPES)
