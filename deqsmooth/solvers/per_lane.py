"""The algebra of states: every function treats each lane of a pytree as one vector of its own.

Sums are at least float32 whatever the dtype of the state.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from deqsmooth import types


def widen(x: jax.Array) -> jax.Array:
    """The array in float32, or in its own dtype if that is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def dot(a: types.State, b: types.State) -> types.PerLane:
    """Inner product of each lane of two states [lanes]."""

    def leaf(x, y):
        return jnp.sum(widen(x) * widen(y), tuple(range(1, x.ndim)))

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(leaf, a, b)))


def norm(a: types.State) -> types.PerLane:
    """Euclidean norm of each lane [lanes]."""
    return jnp.sqrt(dot(a, a))


def relative_residual(z: types.State, fz: types.State) -> types.PerLane:
    """|f(z) - z| / (|f(z)| + 1e-8) by lane [lanes]."""
    return norm(jax.tree.map(jnp.subtract, fz, z)) / (norm(fz) + 1e-8)


def is_finite(a: types.State) -> jax.Array:
    """Whether a lane and its norm are finite [lanes], bool.

    One sum: XLA folds it at once where the state is a constant, as in the first step of an unrolled solve.
    """
    return jnp.isfinite(dot(a, a))


def align(per_lane: jax.Array, leaf: jax.Array) -> jax.Array:
    """Appends axes to [lanes] so that it broadcasts against a leaf [lanes, ...]."""
    return per_lane.reshape(per_lane.shape + (1,) * (leaf.ndim - 1))


def select(condition: jax.Array, a: types.State, b: types.State) -> types.State:
    """Lanes of `a` where the condition [lanes] holds, of `b` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(align(condition, x), x, y), a, b)


def zeros(size: int, like: types.State) -> Any:
    """History of `size` zero states: each leaf [size, lanes, ...]."""
    return jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like)


def put(history: Any, slot: jax.Array, z: types.State) -> Any:
    """History with a state written to a slot."""
    return jax.tree.map(lambda h, x: h.at[slot].set(x), history, z)


def dots(history: Any, z: types.State) -> jax.Array:
    """Inner product of every state of a history with a state, by lane [size, lanes]."""
    return jax.vmap(dot, in_axes=(0, None))(history, z)


def combine(weights: jax.Array, history: Any) -> types.State:
    """Sum of the states of a history, weighted by lane; weights are [size, lanes].

    Written as a sum of terms: XLA's CPU backend fuses these, but not a reduction over the first axis.
    """

    def leaf(h):
        terms = (align(w, x) * widen(x) for w, x in zip(weights, h, strict=True))
        return sum(terms, jnp.zeros(h.shape[1:], weights.dtype)).astype(h.dtype)

    return jax.tree.map(leaf, history)
