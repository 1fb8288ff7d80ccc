"""Anderson mixing: the next iterate is the combination of recent values f(z) with the smallest residual."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.solvers import per_lane


class Memory(NamedTuple):
    """Ring buffers of the last evaluations.

    Attributes:
      images: values f(z).
      residuals: the rows of f(z) - z from which the weights are computed.
      gram: inner products of the residuals [size, size, lanes], float32, or float64 for a float64 state.
    """

    images: per_lane.History
    residuals: per_lane.History
    gram: jax.Array


@dataclasses.dataclass(frozen=True)
class Anderson:
    """A `loop.Method`: Anderson mixing with a ridge term (Anderson 1965; Walker & Ni 2011).

    Let F and G be the values and the residuals of the last n = min(evaluations, history) iterates. The weights a
    of a lane minimise |a G|^2 + ridge |a|^2 subject to sum(a) = 1, and the next iterate is a F. Every solve starts
    with an empty history, and one evaluation gives f(z).

    With a stride above 1, G has only every stride-th row of the state (along the first axis after the lanes, which
    is the height of an image), but all rows of arrays that have fewer than two strides of them. The fixed points
    stay the same and the weights nearly so. The inner products, which are most of the cost of mixing, become
    cheaper by the factor `stride` (Lupo Pasini & Laiu 2022, "Anderson acceleration with approximate
    calculations").

    Attributes:
      history: largest number of evaluations that are mixed.
      ridge: added to the diagonal of G G^T.
      stride: step between the rows from which the weights are computed.
    """

    unrolled: ClassVar[int] = 8
    history: int = 6
    ridge: float = 1e-4
    stride: int = 1

    def init(self, z: types.State, budget: int) -> Memory:
        size = min(self.history, budget)
        num_lanes = len(jax.tree.leaves(z)[0])
        gram = jnp.zeros((size, size, num_lanes), per_lane.sum_dtype(z))
        return Memory(per_lane.zeros(size, z), per_lane.zeros(size, self._rows(z)), gram)

    def update(
        self, step: jax.Array, z: types.State, fz: types.State, memory: Memory
    ) -> tuple[types.State, Memory, jax.Array]:
        size, dtype = len(memory.gram), memory.gram.dtype
        if size == 1:
            # A single evaluation has the weight 1.
            return fz, memory, jnp.asarray(False)
        slot = step % size
        residual = jax.tree.map(jnp.subtract, self._rows(fz), self._rows(z))
        images = per_lane.put(memory.images, slot, fz)
        residuals = per_lane.put(memory.residuals, slot, residual)
        row = per_lane.dots(residuals, residual)
        gram = memory.gram.at[slot].set(row).at[:, slot].set(row)

        slots = jnp.arange(size, dtype=step.dtype)
        used = slots <= step
        # An unused slot has a row of the identity and 0 on the right-hand side, so its weight is zero.
        system = gram + (jnp.where(used, self.ridge, 1.0)[None] * jnp.eye(size, dtype=dtype))[..., None]
        direction = _solve_positive(system, used.astype(dtype))
        weights = direction / jnp.sum(direction, 0, keepdims=True)

        # If the system has no solution, the weights select f(z), which needs no second pass over the states.
        usable = jnp.all(jnp.isfinite(weights), 0)
        newest = (slots == slot).astype(dtype)[:, None]
        after = per_lane.combine(jnp.where(usable[None], weights, newest), images)
        return after, Memory(images, residuals, gram), ~usable

    def _rows(self, z: types.State) -> types.State:
        def some(x: jax.Array) -> jax.Array:
            return x[:, :: self.stride] if x.ndim > 1 and x.shape[1] >= 2 * self.stride > 2 else x

        return jax.tree.map(some, z)


def _solve_positive(system: jax.Array, right: jax.Array) -> jax.Array:
    """Solves positive definite systems by Gaussian elimination, unrolled over rows and vectorised over lanes.

    Batched LAPACK calls on systems this small take longer than a cell evaluation. A pivot that rounding made zero
    or negative gives NaN.

    Args:
      system: matrices [size, size, lanes].
      right: right-hand side [size], the same for all lanes.

    Returns:
      Solutions [size, lanes].
    """
    size = len(system)
    rows = [[system[i, j] for j in range(size)] + [jnp.full_like(system[0, 0], right[i])] for i in range(size)]
    for i, pivot_row in enumerate(rows):
        pivot = jnp.where(pivot_row[i] > 0, pivot_row[i], jnp.nan)
        for row in rows[i + 1 :]:
            factor = row[i] / pivot
            for j in range(i + 1, size + 1):
                row[j] -= factor * pivot_row[j]
    solution: list[jax.Array] = []
    for i in reversed(range(size)):
        known = sum(rows[i][j] * x for j, x in enumerate(solution, i + 1))
        solution.insert(0, (rows[i][size] - known) / jnp.where(rows[i][i] > 0, rows[i][i], jnp.nan))
    return jnp.stack(solution)
