"""Converged solves by jaxopt: its Anderson acceleration, every lane run to a tolerance by itself."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from deqsmooth import types
from deqsmooth.solvers import per_lane

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
    import jaxopt


@dataclasses.dataclass(frozen=True)
class Converged:
    """A solver with the contract of `loop.Solver`, for solves that are to converge rather than to be short.

    While a lane has made no more evaluations than its history holds, jaxopt's Anderson is plain iteration.

    Attributes:
      budget: evaluations of f at most.
      tolerance: a lane stops where the norm |f(z) - z| is at most this; absolute, as jaxopt defines it.
    """

    budget: int
    tolerance: float = 1e-5

    def solve(
        self, f: Callable[[types.State], types.State], z: types.State, *, measure_residual: bool = False
    ) -> types.Solution:
        """Solves z = f(z); see `loop.Solver.solve`. Returns f of the last evaluated iterate."""

        @custom_vmap
        def one_lane(z):
            return z

        # jaxopt sees one lane, so that every lane has its own history and stop; f still sees them all.
        @one_lane.def_vmap
        def _(size, batched, z):
            return f(z), jax.tree.map(lambda _: True, z)

        runner = jaxopt.AndersonAcceleration(
            one_lane, maxiter=self.budget, tol=self.tolerance, implicit_diff=False
        )
        value, state = jax.vmap(runner.run)(z)
        solution = types.Solution(
            value,
            (state.error / (per_lane.norm(value) + 1e-8)).astype(jnp.float32),
            state.iter_num.astype(jnp.int32),
            jnp.zeros_like(state.iter_num, jnp.int32),
        )
        if not measure_residual:
            return solution
        return solution._replace(
            residual=per_lane.relative_residual(value, f(value)),
            num_evaluations=solution.num_evaluations + 1,
        )
