"""Converged solves by jaxopt's Anderson acceleration: takes f and a start, runs every lane to a tolerance."""

from __future__ import annotations

import dataclasses
import numbers
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from deqsmooth import types
from deqsmooth.config import checks
from deqsmooth.solvers import per_lane

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
    import jaxopt


@dataclasses.dataclass(frozen=True)
class Converged:
    """A solver with the interface of `deqsmooth.solvers.loop.Solver`, for solves that should converge.

    jaxopt's Anderson acceleration is plain iteration until a lane has as many evaluations as its history holds.

    Attributes:
      budget: largest number of evaluations of f.
      tolerance: a lane stops if the norm |f(z) - z| is at most this; absolute, as jaxopt defines it.

    Raises:
      ValueError: the budget or the tolerance is out of range.
    """

    budget: int
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        checks.holds(
            isinstance(self.budget, numbers.Integral) and self.budget >= 1, "budget", self.budget, "at least 1"
        )
        checks.holds(self.tolerance > 0, "tolerance", self.tolerance, "positive")

    def solve(
        self, f: Callable[[types.State], types.State], z: types.State, *, measure_residual: bool = False
    ) -> types.Solution:
        """Solves z = f(z), as `deqsmooth.solvers.loop.Solver.solve` does.

        The value is f at the last evaluated iterate.

        Args:
          f: maps a state to a state of the same structure, shapes and dtypes; lanes do not depend on each other.
          z: initial state, leaves [lanes, ...] of a floating point type.
          measure_residual: whether to spend one more evaluation on the residual of the returned state.
        """
        per_lane.num_lanes(z)
        dtypes = jax.tree.map(jnp.result_type, z)

        def narrow(wide: types.State) -> types.State:
            return jax.tree.map(lambda x, dtype: x.astype(dtype), wide, dtypes)

        def widen(z: types.State) -> types.State:
            # jaxopt mixes the states with arrays of JAX's default type.
            return jax.tree.map(lambda x: jnp.asarray(x).astype(jnp.result_type(float)), z)

        def wide_f(wide: types.State) -> types.State:
            z = narrow(wide)
            return widen(per_lane.image(z, f(z)))

        # Under an outer vmap, f closes over values of its trace, which a batching rule cannot take from there.
        program, outputs = jax.make_jaxpr(wide_f, return_shape=True)(widen(z))
        structure = jax.tree.structure(outputs)

        @custom_vmap
        def one_lane(z: types.State, *constants: ArrayLike) -> types.State:
            return z

        # jaxopt solves one lane under vmap, so every lane has its own history and stops by itself. f gets all
        # lanes.
        @one_lane.def_vmap
        def _(
            size: int, batched: list[Any], z: types.State, *constants: ArrayLike
        ) -> tuple[types.State, types.State]:
            # JAX broadcasts the operands of a conditional, here jaxopt's, to all lanes; the copies are equal.
            copied = batched[1:]
            given = [jnp.asarray(x)[0] if is_copied else x for x, is_copied in zip(constants, copied, strict=True)]
            fz = jax.core.eval_jaxpr(program.jaxpr, given, *jax.tree.leaves(z))
            return jax.tree.unflatten(structure, fz), jax.tree.map(lambda _: True, z)

        runner = jaxopt.AndersonAcceleration(
            lambda z: one_lane(z, *program.consts), maxiter=self.budget, tol=self.tolerance, implicit_diff=False
        )
        value, state = jax.vmap(runner.run)(widen(z))
        value = narrow(value)
        solution = types.Solution(
            value,
            (state.error / (per_lane.norm(value) + per_lane.SMALLEST)).astype(jnp.float32),
            state.iter_num.astype(jnp.int32),
            jnp.zeros_like(state.iter_num, jnp.int32),
        )
        if not measure_residual:
            return solution
        return solution._replace(
            residual=per_lane.relative_residual(value, f(value)),
            num_evaluations=solution.num_evaluations + 1,
        )
