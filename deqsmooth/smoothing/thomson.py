"""The proof of a vote in Thomson's metric, for cells of positive states whose contraction does not show in L2.

The distance of two positive states is the largest difference of the logarithms of their entries. Let the cell T
have the Lipschitz constant d < 1 in it. As in `proof`, the equilibrium lies within r = (d s + e) / (1 - d) of the
computed value y of T(z), where s is the distance of z and y, and e bounds that of y and the exact value. So every
entry of the equilibrium lies between exp(-r) and exp(r) times that of y. A feature without negative coefficients
changes by at most exp(r) - 1 times itself. The logit of a class exceeds another one at the equilibrium if at y it
does so by more than the sum of these changes, times the absolute differences of their weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import arithmetic, types
from deqsmooth.config import checks
from deqsmooth.solvers import settled

# More than logarithms, exponentials and the few operations around them are rounded, relative to their values.
_OUTWARDS = 1 + 2.0**-16


class Proof(NamedTuple):
    """Constants of a model with its variables; see `types.Subhomogeneous`.

    Attributes:
      factor: Lipschitz constant of the cell in Thomson's metric.
      rounding: of an evaluation of the cell.
      weights: of the readout [features, classes].
      readout_rounding: of a logit.
      features: state -> features [lanes, features].
    """

    factor: float
    rounding: float
    weights: np.ndarray
    readout_rounding: tuple[float, float]
    features: Callable[[types.State], jax.Array]

    def in_float64(self) -> Proof:
        """These constants for float64, where a bound on rounding is at most 2^-29 times that for float32."""
        relative, constant = (x * arithmetic.FROM_FLOAT32 for x in self.readout_rounding)
        rounding = self.rounding * arithmetic.FROM_FLOAT32
        return self._replace(rounding=rounding, readout_rounding=(relative, constant))

    def distance(self, z: types.State, fz: types.State) -> types.PerLane:
        """Upper bound on the distance in Thomson's metric from f(z) to the equilibrium [lanes].

        It is infinite where an entry of z or f(z) is not positive.
        """
        return self._distance(_between(z, fz))

    def _distance(self, step: types.PerLane) -> types.PerLane:
        return _OUTWARDS * (self.factor * step + self.rounding) / (1 - self.factor)

    def verdict(
        self, z: types.State, fz: types.State, u: types.Injection, logits: types.Logits
    ) -> settled.Verdict:
        """Whether the largest logit of f(z) is the largest of the equilibrium, and whether that can be proved.

        Args:
          z: a state.
          fz: the cell at z.
          u: injection of the cell, which the bound does not need.
          logits: the readout at f(z).
        """
        vote, margin, is_other = settled.margins(logits)
        features, step = self.features(fz), _between(z, fz)
        weights = jnp.asarray(self.weights, logits.dtype)
        differences = jnp.abs(weights.T[:, :, None] - weights)
        change = jnp.expm1(self._distance(step))[:, None] * jnp.einsum("lf,lfi->li", features, differences[vote])
        relative, constant = self.readout_rounding
        # Of two logits, each computed once here and once more where the vote is read.
        rounding = 4 * (relative * jnp.max(features @ jnp.abs(weights), -1) + constant)
        # The sums of the change are rounded as those of a logit are.
        exceeds = margin > _OUTWARDS * (1 + 2 * relative) * (change + rounding[:, None])
        is_settled = jnp.all(jnp.where(is_other, exceeds, True), -1)
        return settled.Verdict(is_settled, self.factor * step <= settled.HOPELESS * self.rounding)


def constants(contraction: types.Subhomogeneous, variables: types.Variables, num_classes: int) -> Proof:
    """Returns the constants of a model with its variables.

    Raises:
      ValueError: a constant that the model states cannot be one.
    """
    found = Proof(
        contraction.degree(variables),
        contraction.rounding(variables),
        contraction.weights(variables),
        contraction.readout_rounding(variables),
        contraction.features,
    )
    for name, value in (
        ("degree", found.factor),
        ("rounding", found.rounding),
        ("readout_rounding", float(np.min(found.readout_rounding))),
    ):
        checks.holds(0 <= value < math.inf, f"{name} of the contraction", value, "finite and at least 0")
    shape = np.shape(found.weights)
    rule = f"(features, {num_classes}), one number for each feature and class"
    checks.holds(len(shape) == 2 and shape[1] == num_classes, "shape of weights of the contraction", shape, rule)
    return found


def _between(z: types.State, fz: types.State) -> types.PerLane:
    """Thomson's distance of two states [lanes], infinite where an entry is not positive."""

    def of_leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        least = jnp.minimum(x, y)
        ratio = jnp.where(least > 0, jnp.abs(x - y) / jnp.where(least > 0, least, 1), jnp.inf)
        return jnp.max(ratio.reshape(len(x), -1), -1)

    leaves = jax.tree.leaves(jax.tree.map(of_leaf, z, fz))
    return jnp.log1p(functools.reduce(jnp.maximum, leaves))
