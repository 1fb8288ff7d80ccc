"""The loop of every solve: takes f, an initial state and a method, gives a `types.Solution`.

A method computes the next iterate from the evaluations so far. The loop keeps budgets, tolerances, best iterates
and counts. Both treat every lane independently.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.config import checks
from deqsmooth.solvers import per_lane

Memory = Any
"""Pytree that a method carries from one evaluation to the next."""


@runtime_checkable
class Method(Protocol):
    """A rule for the next iterate. Implementations are frozen dataclasses.

    Attributes:
      unrolled: largest budget for which a solve without a tolerance is unrolled instead of compiled as a loop.
    """

    unrolled: ClassVar[int]

    def init(self, z: types.State, budget: int) -> Memory:
        """Returns the memory of a solve.

        Args:
          z: initial state, leaves [lanes, ...].
          budget: evaluations of the solve.
        """
        ...

    def update(
        self, step: jax.Array, z: types.State, fz: types.State, memory: Memory
    ) -> tuple[types.State, Memory, jax.Array]:
        """Computes the next iterate from an evaluation.

        Args:
          step: number of the evaluation, from 0, int32 [].
          z: the evaluated iterate.
          fz: f(z).
          memory: what `init` or the last call returned.

        Returns:
          The next iterate, the updated memory, and whether each lane fell back to `fz` [lanes] (or [] for all).
        """
        ...


_Carry = tuple[types.State, Memory, types.PerLane, types.Counts]


class Progress(NamedTuple):
    """State of a solve to a tolerance; all leaves are [lanes, ...], and lanes may have started at different times.

    Attributes:
      age: number of calls of `advance` since the lane began [lanes]; it also grows after the lane has stopped.
      z: the next iterate to evaluate.
      memory: memory of the method, one for each lane.
      active: whether a lane continues [lanes].
      best: the evaluated iterate with the least residual so far; the solution of a lane that is not active.
    """

    age: types.Counts
    z: types.State
    memory: Memory
    active: jax.Array
    best: types.Solution


@dataclasses.dataclass(frozen=True)
class Solver:
    """A method with a budget: a pure function of f and the initial state.

    Without a tolerance, a solve makes exactly `budget` evaluations and returns the iterate after the last one.
    With a tolerance, a lane stops at its first iterate whose relative residual is at most `tolerance`. A lane that
    does not reach the tolerance returns the evaluated iterate with the least residual. A lane whose residual is
    not finite stops at once.

    Attributes:
      method: rule for the next iterate.
      budget: number of evaluations of f, at least 1.
      tolerance: relative residual at which a lane stops, or None.

    Raises:
      ValueError: the budget or the tolerance is out of range.
    """

    method: Method
    budget: int
    tolerance: float | None = None

    def __post_init__(self) -> None:
        checks.holds(
            isinstance(self.budget, numbers.Integral) and self.budget >= 1, "budget", self.budget, "at least 1"
        )
        positive = self.tolerance is None or self.tolerance > 0
        checks.holds(positive, "tolerance", self.tolerance, "positive or None")

    def solve(
        self, f: Callable[[types.State], types.State], z: types.State, *, measure_residual: bool = False
    ) -> types.Solution:
        """Solves z = f(z).

        Args:
          f: maps a state to a state of the same structure, shapes and dtypes; lanes do not depend on each other.
          z: initial state, leaves [lanes, ...] of a floating point type.
          measure_residual: whether to spend one more evaluation on the residual of the returned state. With a
            tolerance this residual is known without it.

        Returns:
          The solution of every lane.

        Raises:
          ValueError: z is no state, or f(z) differs from z in structure, shapes or dtypes.
        """
        if self.tolerance is not None:
            return self._solve_to_tolerance(f, z)
        solution = self._solve_to_budget(f, z)
        if not measure_residual:
            return solution
        return solution._replace(
            residual=per_lane.relative_residual(solution.value, f(solution.value)),
            num_evaluations=solution.num_evaluations + 1,
        )

    def _solve_to_budget(self, f: Callable[[types.State], types.State], z: types.State) -> types.Solution:
        nothing = jnp.zeros(per_lane.num_lanes(z), jnp.int32)
        unroll = self.budget <= self.method.unrolled

        def last_residual(index: jax.Array, z: types.State, fz: types.State, before: jax.Array) -> jax.Array:
            # Of all residuals only the last is a result. In a loop the others would be computed, too.
            if unroll:
                return per_lane.relative_residual(z, fz)
            is_last = index == self.budget - 1
            return lax.cond(
                is_last, lambda z, fz, _: per_lane.relative_residual(z, fz), lambda *x: x[-1], z, fz, before
            )

        def step(index: jax.Array, carry: _Carry) -> _Carry:
            z, memory, residual, num_fallbacks = carry
            fz = per_lane.image(z, f(z))
            after, memory, fell_back = self.method.update(index, z, fz, memory)
            residual = last_residual(index, z, fz, residual)
            return after, memory, residual, num_fallbacks + fell_back.astype(jnp.int32)

        carry = (z, self.method.init(z, self.budget), nothing.astype(jnp.float32), nothing)
        value, _, residual, num_fallbacks = lax.fori_loop(0, self.budget, step, carry, unroll=unroll)
        return types.Solution(value, residual, nothing + self.budget, num_fallbacks)

    def _solve_to_tolerance(self, f: Callable[[types.State], types.State], z: types.State) -> types.Solution:
        def is_unfinished(progress: Progress) -> jax.Array:
            return jnp.any(progress.active)

        return lax.while_loop(is_unfinished, functools.partial(self.advance, f), self.begin(z)).best

    def begin(self, z: types.State) -> Progress:
        """Returns the progress of a solve to the tolerance before its first evaluation, at z.

        Args:
          z: initial state, leaves [lanes, ...].
        """
        return begin(self.method, self.budget, z)

    def advance(self, f: Callable[[types.State], types.State], progress: Progress) -> Progress:
        """Makes one more evaluation of f. In lanes that are not active, `z` and `best` do not change.

        Args:
          f: see `deqsmooth.solvers.loop.Solver.solve`.
          progress: from `begin` or the last call.

        Raises:
          ValueError: the solver has no tolerance.
        """
        if self.tolerance is None:
            raise ValueError("tolerance is None; it must be positive for a solve that advances step by step")
        age, z, memory, active, best = progress
        fz = per_lane.image(z, f(z))
        residual = per_lane.relative_residual(z, fz)
        better = active & ((age == 0) | (residual < best.residual))
        after, memory, fell_back = update(self.method, age, z, fz, memory)
        best = types.Solution(
            value=per_lane.select(better, z, best.value),
            residual=jnp.where(better, residual, best.residual),
            num_evaluations=best.num_evaluations + active.astype(jnp.int32),
            num_fallbacks=best.num_fallbacks + (active & fell_back).astype(jnp.int32),
        )
        active &= jnp.isfinite(residual) & (residual > self.tolerance) & (age + 1 < self.budget)
        return Progress(age + 1, per_lane.select(active, after, z), memory, active, best)


def begin(method: Method, budget: int, z: types.State) -> Progress:
    """Returns the progress of lanes before their first evaluation, at z, with a residual of infinity."""
    nothing = jnp.zeros(per_lane.num_lanes(z), jnp.int32)
    memory = jax.vmap(lambda z: method.init(_add_lane_axis(z), budget))(z)
    residual = jnp.full(nothing.shape, jnp.inf, jnp.float32)
    return Progress(nothing, z, memory, nothing == 0, types.Solution(z, residual, nothing, nothing))


def update(
    method: Method, age: types.Counts, z: types.State, fz: types.State, memory: Memory
) -> tuple[types.State, Memory, jax.Array]:
    """The next iterates of lanes of different ages; see `Method.update`."""

    def of_lane(
        age: jax.Array, z: types.State, fz: types.State, memory: Memory
    ) -> tuple[types.State, Memory, jax.Array]:
        after, memory, fell_back = method.update(age, _add_lane_axis(z), _add_lane_axis(fz), memory)
        return jax.tree.map(lambda x: x[0], after), memory, jnp.all(fell_back)

    return jax.vmap(of_lane)(age, z, fz, memory)


def _add_lane_axis(z: types.State) -> types.State:
    """Returns the state of one lane with a lane axis of length 1."""
    return jax.tree.map(lambda x: x[None], z)
