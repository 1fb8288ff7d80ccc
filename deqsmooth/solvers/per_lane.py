"""Vector algebra on states: takes pytrees of states, and treats each lane as one vector.

Sums are accumulated in float32, or in float64 if a leaf of the state is float64.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import checks

History = Any
"""Pytree of several states; every leaf is [size, lanes, ...]."""


SMALLEST = 1e-8
"""Added to the denominator of relative residuals."""


def num_lanes(z: types.State) -> int:
    """Returns the number of lanes of a state.

    Raises:
      ValueError: the state has no leaves, a leaf is not floating point, or the leaves differ in their lanes.
    """
    leaves = jax.tree_util.tree_leaves_with_path(z)
    if not leaves:
        raise ValueError("the state has no arrays; it must have at least one")
    for path, leaf in leaves:
        checks.holds(
            jnp.issubdtype(jnp.result_type(leaf), jnp.floating),
            f"dtype of the state{_name(path)}",
            jnp.result_type(leaf),
            "floating point",
        )
    sizes = {_name(path): jnp.shape(leaf)[:1] for path, leaf in leaves}
    if () in sizes.values() or len(set(sizes.values())) > 1:
        shapes = ", ".join(str(jnp.shape(leaf)) for _, leaf in leaves)
        raise ValueError(f"leaves of the state have shapes {shapes}; all must have the same leading axis of lanes")
    return jnp.shape(leaves[0][1])[0]


def image(z: types.State, fz: types.State) -> types.State:
    """Returns f(z), after a check that it is a state like z.

    Raises:
      ValueError: f(z) has another structure than z, or a leaf of another shape or dtype.
    """
    before, after = (str(jax.tree.structure(one)) for one in (z, fz))
    if before != after:
        raise ValueError(f"f(z) has structure {after} and z has {before}; they must be equal")
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(z), jax.tree.leaves(fz), strict=True):
        of_z, of_fz = (f"{jnp.result_type(one)}{list(jnp.shape(one))}" for one in (x, y))
        if of_z != of_fz:
            raise ValueError(f"f(z){_name(path)} is {of_fz} and z{_name(path)} is {of_z}; they must be equal")
    return fz


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path)


def sum_dtype(z: types.State) -> jnp.dtype:
    """Returns the dtype of sums over a state: float32, or float64 if a leaf is float64."""
    return jnp.dtype(jnp.float64 if any(x.dtype == jnp.float64 for x in jax.tree.leaves(z)) else jnp.float32)


def dot(a: types.State, b: types.State) -> types.PerLane:
    """Inner products of two states by lane [lanes], in the dtype that `sum_dtype` returns."""
    wide = sum_dtype(a)

    def leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(x.astype(wide) * y.astype(wide), tuple(range(1, x.ndim)))

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(leaf, a, b)))


def norm(a: types.State) -> types.PerLane:
    """Euclidean norms of a state by lane [lanes]."""
    return jnp.sqrt(dot(a, a))


def relative_residual(z: types.State, fz: types.State) -> types.PerLane:
    """Relative residual |f(z) - z| / (|f(z)| + 1e-8) by lane [lanes], float32."""
    return (norm(jax.tree.map(jnp.subtract, fz, z)) / (norm(fz) + SMALLEST)).astype(jnp.float32)


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
        terms = (align(w, x) * x.astype(weights.dtype) for w, x in zip(weights, h, strict=True))
        return sum(terms, jnp.zeros(h.shape[1:], weights.dtype)).astype(h.dtype)

    return jax.tree.map(leaf, history)
