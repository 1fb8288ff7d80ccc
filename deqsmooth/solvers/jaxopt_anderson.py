"""Converged solves by jaxopt's Anderson acceleration: takes f and a start, runs every lane to a tolerance."""

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
    """A solver with the interface of `loop.Solver`, for solves that should converge.

    jaxopt's Anderson acceleration is plain iteration until a lane has as many evaluations as its history holds.

    Attributes:
      budget: largest number of evaluations of f.
      tolerance: a lane stops if the norm |f(z) - z| is at most this; absolute, as jaxopt defines it.
    """

    budget: int
    tolerance: float = 1e-5

    def solve(
        self, f: Callable[[types.State], types.State], z: types.State, *, measure_residual: bool = False
    ) -> types.Solution:
        """Solves z = f(z); see `loop.Solver.solve`. The value is f at the last evaluated iterate."""

        @custom_vmap
        def one_lane(z: types.State) -> types.State:
            return z

        # jaxopt solves one lane under vmap, so every lane has its own history and stops by itself. f gets all
        # lanes.
        @one_lane.def_vmap
        def _(size: int, batched: list[types.State], z: types.State) -> tuple[types.State, types.State]:
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
