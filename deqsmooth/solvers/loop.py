"""The loop that turns a method into a solver: takes f and a start, gives a `types.Solution`.

A method says how the next iterate follows from the evaluations so far; the loop knows budgets,
tolerances, best iterates and counts. Both decide for every lane by itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.solvers import per_lane


@runtime_checkable
class Method(Protocol):
    """A rule for the next iterate. Implementations are frozen dataclasses.

    Attributes:
      unrolled: budget up to which a solve is compiled without a loop.
    """

    unrolled: ClassVar[int]

    def init(self, z: types.State, budget: int) -> Any:
        """The memory of a solve of `budget` evaluations that starts at `z`."""
        ...

    def update(
        self, step: jax.Array, z: types.State, fz: types.State, memory: Any
    ) -> tuple[types.State, Any, jax.Array]:
        """The iterate after `z`, the renewed memory, and which lanes fell back to `fz` [lanes]."""
        ...


class Progress(NamedTuple):
    """A solve to a tolerance on its way, every lane with an age of its own; all leaves are [lanes, ...].

    Attributes:
      age: evaluations so far [lanes].
      z: the next iterate to evaluate.
      memory: of the method, each lane's for itself.
      active: whether a lane goes on [lanes].
      best: the evaluated iterate to return, so far; the solution of a lane that does not go on.
    """

    age: types.Counts
    z: types.State
    memory: Any
    active: jax.Array
    best: types.Solution


@dataclasses.dataclass(frozen=True)
class Solver:
    """A method with a budget: a pure function of f and the start.

    Without a tolerance a solve makes exactly `budget` evaluations and returns the iterate that
    follows from them. With one, a lane stops at its first iterate whose relative residual is at
    most `tolerance`; a lane that never gets there returns the evaluated iterate with the least
    residual. A lane whose residual is not finite stops at once.

    Attributes:
      method: rule for the next iterate.
      budget: evaluations of f, at least 1.
      tolerance: relative residual at which a lane stops, or None.
    """

    method: Method
    budget: int
    tolerance: float | None = None

    def __post_init__(self):
        if self.budget < 1:
            raise ValueError(f"budget is {self.budget}; a solve takes at least 1 evaluation")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance}; it must be positive, or None")

    def solve(
        self, f: Callable[[types.State], types.State], z: types.State, *, measure_residual: bool = False
    ) -> types.Solution:
        """Solves z = f(z).

        Args:
          f: maps a state to a state of the same structure, lanes independent.
          z: where to start.
          measure_residual: whether to spend one more evaluation on the residual of the returned
            state; with a tolerance it is known without.

        Returns:
          The solution of every lane.
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

    def _solve_to_budget(self, f, z):
        nothing = jnp.zeros(len(jax.tree.leaves(z)[0]), jnp.int32)

        def step(index, carry):
            z, memory, _, num_fallbacks = carry
            fz = f(z)
            after, memory, fell_back = self.method.update(index, z, fz, memory)
            return after, memory, per_lane.relative_residual(z, fz), num_fallbacks + fell_back

        carry = (z, self.method.init(z, self.budget), nothing.astype(jnp.float32), nothing)
        unroll = self.budget <= self.method.unrolled
        value, _, residual, num_fallbacks = lax.fori_loop(0, self.budget, step, carry, unroll=unroll)
        return types.Solution(value, residual, nothing + self.budget, num_fallbacks)

    def _solve_to_tolerance(self, f, z):
        def unfinished(progress):
            return jnp.any(progress.active)

        return lax.while_loop(unfinished, functools.partial(self.advance, f), self.begin(z)).best

    def begin(self, z: types.State) -> Progress:
        """A solve to the tolerance that starts at z."""
        nothing = jnp.zeros(len(jax.tree.leaves(z)[0]), jnp.int32)
        memory = jax.vmap(lambda z: self.method.init(_alone(z), self.budget))(z)
        return Progress(nothing, z, memory, nothing == 0, types.Solution(z, nothing + jnp.inf, nothing, nothing))

    def advance(self, f: Callable[[types.State], types.State], progress: Progress) -> Progress:
        """One more evaluation; lanes that are not active stay as they are, whatever f does to them."""
        age, z, memory, active, best = progress
        fz = f(z)
        residual = per_lane.relative_residual(z, fz)
        better = active & ((age == 0) | (residual < best.residual))

        def update(age, z, fz, memory):
            after, memory, fell_back = self.method.update(age, _alone(z), _alone(fz), memory)
            return jax.tree.map(lambda x: x[0], after), memory, jnp.all(fell_back)

        after, memory, fell_back = jax.vmap(update)(age, z, fz, memory)
        best = types.Solution(
            value=per_lane.select(better, z, best.value),
            residual=jnp.where(better, residual, best.residual),
            num_evaluations=best.num_evaluations + active,
            num_fallbacks=best.num_fallbacks + (active & fell_back),
        )
        active &= jnp.isfinite(residual) & (residual > self.tolerance) & (age + 1 < self.budget)
        return Progress(age + 1, per_lane.select(active, after, z), memory, active, best)


def _alone(z: types.State) -> types.State:
    """A lane as the only one of a state."""
    return jax.tree.map(lambda x: x[None], z)
