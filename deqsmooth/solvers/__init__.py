"""Fixed-point solvers: iteration methods in a loop (`loop.Solver`), and jaxopt's (`jaxopt_anderson.Converged`)."""

from __future__ import annotations

from deqsmooth import config
from deqsmooth.config import checks
from deqsmooth.solvers import anderson, broyden, jaxopt_anderson, loop, picard

Solver = loop.Solver | jaxopt_anderson.Converged


def build(name: str, budget: int, tolerance: float | None = None) -> Solver:
    """Returns the solver with a name.

    Args:
      name: `plain`, `anderson`, `broyden`, or `sketched-anderson` (a history of three evaluations, and mixing
        weights from every fourth row of their residuals, of arrays with at least eight), which give a
        `deqsmooth.solvers.loop.Solver`; or `jaxopt`, which gives a
        `deqsmooth.solvers.jaxopt_anderson.Converged`.
      budget: largest number of evaluations.
      tolerance: residual at which a lane stops, or None for the solver's default.

    Raises:
      ValueError: the name is unknown, or the budget or the tolerance is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> solution = build("anderson", 30, 1e-5).solve(jnp.cos, jnp.zeros((1, 1)))
      >>> f"{solution.value.item():.4f}", solution.num_evaluations.item() < 30
      ('0.7391', True)
    """
    checks.known("solver", name, config.SOLVERS)
    if name == "jaxopt":
        if tolerance is None:
            return jaxopt_anderson.Converged(budget)
        return jaxopt_anderson.Converged(budget, tolerance)
    methods: dict[str, loop.Method] = {
        "plain": picard.Picard(),
        "anderson": anderson.Anderson(),
        "sketched-anderson": anderson.Anderson(history=3, stride=4),
        "broyden": broyden.Broyden(),
    }
    return loop.Solver(methods[name], budget, tolerance)
