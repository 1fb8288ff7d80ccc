"""Broyden's good method: a quasi-Newton step with a low-rank estimate of the inverse Jacobian."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.solvers import lanes


class Memory(NamedTuple):
    """The inverse Jacobian estimate -I + sum_i left_i right_i^T, and the last step.

    Attributes:
      left: vectors left_i, each leaf [budget - 1, lanes, ...]; zero where not yet set.
      right: vectors right_i, in the same layout.
      residual: f(z) - z at the iterate before.
      step: the step taken from it.
    """

    left: Any
    right: Any
    residual: types.State
    step: types.State


@dataclasses.dataclass(frozen=True)
class Broyden:
    """A `loop.Method`: good Broyden on g(z) = f(z) - z (Broyden 1965), full memory, unit steps.

    The inverse Jacobian starts at -I, so that one evaluation gives f(z). A lane whose rank-one
    update is singular or whose step is not finite drops that update and takes f(z) instead.
    """

    def init(self, z: types.State, budget: int) -> Memory:
        blank = jax.tree.map(jnp.zeros_like, z)
        return Memory(lanes.zeros(budget - 1, z), lanes.zeros(budget - 1, z), blank, blank)

    def update(
        self, step: jax.Array, z: types.State, fz: types.State, memory: Memory
    ) -> tuple[types.State, Memory, jax.Array]:
        residual = jax.tree.map(jnp.subtract, fz, z)
        left, right, singular = memory.left, memory.right, jnp.bool_(False)
        if len(jax.tree.leaves(left)[0]):
            change = jax.tree.map(jnp.subtract, residual, memory.residual)
            right_new = _apply(right, left, memory.step)
            missing = jax.tree.map(jnp.subtract, memory.step, _apply(left, right, change))
            denominator = lanes.dot(right_new, change)
            left_new = jax.tree.map(lambda x: x / lanes.align(denominator, x), missing)
            sound = lanes.is_finite(left_new) & lanes.is_finite(right_new)
            # Before the first step there is nothing to update from; its slot is the last one, still zero.
            first, keep = step == 0, sound & (step > 0)
            blank = jax.tree.map(jnp.zeros_like, z)
            left = lanes.put(left, step - 1, lanes.select(keep, left_new, blank))
            right = lanes.put(right, step - 1, lanes.select(keep, right_new, blank))
            singular = ~sound & ~first
        proposed = jax.tree.map(jnp.negative, _apply(left, right, residual))
        usable = lanes.is_finite(proposed) & ~singular
        taken = lanes.select(usable, proposed, residual)
        after = lanes.select(usable, jax.tree.map(jnp.add, z, proposed), fz)
        # At the fixed point itself there is no step that could be singular.
        return after, Memory(left, right, residual, taken), ~usable & (lanes.dot(residual, residual) > 0)


def _apply(left, right, x):
    """(-I + sum_i left_i right_i^T) x by lane."""
    return jax.tree.map(jnp.subtract, lanes.combine(lanes.dots(right, x), left), x)
