"""A monotone operator DEQ on several resolutions (Winston & Kolter 2020): it has exactly one equilibrium.

Takes a size, gives a `types.Model` with a `types.Contraction`. The equilibrium is that of `z = relu(W z + u)` with
`W = (1 - m) I - A^T A + N`, where N = B - B^T is skew. Then `I - W` is m-strongly monotone, whatever A and B are.
The cell is the forward-backward step `T(z) = relu(z - a ((I - W) z - u))`, which has the same equilibrium and is a
contraction. A Peaceman-Rachford step would need the inverse of `I + a (I - W)`, which is no convolution with zero
padding. LBEN (Revay et al. 2021) prescribes the Lipschitz constant of the logits by its weights. `lipschitz` does
so by strong monotonicity, which gives the norms of injection and readout over m.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, branches


def monotone(size: architecture.MonotoneModel) -> types.Model:
    """Returns the monotone operator DEQ of a size.

    The state and the injection are tuples of branches [lanes, height / 2^i, width / 2^i, channels_i], and A and N
    are maps between them as in `branches.mapped`. Their parts are kernels of norm at most 1 times weights.

    *Lipschitz constant.* With P = A^T A of norm at most p and N of norm at most n, T is relu after
    `M z + a u`, where `M = (1 - a m) I - a P + a N = ((1 - a m - a p / 2) I + a N) - a (P - p / 2 I)`. The first
    bracket is normal and has the norm `hypot(1 - a m - a p / 2, a n)` at most, and `P - p / 2 I` that of p / 2. So

        L = a p / 2 + hypot(1 - a (m + p / 2), a n).

    In the plane, P of rank one and N = n J with a rotation J by a right angle reach it, so that m, p and n allow
    no smaller constant. With n = 0 and a <= 2 / (2 m + p) it is 1 - a m. L is least, and below 1, at the a of
    `_step`: with c = m + p / 2 and r = hypot(c, n) it is sin(arcsin(p / (2 r)) + arcsin(n / r)). Strong
    monotonicity and the Lipschitz constant of `I - W` alone would give sqrt(1 - (m / (m + p + n))^2).

    *Distance.* Let z' = T(z). Since relu is the projection to z >= 0, `(M z + a u - z') / a` lies in the normal
    cone at z'. Adding `(I - W) z' - u` gives `M (z - z') / a`, an element at z' of the monotone operator whose
    zero is z*. By strong monotonicity `|z' - z*| <= |M (z - z')| / (a m) <= L / (a m) |z - z'|`. This is never
    worse than Banach's L / (1 - L), since L >= 1 - a m, and better if n > 0. So `types.Contraction.modulus` is a
    m.

    Args:
      size: size of the model.
    """
    num = len(size.channels)

    def init(key: types.RandomKey) -> types.Parameters:
        symmetric_key, skew_key = jax.random.split(key)
        weights = (jnp.eye(num) + 0.5) / (1 + num / 2)
        return {
            "kernels": branches.kernels(symmetric_key, size),
            "weights": weights,
            # The other parts follow from these.
            "skew_kernels": [row[: i + 1] for i, row in enumerate(branches.kernels(skew_key, size))],
            "skew_weights": weights / 2,
        }

    def bind(params: types.Parameters) -> types.Parameters:
        weights, skew_weights = jnp.abs(params["weights"]), jnp.abs(params["skew_weights"])
        skew_weights = (skew_weights + skew_weights.T) / 2
        step = _step(size.modulus, bounds.of_weights(weights) ** 2, bounds.of_weights(skew_weights))
        return {
            "step": step,
            "keep": 1 - step * size.modulus,
            "root": bounds.weighed(params["kernels"], jnp.sqrt(step) * weights),
            "skew": _skew(params["skew_kernels"], step * skew_weights),
        }

    def cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        return tuple(map(jax.nn.relu, _before_relu(params, z, u)))

    def cell_on_boxes(params: types.Parameters, z: types.Box, u: types.Box) -> types.Box:
        centre = _before_relu(params, z.centre, u.centre)
        root, skew = branches.absolute(params["root"]), branches.absolute(params["skew"])
        kept = tuple(
            jnp.abs(params["keep"]) * x + params["step"] * y for x, y in zip(z.radius, u.radius, strict=True)
        )
        kept = branches.mapped(skew, z.radius, kept)
        radius = branches.mapped(branches.transposed(root), branches.mapped(root, z.radius), kept)
        return branches.rectified(centre, radius)

    def factor(params: types.Parameters) -> float:
        square = (bounds.norm(params["root"]) * bounds.OUTWARDS) ** 2
        skew = bounds.norm(params["skew"]) * bounds.OUTWARDS
        return _lipschitz(float(params["keep"]), square, skew) + _slack(params)

    def modulus(params: types.Parameters) -> float:
        return float(1 - params["keep"] - _slack(params))

    def rounding(params: types.Parameters) -> tuple[float, float]:
        root, back, skew = params["root"], branches.transposed(params["root"]), params["skew"]
        # A z is a sum of `num` parts. T(z) is a sum of `num` parts of A^T, as many of N, and two products.
        last = 2 * num + 2
        largest, inner = bounds.norm(root), bounds.rounding(root, num)
        # The rounding of A z passes through A^T; A^T rounds what it is given.
        at_state = largest * inner + bounds.rounding(back, last) * (largest + inner)
        at_state += bounds.rounding(skew, last) + bounds.of_sum(last) * abs(params["keep"])
        return float(at_state) * bounds.OUTWARDS**2, bounds.of_sum(last) * float(params["step"]) * bounds.OUTWARDS

    def sensitivity(params: types.Parameters) -> float:
        # 1 / m, for the m that the rounded numbers have.
        return float(params["step"]) / modulus(params)

    return branches.model(size, init, bind, cell, cell_on_boxes, factor, rounding, modulus, sensitivity)


def _before_relu(params: types.Parameters, z: types.State, u: types.Injection) -> tuple[jax.Array, ...]:
    """The forward step `z - a ((I - W) z - u)`."""
    kept = tuple(params["keep"] * x + params["step"] * y for x, y in zip(z, u, strict=True))
    kept = branches.mapped(params["skew"], z, kept)
    back = branches.mapped(branches.transposed(params["root"]), branches.mapped(params["root"], z))
    return tuple(x - y for x, y in zip(kept, back, strict=True))


def _step(modulus: float, square: jax.Array, skew: jax.Array) -> jax.Array:
    """The a with the least Lipschitz constant, from m and the bounds p and n."""
    centre, half = modulus + square / 2, square / 2
    # r^2 - p^2 / 4, without cancellation.
    rest = modulus * (modulus + square) + skew**2
    return (centre - half * skew / jnp.sqrt(rest)) / (centre**2 + skew**2)


def _skew(kernels: bounds.Kernels, weights: jax.Array) -> bounds.Kernels:
    """A map that is the negative of its adjoint, whose parts have norms of at most the weights [to, from].

    The kernels are those within a branch and from finer to coarser ones; those back are their negative adjoints.
    Negation and transposition are exact in floating point, so that the map is skew without rounding.
    """
    lower = bounds.weighed([row[:-1] for row in kernels], weights)
    found = []
    for i, row in enumerate(kernels):
        within = weights[i, i] * bounds.normalised(row[i] - branches.adjoint(row[i]))
        back = [-branches.adjoint(after[i]) for after in lower[i + 1 :]]
        found.append([*lower[i], within, *back])
    return found


def _lipschitz(keep: float, square: float, skew: float) -> float:
    """Largest norm of `keep I - P + N`, for all P of 0 <= P <= square and skew N of at most the norm skew."""
    return square / 2 + math.hypot(keep - square / 2, skew)


def _slack(params: types.Parameters) -> float:
    """By how much M can differ between two programs, besides the norms of its maps.

    The first term is the difference of the step in `keep = 1 - a m`. The second is the rounding of M, whose parts
    have norms of at most 1, 2 and 1/2 at the best step: a program may round a kernel and its adjoint differently.
    """
    return float((bounds.OUTWARDS - 1) * (1 - params["keep"]) + 2.0**-20)
