"""Broyden's good method: a quasi-Newton step whose estimate of the Jacobian follows from the steps alone."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.solvers import per_lane


class Memory(NamedTuple):
    """The steps s_0, s_1, ... so far, and what is known of their inner products.

    Attributes:
      steps: each leaf [lanes, budget - 1, ...]; zero where not yet taken.
      gram: inner products of the steps [lanes, budget - 1, budget - 1].
      inverse: lower triangular; makes the coefficients of a step from the inner products of the earlier steps with
        the residual [lanes, budget - 1, budget - 1].
    """

    steps: Any
    gram: jax.Array
    inverse: jax.Array


@dataclasses.dataclass(frozen=True)
class Broyden:
    """A `loop.Method`: good Broyden on g(z) = f(z) - z (Broyden 1965), full memory, unit steps.

    The inverse Jacobian starts at -I, so that one evaluation gives f(z). After full steps it is a product of
    factors I + s_{i+1} s_i^T / |s_i|^2, and the next step takes one pass over the earlier ones for inner products
    and one for their sum (Kelley 1995, "Iterative Methods for Linear and Nonlinear Equations", section 7.3):

        c_i = s_i^T (g + sum_{j<i} c_j s_{j+1}) / |s_i|^2,
        s_k = (g + sum_{i<k-1} c_i s_{i+1}) / (1 - c_{k-1}).

    A lane whose step is not finite takes f(z) instead and begins its estimate anew.
    """

    unrolled: ClassVar[int] = 1

    def init(self, z: types.State, budget: int) -> Memory:
        first, size = jax.tree.leaves(z)[0], budget - 1
        steps = jax.tree.map(lambda x: jnp.zeros((len(x), size, *x.shape[1:]), x.dtype), z)
        nothing = jnp.zeros((len(first), size, size), per_lane.widen(first).dtype)
        return Memory(steps, nothing, nothing)

    def update(
        self, step: jax.Array, z: types.State, fz: types.State, memory: Memory
    ) -> tuple[types.State, Memory, jax.Array]:
        steps, gram, inverse = memory
        size = gram.shape[-1]
        if not size:
            return fz, memory, jnp.bool_(False)
        slots = jnp.arange(size)
        residual = jax.tree.map(jnp.subtract, fz, z)
        products = _products(steps, residual)
        coefficients = jnp.sum(inverse * products[:, None], -1)
        # Coefficient i belongs to step i + 1; the last one to the step that is looked for.
        weights = jnp.where(slots == 0, 0.0, jnp.roll(coefficients, 1, -1))
        scale = 1 / (1 - jnp.sum(jnp.where(slots == step - 1, coefficients, 0.0), -1))
        proposed = jax.tree.map(
            lambda x, y: (per_lane.align(scale, x) * (x + y)).astype(x.dtype), residual, _combine(weights, steps)
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
        known = jnp.where(square > 0, ((slots == step) + known) / square, 0.0)
        renewed = Memory(
            jax.tree.map(lambda all, x: all.at[:, step].set(x, mode="drop"), steps, taken),
            gram.at[:, step].set(row, mode="drop").at[:, :, step].set(row, mode="drop"),
            inverse.at[:, step].set(known, mode="drop"),
        )
        return after, renewed, ~usable


# Batches of matrices times vectors: any other sum over the steps XLA's CPU backend fuses into all that reads it,
# makes again for each, and copies the steps before one is written.


def _products(steps, x):
    """Inner products of the steps [lanes, size, ...] with a state, by lane [lanes, size]."""
    return sum(jax.tree.leaves(jax.tree.map(lambda s, x: _einsum("lsd,ld->ls", s, x), steps, x)))


def _combine(weights, steps):
    """Sum of the steps, weighted by lane; weights are [lanes, size]."""
    return jax.tree.map(lambda s: _einsum("lsd,ls->ld", s, weights).reshape(s[:, 0].shape), steps)


def _einsum(subscripts, steps, x):
    """Of a leaf of the steps as [lanes, size, entries], in float32 at least."""
    steps = steps.reshape(*steps.shape[:2], -1)
    dtype = jnp.promote_types(steps.dtype, jnp.float32)
    x = x.reshape(len(x), -1)
    return jnp.einsum(subscripts, steps, x, precision=lax.Precision.HIGHEST, preferred_element_type=dtype)
