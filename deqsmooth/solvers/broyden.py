"""Broyden's good method: quasi-Newton steps with an estimate of the Jacobian that the earlier steps determine."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.solvers import per_lane


class Memory(NamedTuple):
    """The steps s_0, s_1, ... so far, and matrices of their inner products.

    Attributes:
      steps: pytree, each leaf [lanes, budget - 1, ...]; zero for steps that are not taken yet.
      gram: inner products of the steps [lanes, budget - 1, budget - 1].
      inverse: lower triangular matrices L with c = L p, where p are the inner products of the earlier steps with g
        and c are the coefficients of the next step [lanes, budget - 1, budget - 1].
    """

    steps: types.State
    gram: jax.Array
    inverse: jax.Array


@dataclasses.dataclass(frozen=True)
class Broyden:
    """A `loop.Method`: good Broyden on g(z) = f(z) - z (Broyden 1965), full memory, unit steps.

    The estimate of the inverse Jacobian starts at -I, so that one evaluation gives f(z). Each later full step
    s_{i+1} multiplies it from the left by I + s_{i+1} s_i^T / |s_i|^2. The next step needs one pass over the
    earlier steps for inner products and one for their sum (Kelley 1995, "Iterative Methods for Linear and
    Nonlinear Equations", section 7.3):

        c_i = s_i^T (g + sum_{j<i} c_j s_{j+1}) / |s_i|^2,
        s_k = (g + sum_{i<k-1} c_i s_{i+1}) / (1 - c_{k-1}).

    A lane whose step is not finite takes f(z) instead, and its estimate starts again at -I.
    """

    unrolled: ClassVar[int] = 1

    def init(self, z: types.State, budget: int) -> Memory:
        first, size = jax.tree.leaves(z)[0], budget - 1
        steps = jax.tree.map(lambda x: jnp.zeros((len(x), size, *x.shape[1:]), x.dtype), z)
        nothing = jnp.zeros((len(first), size, size), per_lane.sum_dtype(z))
        return Memory(steps, nothing, nothing)

    def update(
        self, step: jax.Array, z: types.State, fz: types.State, memory: Memory
    ) -> tuple[types.State, Memory, jax.Array]:
        steps, gram, inverse = memory
        size = gram.shape[-1]
        if not size:
            return fz, memory, jnp.array(False)
        slots = jnp.arange(size, dtype=step.dtype)[None]
        residual = jax.tree.map(jnp.subtract, fz, z)
        products = _products(steps, residual)
        coefficients = jnp.sum(inverse * products[:, None], -1)
        # Coefficient i is the weight of step i + 1; the last coefficient belongs to the new step.
        weights = jnp.where(slots == 0, 0.0, jnp.roll(coefficients, 1, -1))
        scale = 1 / (1 - jnp.sum(jnp.where(slots == step - 1, coefficients, 0.0), -1))
        proposed = jax.tree.map(
            lambda x, y: (per_lane.align(scale, x) * (x.astype(y.dtype) + y)).astype(x.dtype),
            residual,
            _combine(weights, steps),
        )
        usable = per_lane.is_finite(proposed)
        taken = per_lane.select(usable, proposed, residual)
        after = per_lane.select(usable, jax.tree.map(jnp.add, z, proposed), fz)

        square = per_lane.dot(taken, taken)[:, None]
        row = scale[:, None] * (products + jnp.sum(gram * weights[:, None], -1))
        row = jnp.where(slots == step, square, jnp.where(usable[:, None], row, 0.0))
        inverse = jnp.where(usable[:, None, None], inverse, 0.0)
        following = jnp.where(slots == size - 1, 0.0, jnp.roll(row, -1, -1))
        known = jnp.sum(following[..., None] * inverse, 1)
        known = jnp.where(square > 0, ((slots == step).astype(known.dtype) + known) / square, 0.0)
        updated = Memory(
            jax.tree.map(lambda all, x: all.at[:, step].set(x, mode="drop"), steps, taken),
            gram.at[:, step].set(row, mode="drop").at[:, :, step].set(row, mode="drop"),
            inverse.at[:, step].set(known, mode="drop"),
        )
        return after, updated, ~usable


# Sums over the steps are written as batched matrix-vector products. XLA's CPU backend would fuse any other form
# into all its consumers, compute it once for each, and copy all steps before it writes one.


def _products(steps: types.State, x: types.State) -> jax.Array:
    """Inner products of the steps [lanes, size, ...] with a state, by lane [lanes, size]."""
    products = jax.tree.map(lambda s, x: _einsum("lsd,ld->ls", s, x), steps, x)
    return functools.reduce(jnp.add, jax.tree.leaves(products))


def _combine(weights: jax.Array, steps: types.State) -> types.State:
    """Weighted sum of the steps; the weights are [lanes, size]."""
    return jax.tree.map(lambda s: _einsum("lsd,ls->ld", s, weights).reshape(s[:, 0].shape), steps)


def _einsum(subscripts: str, steps: jax.Array, x: jax.Array) -> jax.Array:
    """Contracts a leaf of the steps, reshaped to [lanes, size, entries], in float32 or a wider type."""
    dtype = per_lane.sum_dtype((steps, x))
    steps = steps.reshape(*steps.shape[:2], -1).astype(dtype)
    x = x.reshape(len(x), -1).astype(dtype)
    return jnp.einsum(subscripts, steps, x, precision=lax.Precision.HIGHEST)
