"""Vector algebra on states: takes pytrees of states, and treats each lane as one vector.

Sums are accumulated in float32 or a wider type, whatever the dtype of the state.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from deqsmooth import types

History = Any
"""Pytree of several states; every leaf is [size, lanes, ...]."""


def widen(x: jax.Array) -> jax.Array:
    """Casts an array to float32, or leaves its dtype if that is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def dot(a: types.State, b: types.State) -> types.PerLane:
    """Inner products of two states by lane [lanes]."""

    def leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(widen(x) * widen(y), tuple(range(1, x.ndim)))

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(leaf, a, b)))


def norm(a: types.State) -> types.PerLane:
    """Euclidean norms of a state by lane [lanes]."""
    return jnp.sqrt(dot(a, a))


def relative_residual(z: types.State, fz: types.State) -> types.PerLane:
    """Relative residual |f(z) - z| / (|f(z)| + 1e-8) by lane [lanes]."""
    return norm(jax.tree.map(jnp.subtract, fz, z)) / (norm(fz) + 1e-8)


def is_finite(a: types.State) -> jax.Array:
    """Whether each lane and its norm are finite [lanes], bool.

    A single sum: XLA folds it quickly if the state is a constant, as in the first step of an unrolled solve.
    """
    return jnp.isfinite(dot(a, a))


def align(per_lane: jax.Array, leaf: jax.Array) -> jax.Array:
    """Appends axes to an array [lanes] so that it broadcasts with a leaf [lanes, ...]."""
    return per_lane.reshape(per_lane.shape + (1,) * (leaf.ndim - 1))


def select(condition: jax.Array, a: types.State, b: types.State) -> types.State:
    """Takes the lanes of `a` where the condition [lanes] is true, and those of `b` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(align(condition, x), x, y), a, b)


def zeros(size: int, like: types.State) -> History:
    """Returns a history of `size` zero states."""
    return jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like)


def put(history: History, slot: jax.Array, z: types.State) -> History:
    """Writes a state to a slot of a history."""
    return jax.tree.map(lambda h, x: h.at[slot].set(x), history, z)


def dots(history: History, z: types.State) -> jax.Array:
    """Inner products of every state of a history with a state, by lane [size, lanes]."""
    return jax.vmap(dot, in_axes=(0, None))(history, z)


def combine(weights: jax.Array, history: History) -> types.State:
    """Weighted sum of the states of a history; the weights are [size, lanes].

    The sum is written term by term: XLA's CPU backend fuses the terms, but not a reduction over the first axis.
    """

    def leaf(h: jax.Array) -> jax.Array:
        terms = (align(w, x) * widen(x) for w, x in zip(weights, h, strict=True))
        return sum(terms, jnp.zeros(h.shape[1:], weights.dtype)).astype(h.dtype)

    return jax.tree.map(leaf, history)
