"""Estimates of a cell's Jacobian: takes a cell and a state, gives Frobenius norms and spectral radii by lane."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.solvers import gradients, per_lane


def penalty(
    cell: gradients.Cell,
    params: types.Parameters,
    z: types.State,
    u: types.Injection,
    keys: types.Keys,
    num_vectors: int = 2,
) -> types.PerLane:
    """Hutchinson's estimate of |J|_F^2 / dim(z) by lane [lanes] (Bai et al. 2021, equation 4).

    Args:
      cell: the cell; J is its derivative with respect to z.
      params: parameters of the cell. The estimate is differentiable in them, in z and in u.
      z: state at which J is evaluated.
      u: injection.
      keys: one key a lane, for its Gaussian vectors.
      num_vectors: number of vectors that are averaged over.
    """
    size = sum(x[0].size for x in jax.tree.leaves(z))
    _, pull_back = jax.vjp(lambda z: cell(params, z, u), z)

    def estimate(index: int) -> types.PerLane:
        v = _gaussian(jax.vmap(jax.random.fold_in, (0, None))(keys, index), z)
        (row,) = pull_back(v)
        return per_lane.dot(row, row) / size

    return functools.reduce(jnp.add, [estimate(index) for index in range(num_vectors)]) / num_vectors


def spectral_radius(
    cell: gradients.Cell,
    params: types.Parameters,
    z: types.State,
    u: types.Injection,
    keys: types.Keys,
    num_steps: int = 40,
) -> types.PerLane:
    """Estimate of the largest |eigenvalue| of the cell's Jacobian by lane [lanes].

    Power iteration on J^T. The result is the geometric mean of the growth of the norm over the second half of the
    steps, which also converges if the leading eigenvalues are a complex pair. It is an estimate and not a bound.

    Args:
      cell: the cell.
      params: parameters of the cell.
      z: state at which J is evaluated.
      u: injection.
      keys: one key a lane, for the first vector.
      num_steps: number of products with J^T.
    """
    _, pull_back = jax.vjp(lambda z: cell(params, z, u), z)

    def step(v: types.State, _: None) -> tuple[types.State, types.PerLane]:
        length = per_lane.norm(v)
        unit = jax.tree.map(lambda x: x / jnp.maximum(per_lane.align(length, x), 1e-30), v)
        (v,) = pull_back(unit)
        return v, per_lane.norm(v)

    _, growth = lax.scan(step, _gaussian(keys, z), length=num_steps)
    return jnp.exp(jnp.mean(jnp.log(growth[num_steps // 2 :]), 0))


def _gaussian(keys: types.Keys, like: types.State) -> types.State:
    """Returns a standard normal state; every lane and leaf has its own key."""
    leaves, structure = jax.tree.flatten(like)

    def leaf(index: int, x: jax.Array) -> jax.Array:
        lane_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
        return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(lane_keys)

    return jax.tree.unflatten(structure, [leaf(index, x) for index, x in enumerate(leaves)])
