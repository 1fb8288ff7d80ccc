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
    monotone F, and computed here from the dense matrix.

    Args:
      size: size of the model.
    """
    shapes = branches.shapes(size)
    num = sum(map(math.prod, shapes))
    bind = functools.partial(monotone.bind, size, _step)

    def resolvent(params: types.Parameters) -> types.Parameters:
        parts = bind(params)
        # Every lane has one entry that is 1.
        basis = _unravelled(jnp.eye(num), shapes)
        zeros = list(map(jnp.zeros_like, basis))
        step = _ravelled(monotone.forward(parts, basis, zeros, size.pooled)).T
        return {"step": parts["step"], "resolvent": jnp.linalg.inv(2 * jnp.eye(num) - step)}

    def cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        size_of_z = jnp.abs(_ravelled(z))
        after = 2 * (size_of_z + params["step"] * _ravelled(u)) @ params["resolvent"].T - size_of_z
        return _unravelled(after, shapes)

    def factor(params: types.Parameters) -> float:
        cayley = 2 * params["resolvent"] - np.eye(num)
        return float(np.linalg.norm(cayley, 2)) * bounds.OUTWARDS + _SLACK

    def rounding(params: types.Parameters) -> tuple[float, float]:
        # A sum of products, and the operations before and after it.
        absolute = float(np.linalg.norm(np.abs(params["resolvent"]), 2)) * bounds.OUTWARDS
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


# By how much the norm of 2 V - I can differ between programs that round F and its inverse differently.
_SLACK = 2.0**-12


def _step(modulus: float, square: jax.Array, skew: jax.Array) -> jax.Array:
    """The best a where I - W is symmetric, and nearly so where it is skew but for m."""
    return 1 / jnp.sqrt(modulus * (modulus + square) + skew**2)


def _ravelled(z: types.State) -> jax.Array:
    """The entries of each lane [lanes, entries]."""
    return jnp.concatenate([x.reshape(len(x), -1) for x in z], 1)


def _unravelled(x: jax.Array, shapes: list[tuple[int, int, int]]) -> tuple[jax.Array, ...]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = jnp.split(x, ends, axis=1)
    return tuple(part.reshape(len(x), *shape) for part, shape in zip(parts, shapes, strict=True))
