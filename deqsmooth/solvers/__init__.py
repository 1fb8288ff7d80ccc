"""Fixed-point solvers: methods (`picard`, `anderson`, `broyden`) in a `loop`, and jaxopt's, `converged`."""

from __future__ import annotations

from deqsmooth import config
from deqsmooth.config import checks
from deqsmooth.solvers import anderson, broyden, jaxopt_anderson, loop, picard

Solver = loop.Solver | jaxopt_anderson.Converged


def build(name: str, budget: int, tolerance: float | None = None) -> Solver:
    """Returns the solver with a name of `config.SOLVERS`.

    Args:
      name: `plain`, `anderson`, `sketched-anderson` (of three evaluations, with weights from every
        fourth row of their residuals) or `broyden` (see `loop.Solver`), or `jaxopt` (see `converged.Converged`).
      budget: evaluations at most.
      tolerance: where a lane stops, or None for the solver's default.

    Example:
      >>> import jax.numpy as jnp
      >>> solution = build("anderson", 30, 1e-5).solve(jnp.cos, jnp.zeros((1, 1)))
      >>> f"{solution.value.item():.4f}", solution.num_evaluations.item() < 30
      ('0.7391', True)
    """
    checks.known("solver", name, config.SOLVERS)
    if name == "jaxopt":
        return (
            jaxopt_anderson.Converged(budget)
            if tolerance is None
            else jaxopt_anderson.Converged(budget, tolerance)
        )
    methods: dict[str, loop.Method] = {
        "plain": picard.Picard(),
        "anderson": anderson.Anderson(),
        "sketched-anderson": anderson.Anderson(history=3, stride=4),
        "broyden": broyden.Broyden(),
    }
    return loop.Solver(methods[name], budget, tolerance)
