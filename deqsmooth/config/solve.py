"""Rules that the settings of training and of certification share: those of noise and of a solve."""

from __future__ import annotations

from deqsmooth.config import checks

SOLVERS = ("plain", "anderson", "sketched-anderson", "broyden", "jaxopt")
DTYPES = ("float32", "tensorfloat32", "bfloat16")


def check(solver: str, budget: int | None) -> None:
    """Raises `ValueError` unless the solver is known and the budget is at least 1."""
    checks.known("solver", solver, SOLVERS)
    checks.holds(budget is not None and budget >= 1, "budget", budget, "at least 1")


def check_noise(sigma: float, seed: int, dtype: str) -> None:
    """Raises `ValueError` unless sigma, seed and the type of the cell keep their rules."""
    checks.finite_positive("sigma", sigma)
    checks.holds(0 <= seed < 2**32, "seed", seed, "from 0 to 2**32 - 1")
    checks.known("dtype", dtype, DTYPES)
