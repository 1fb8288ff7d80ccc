"""Rules that the settings of training and of certification share: those of noise and of a solve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deqsmooth.config import checks

if TYPE_CHECKING:
    from deqsmooth.config.smoothing import Smoothing

SOLVERS = ("plain", "anderson", "sketched-anderson", "broyden", "jaxopt")
SERIAL_STARTS = ("previous", "first", "clean")
INDEPENDENT_STARTS = ("zero", "constant", "learned")
_SETTLED_STARTS = (*INDEPENDENT_STARTS, "previous", "clean")
DTYPES = ("float32", "tensorfloat32", "bfloat16")


def check(solver: str, budget: int | None) -> None:
    """Raises `ValueError` unless the solver is known and the budget is at least 1."""
    checks.known("solver", solver, SOLVERS)
    checks.holds(budget is not None and budget >= 1, "budget", budget, "at least 1")


def check_start(settings: Smoothing) -> None:
    """Raises `ValueError` if a start is given that the sampler does not have."""
    if settings.start is None:
        return
    independent = INDEPENDENT_STARTS if settings.settle is None else _SETTLED_STARTS
    starts = SERIAL_STARTS if settings.sampler == "serial" else independent
    checks.known("start", settings.start, SERIAL_STARTS + INDEPENDENT_STARTS)
    rule = f"one of {starts} for sampler {settings.sampler!r}"
    checks.holds(settings.start in starts, "start", repr(settings.start), rule)


def check_noise(sigma: float, seed: int, dtype: str) -> None:
    """Raises `ValueError` unless sigma, seed and the type of the cell keep their rules."""
    checks.finite_positive("sigma", sigma)
    checks.holds(0 <= seed < 2**32, "seed", seed, "from 0 to 2**32 - 1")
    checks.known("dtype", dtype, DTYPES)
