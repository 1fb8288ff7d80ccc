"""A multiscale DEQ with a subhomogeneous cell (Sittoni & Tudisco 2024): it has exactly one equilibrium.

Takes a size, gives a `types.Model` with a `types.Subhomogeneous`. The weights of the cell are free, but for their
sign.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, branched, branches


def subhomogeneous(size: architecture.SubhomogeneousModel) -> types.Model:
    """Returns the subhomogeneous DEQ of a size.

    The state and the injection are tuples of branches [lanes, height / 2^i, width / 2^i, channels_i]. The cell is
    `f(A relu(z) + relu(u))` with `f(y) = (y + c) / (y + c + 1)`, entry by entry. A is a map of the branches, as in
    `branches.mapped`, without negative weights, and `c = (1 - d)^2 / (4 d)` for the degree d of the size.

    *Lipschitz constant.* Let z be positive. The derivative of log f in log z sums to
    `(A z)_i f'(y_i) / f(y_i) <= y f'(y) / f(y) = y / ((y + c) (y + c + 1))`, which is largest at
    `y = sqrt(c (c + 1))`. There it is `(sqrt(c + 1) - sqrt(c))^2 = d`. So logarithms of images differ by at most d
    times those of states, in the maximum norm.

    Args:
      size: size of the model.
    """
    offset = (1 - size.degree) ** 2 / (4 * size.degree)

    def init(key: types.RandomKey) -> types.Parameters:
        return {"kernels": branches.kernels(key, size)}

    def bind(params: types.Parameters) -> types.Parameters:
        # Rows sum to about 1 at first, whatever the numbers of channels.
        return [
            [jnp.abs(kernel) / np.float32(np.sqrt(kernel[..., 0].size)) for kernel in row]
            for row in params["cell"]["kernels"]
        ]

    def cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        y = branches.mapped(params, tuple(map(jax.nn.relu, z)), tuple(map(jax.nn.relu, u)))
        return tuple((x + offset) / (x + offset + 1) for x in y)

    def rounding(variables: types.Variables) -> float:
        kernels = variables["params"]["cell"]["kernels"]
        num_terms = max(kernel[..., 0].size for row in kernels for kernel in row)
        # Sums without negative terms; f makes relative errors no larger, and adds those of its own.
        return bounds.of_sum(num_terms + len(size.channels) + 8)

    def weights(variables: types.Variables) -> np.ndarray:
        return branches.in_float64(variables["params"]["readout"]["kernel"])

    def readout_rounding(variables: types.Variables) -> tuple[float, float]:
        areas, bias = branches.areas(size), branches.in_float64(variables["params"]["readout"]["bias"])
        unit = bounds.of_sum(len(areas) + int(areas.max()) + 4)
        return unit, unit * float(np.abs(bias).max())

    model = branched.model(size, branched.Family(init, bind, cell))
    return model._replace(
        contraction=types.Subhomogeneous(
            degree=lambda variables: size.degree,
            rounding=rounding,
            features=lambda z: branches.features(z, size.pooled),
            weights=weights,
            readout_rounding=readout_rounding,
            float64=True,
        )
    )
