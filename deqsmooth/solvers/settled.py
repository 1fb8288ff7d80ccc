"""Solves that stop where a decision about the exact solution is proved, before they have converged."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.solvers import loop, per_lane

HOPELESS = 1 / 64
"""Where the distance from the last step is at most this part of that from rounding, evaluations hardly help."""


class Verdict(NamedTuple):
    """What an evaluation says about the decision of every lane.

    Attributes:
      is_settled: whether the decision is proved [lanes].
      is_hopeless: whether further evaluations are not worth their cost, since rounding hides the decision [lanes].
    """

    is_settled: jax.Array
    is_hopeless: jax.Array


Decide = Callable[[types.State, types.State], Verdict]
"""(z, f(z)) -> verdict."""


def margins(logits: types.Logits) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Votes [lanes], by how much their logits exceed each [lanes, classes], and which are of other classes."""
    vote = jnp.argmax(logits, -1)
    margin = jnp.take_along_axis(logits, vote[:, None], -1) - logits
    return vote, margin, jnp.arange(logits.shape[-1]) != vote[:, None]


@dataclasses.dataclass(frozen=True)
class Solver:
    """A method with a budget whose lanes stop at the first evaluation that settles them.

    The solution of a lane is f(z) of its last evaluation. Its residual is infinite in a lane that is not settled
    within the budget, or before it is hopeless: such a lane has no result.

    Attributes:
      method: rule for the next iterate; the proof holds for any.
      budget: largest number of evaluations of f.
    """

    method: loop.Method
    budget: int

    def solve(self, f: Callable[[types.State], types.State], z: types.State, decide: Decide) -> types.Solution:
        """Evaluates f from z until every lane is settled or has spent its budget."""
        advance = functools.partial(self.advance, f, decide)
        return lax.while_loop(lambda progress: jnp.any(progress.active), advance, self.begin(z)).best

    def begin(self, z: types.State) -> loop.Progress:
        """Returns the progress of lanes before their first evaluation, at z."""
        return loop.begin(self.method, self.budget, z)

    def advance(
        self, f: Callable[[types.State], types.State], decide: Decide, progress: loop.Progress
    ) -> loop.Progress:
        """Makes one more evaluation of f. Lanes that are not active do not change."""
        age, z, memory, active, best = progress
        fz = per_lane.image(z, f(z))
        is_settled, is_hopeless = decide(z, fz)
        after, memory, fell_back = loop.update(self.method, age, z, fz, memory)
        residual = jnp.where(is_settled, per_lane.relative_residual(z, fz), jnp.inf)
        best = types.Solution(
            value=per_lane.select(active, fz, best.value),
            residual=jnp.where(active, residual, best.residual),
            num_evaluations=best.num_evaluations + active.astype(jnp.int32),
            num_fallbacks=best.num_fallbacks + (active & fell_back).astype(jnp.int32),
        )
        active &= ~is_settled & ~is_hopeless & per_lane.is_finite(fz) & (age + 1 < self.budget)
        return loop.Progress(age + 1, per_lane.select(active, after, z), memory, active, best)
