"""A multiscale DEQ whose cell is a contraction by construction: it has exactly one equilibrium.

Takes a size, gives a `types.Model` with a `types.Contraction`. The cell is `z -> relu(A z + u)`. The norm of the
linear map A, which also joins branches of several resolutions, is bounded by a constant of the size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, branched, branches


def contraction(size: architecture.ContractionModel) -> types.Model:
    """Returns the contraction of a size.

    The state and the injection are tuples of branches [lanes, height / 2^i, width / 2^i, channels_i], and A is a
    map between them as in `branches.mapped`. `bind` rescales every kernel by the rule of almost orthogonal layers
    (Prach & Lampert 2022), after which its norm is at most 1. It weighs the parts so that the norm of A is at most
    `size.factor`.

    Args:
      size: size of the model.
    """
    num = len(size.channels)

    def init(key: types.RandomKey) -> types.Parameters:
        return {"kernels": branches.kernels(key, size), "weights": jnp.eye(num) + 0.5}

    def bind(params: types.Parameters) -> types.Parameters:
        own = params["cell"]
        weights = jnp.abs(own["weights"])
        return bounds.weighed(own["kernels"], size.factor * weights / bounds.of_weights(weights))

    def cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        return tuple(map(jax.nn.relu, branches.mapped(params, z, u)))

    def cell_on_boxes(params: types.Parameters, z: types.Box, u: types.Box) -> types.Box:
        centre = branches.mapped(params, z.centre, u.centre)
        return branches.rectified(centre, branches.mapped(branches.absolute(params), z.radius, u.radius))

    def factor(params: types.Parameters) -> float:
        return bounds.norm(params) * bounds.OUTWARDS

    def rounding(params: types.Parameters) -> tuple[float, float]:
        # The parts are finished sums; the injection and then the parts are added up.
        return bounds.rounding(params, num) * bounds.OUTWARDS, bounds.of_sum(num)

    # A difference of two equilibria is at most that of their injections over 1 - factor.
    slope = None if size.lipschitz is None else size.lipschitz * (1 - size.factor)
    family = branched.Family(init, bind, cell, factor, rounding, cell_on_boxes=cell_on_boxes, slope=slope)
    return branched.model(size, family)
