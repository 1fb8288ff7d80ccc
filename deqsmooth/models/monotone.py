"""A monotone operator DEQ on several resolutions (Winston & Kolter 2020): it has exactly one equilibrium.

Takes a size, gives a `types.Model` with a `types.Contraction`. The equilibrium is that of `z = relu(W z + u)`,
where `I - W = m I + A^T A - N` and N = B - B^T is skew. Then `I - W` is m-strongly monotone, whatever A and B are.
The cell is the forward-backward step `T(z) = relu(z - a ((I - W) z - u))`, which has the same equilibrium and is a
contraction. `peaceman_rachford` is the other splitting.

With a Lipschitz constant c of the logits the model is an LBEN (Revay, Wang & Manchester 2020): U being the linear
injection and V the derivative of the logits in the state, `(U U^T + V^T V) / (2 c)` is added to `I - W`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, branched, branches, injections

Step = Callable[[float, jax.Array, jax.Array], jax.Array]
"""(m, bound on the norm of the symmetric part of I - W - m I, bound on that of N) -> step a."""


def monotone(size: architecture.MonotoneModel) -> types.Model:
    """Returns the monotone operator DEQ of a size, whose cell is a forward-backward step.

    The state and the injection are tuples of branches [lanes, height / 2^i, width / 2^i, channels_i], and A and N
    are maps between them as in `branches.mapped`. Their parts are kernels of norm at most 1 times weights.

    *Lipschitz constant.* Let P be the symmetric part of `I - W - m I`, of norm at most p, and N of norm at most n.
    T is relu after `M z + a u`, where
    `M = (1 - a m) I - a P + a N = ((1 - a m - a p / 2) I + a N) - a (P - p / 2 I)`. The first bracket is normal
    and has the norm `hypot(1 - a m - a p / 2, a n)` at most, and `P - p / 2 I` that of p / 2. So

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
    side, last = size.pooled, _num_additions(size)

    def cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        return tuple(map(jax.nn.relu, forward(params, z, [params["step"] * x for x in u], side)))

    def cell_on_boxes(params: types.Parameters, z: types.Box, u: types.Box) -> types.Box:
        centre = forward(params, z.centre, [params["step"] * x for x in u.centre], side)
        at_state = [jnp.abs(params["keep"]) * x for x in z.radius]
        kept = [x + params["step"] * y for x, y in zip(at_state, u.radius, strict=True)]
        turned = branches.mapped(branches.absolute(params["skew"]), z.radius, kept)
        roots = {name: jax.tree.map(jnp.abs, params[name]) for name in _ROOTS if name in params}
        squared = _squared(roots, z.radius, side)
        return branches.rectified(centre, tuple(x + y for x, y in zip(turned, squared, strict=True)))

    def factor(params: types.Parameters) -> float:
        square = sum((norm * bounds.OUTWARDS) ** 2 for norm, *_ in _norms(size, params))
        skew = bounds.norm(params["skew"]) * bounds.OUTWARDS
        return _lipschitz(float(params["keep"]), square, skew) + _slack(params)

    def rounding(params: types.Parameters) -> tuple[float, float]:
        at_state = bounds.rounding(params["skew"], last) + bounds.of_sum(last) * abs(params["keep"])
        # The rounding of A z passes through A^T; A^T rounds what it is given.
        at_state += sum(norm * inner + back * (norm + inner) for norm, inner, back in _norms(size, params))
        return float(at_state) * bounds.OUTWARDS**2, bounds.of_sum(last) * float(params["step"]) * bounds.OUTWARDS

    def modulus(params: types.Parameters) -> float:
        return float(1 - params["keep"] - _slack(params))

    def sensitivity(params: types.Parameters) -> float:
        # 1 / m, for the m that the rounded numbers have.
        return float(params["step"]) / modulus(params)

    def slopes(params: types.Parameters, derivatives: np.ndarray, norm: float) -> np.ndarray:
        return _slopes(size, params, derivatives, norm, 1 / sensitivity(params))

    return branched.model(
        size,
        branched.Family(
            init=functools.partial(init, size),
            bind=functools.partial(bind, size, _step),
            cell=cell,
            factor=factor,
            rounding=rounding,
            modulus=modulus,
            sensitivity=sensitivity,
            cell_on_boxes=cell_on_boxes,
            slopes=slopes,
        ),
    )


def init(size: architecture.MonotoneModel, key: types.RandomKey) -> types.Parameters:
    """Returns random parameters of the operator."""
    num = len(size.channels)
    symmetric_key, skew_key = jax.random.split(key)
    weights = (jnp.eye(num) + 0.5) / (1 + num / 2)
    return {
        "kernels": branches.kernels(symmetric_key, size),
        "weights": weights,
        # The other parts follow from these.
        "skew_kernels": [row[: i + 1] for i, row in enumerate(branches.kernels(skew_key, size))],
        "skew_weights": weights / 2,
    }


