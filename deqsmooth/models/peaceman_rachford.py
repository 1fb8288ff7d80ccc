"""A monotone operator DEQ whose cell is a Peaceman-Rachford step (Winston & Kolter 2020).

Takes a size, gives a `types.Model` with a `types.Contraction`. The operator and its parameters are those of
`monotone`, and so is the equilibrium. The step is a better contraction, and inverts a dense matrix.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, branched, branches, monotone


def peaceman_rachford(size: architecture.MonotoneModel) -> types.Model:
    """Returns the monotone operator DEQ of a size, whose cell is a Peaceman-Rachford step.

    With F = I - W and the resolvent `V = (I + a F)^-1` the cell is `T(w) = 2 V (|w| + a u) - |w|`. The state w has
    the shapes of the branches, and the equilibrium is z = relu(w). For let w = T(w). Then z = (w + |w|) / 2 is
    `V (|w| + a u)`, so that `z + a F z = |w| + a u`. With |w| = 2 z - w this is `w = z - a (F z - u)`, and relu of
    both sides says that the forward-backward step maps z to itself.

    Since `|w|` increases no distance, the norm of `2 V - I` is a Lipschitz constant of T. It is below 1 for every
    strongly monotone F, and computed here from the dense matrix.

    Args:
      size: size of the model.
    """
    shapes = branches.shapes(size)
    num = sum(map(math.prod, shapes))
    bind = functools.partial(monotone.bind, size, _step)

    def resolvent(params: types.Parameters) -> types.Parameters:
        parts = bind(params)
        # Every lane has one entry that is 1.
        identity = jnp.eye(num, dtype=parts["step"].dtype)
        basis = _unravelled(identity, shapes)
        step = _ravelled(monotone.forward(parts, basis, list(map(jnp.zeros_like, basis)), size.pooled)).T
        matrix = 2 * identity - step
        # A step of Newton's method makes the inverse more exact, and has its derivative.
        inverse = lax.stop_gradient(_inverse(matrix))
        return {"step": parts["step"], "resolvent": 2 * inverse - inverse @ matrix @ inverse}

    def cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        magnitudes = jnp.abs(_ravelled(z))
        after = 2 * (magnitudes + params["step"] * _ravelled(u)) @ params["resolvent"].T - magnitudes
        return _unravelled(after, shapes)

    def factor(params: types.Parameters) -> float:
        matrix = params["resolvent"]
        largest = _singular_values(2 * matrix - np.eye(num))[-1]
        # Programs round `I + a F` differently, by at most this part of its norm, and the norm of its inverse is at
        # most 1.
        change = (bounds.OUTWARDS - 1) / _singular_values(matrix)[0]
        return float(largest * bounds.OUTWARDS + 2 * change)

    def rounding(params: types.Parameters) -> tuple[float, float]:
        # A sum of products, and the operations before and after it.
        absolute = bounds.of_matrix(np.abs(params["resolvent"])) * bounds.OUTWARDS
        unit = bounds.of_sum(num + 4)
        return unit * (2 * absolute + 1), unit * 2 * absolute * float(params["step"])

    return branched.model(
        size,
        branched.Family(
            init=functools.partial(monotone.init, size),
            bind=resolvent,
            cell=cell,
            factor=factor,
            rounding=rounding,
            output=lambda z: tuple(map(jax.nn.relu, z)),
        ),
    )


_LEAF = 32


def _inverse(matrix: jax.Array) -> jax.Array:
    """The inverse of a matrix whose symmetric part is positive definite, by blocks and without pivots.

    Every block that is inverted has a positive definite symmetric part, too. Unlike that of LAPACK the result does
    not depend on a number of threads.
    """
    num = len(matrix)
    if num <= _LEAF:
        return _eliminated(matrix)
    half = num // 2
    (a, b), (c, d) = ((rows[:, :half], rows[:, half:]) for rows in (matrix[:half], matrix[half:]))
    first = _inverse(a)
    below, right = c @ first, first @ b
    second = _inverse(d - c @ right)
    corner = right @ second
    return jnp.block([[first + corner @ below, -corner], [-second @ below, second]])


def _eliminated(matrix: jax.Array) -> jax.Array:
    """The inverse of a small matrix by Gauss-Jordan elimination."""

    def eliminate(i: jax.Array, both: jax.Array) -> jax.Array:
        row = both[i] / both[i, i]
        return (both - both[:, i, None] * row).at[i].set(row)

    num = len(matrix)
    both = jnp.concatenate([matrix, jnp.eye(num, dtype=matrix.dtype)], 1)
    return lax.fori_loop(0, num, eliminate, both)[:, num:]


def _singular_values(matrix: np.ndarray) -> np.ndarray:
    """The singular values of a matrix in rising order, but for the rounding of float64."""
    return np.sqrt(np.maximum(np.linalg.eigvalsh(matrix.T @ matrix), np.finfo(float).tiny))


def _step(modulus: float, square: jax.Array, skew: jax.Array) -> jax.Array:
    """The best a where I - W is symmetric, and nearly the best where its symmetric part is m I."""
    return 1 / jnp.sqrt(modulus * (modulus + square) + skew**2)


def _ravelled(z: types.State) -> jax.Array:
    """The entries of each lane [lanes, entries]."""
    return jnp.concatenate([x.reshape(len(x), -1) for x in z], 1)


def _unravelled(x: jax.Array, shapes: list[tuple[int, int, int]]) -> tuple[jax.Array, ...]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = jnp.split(x, ends, axis=1)
    return tuple(part.reshape(len(x), *shape) for part, shape in zip(parts, shapes, strict=True))