def bind(size: architecture.MonotoneModel, step_of: Step, params: types.Parameters) -> types.Parameters:
    """Returns the step, and the parts of `M = I - a (I - W)` as `forward` uses them."""
    own = params["cell"]
    weights, skew_weights = jnp.abs(own["weights"]), jnp.abs(own["skew_weights"])
    skew_weights = (skew_weights + skew_weights.T) / 2
    square = bounds.of_weights(weights) ** 2
    if size.lipschitz is not None:
        kernel = params["readout"]["kernel"]
        slope = kernel / jnp.sqrt(branches.areas(size)).astype(kernel.dtype)[:, None]
        of_logits = jnp.max(jnp.sum(jnp.abs(slope.T @ slope), 0))
        square += (jnp.sum(params["inject"]["weights"] ** 2) + of_logits) / (2 * size.lipschitz)
    step = step_of(size.modulus, square, bounds.of_weights(skew_weights))
    bound = {
        "step": step,
        "keep": 1 - step * size.modulus,
        "root": bounds.weighed(own["kernels"], jnp.sqrt(step) * weights),
        "skew": _skew(own["skew_kernels"], step * skew_weights),
    }
    if size.lipschitz is not None:
        scale = jnp.sqrt(step / (2 * size.lipschitz))
        injection = injections.kernels(params["inject"], is_normalised=False)
        bound["image"] = branches.transposed([[scale * row[0]] for row in injection])
        bound["logits"] = scale * kernel
    return bound


def forward(params: types.Parameters, z: types.State, offset: list[jax.Array], side: int) -> tuple[jax.Array, ...]:
    """The forward step `z - a (I - W) z`, plus an offset.

    Args:
      params: of `bind`.
      z: a state.
      offset: added to the branches.
      side: of the grid of the readout.
    """
    kept = [params["keep"] * x + y for x, y in zip(z, offset, strict=True)]
    turned = branches.mapped(params["skew"], z, kept)
    return tuple(x - y for x, y in zip(turned, _squared(params, z, side), strict=True))


_ROOTS = ("root", "image", "logits")


def _squared(params: types.Parameters, z: types.State, side: int) -> tuple[jax.Array, ...]:
    """The sum of `R^T R z` over the maps R of parameters."""
    found = branches.mapped(branches.transposed(params["root"]), branches.mapped(params["root"], z))
    if "image" in params:
        found = branches.mapped(branches.transposed(params["image"]), branches.mapped(params["image"], z), found)
        pooled = functools.partial(branches.features, side=side)
        (back,) = jax.linear_transpose(pooled, z)(pooled(z) @ params["logits"] @ params["logits"].T)
        found = tuple(x + y for x, y in zip(found, back, strict=True))
    return found


def _num_additions(size: architecture.MonotoneModel) -> int:
    """Largest number of sums and products that a part of the cell takes part in after it was computed."""
    return 2 * len(size.channels) + (2 if size.lipschitz is None else 4)


def _norms(size: architecture.MonotoneModel, params: types.Parameters) -> list[tuple[float, float, float]]:
    """Bounds on each map R: its norm, the rounding of R z relative to z, and that of R^T y relative to y."""
    last, num = _num_additions(size), len(size.channels)
    found = []
    for name in _ROOTS[:2]:
        if name in params:
            back = bounds.rounding(branches.transposed(params[name]), last)
            found.append((bounds.norm(params[name]), bounds.rounding(params[name], num), back))
    if "logits" in params:
        areas = branches.areas(size)
        slope = params["logits"] / np.sqrt(areas)[:, None]
        norm, absolute = (float(np.linalg.norm(x, 2)) for x in (slope, np.abs(slope)))
        there = bounds.of_sum(len(areas) + int(areas.max()) + 2)
        found.append((norm, there * absolute, bounds.of_sum(slope.shape[1] + last) * absolute))
    return found


def _slopes(
    size: architecture.MonotoneModel,
    params: types.Parameters,
    derivatives: np.ndarray,
    norm: float,
    modulus: float,
) -> np.ndarray:
    """Lipschitz constants of the differences of logits in the image, from the parts U and V of an LBEN.

    Let two images differ by x, their equilibria by d, and let c be the constant of the size. Since relu is
    monotone and increases no distance, `<d, (I - W) d> <= <d, U x>`, so that
    `m |d|^2 + (|U^T d|^2 + |V d|^2) / (2 c) <= <U^T d, x> <= |U^T d|^2 / (2 c) + c / 2 |x|^2`. What is left,
    `<d, Q d> <= c / 2 |x|^2` with `Q = m I + V^T V / (2 c)`, bounds every `<v, d>` by
    `sqrt(c / 2 <v, Q^-1 v>) |x|`. With Q >= V^T V / (2 c) this is at most c times the length of a combination of
    logits. Programs may round U, and the U in W, differently: by e, for which a 1024th of m pays, since
    `e |d| |x| <= s |d|^2 + e^2 / (4 s) |x|^2`.
    """
    assert size.lipschitz is not None
    spare = modulus / 1024
    error = (bounds.OUTWARDS - 1) * norm
    largest = size.lipschitz / 2 + error**2 / (4 * spare)
    slope = params["logits"] / np.sqrt(branches.areas(size))[:, None]
    # V and the V in W differ by their rounding alone.
    rest = modulus - spare - 2.0**-19 * np.linalg.norm(np.abs(slope), 2) ** 2 / params["step"]
    matrix = rest * np.eye(len(slope)) + slope @ slope.T / params["step"]
    change = (derivatives[:, :, None] - derivatives[:, None, :]).reshape(len(slope), -1)
    squares = np.sum(change * np.linalg.solve(matrix, change), 0)
    num = derivatives.shape[1]
    return np.sqrt(largest * squares).reshape(num, num) if rest > 0 else np.full((num, num), np.inf)


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
