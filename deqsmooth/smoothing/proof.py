"""The proof of a vote: from the constants of a contraction to whether the exact equilibrium has the same class.

Let L be the Lipschitz constant of the cell T. For any z, the equilibrium lies within L / m |T(z) - z| of T(z),
with m = 1 - L (Banach), or a larger m that the model states. Let y be the computed value of T(z), which differs
from the exact one by at most e. Then the equilibrium lies within (L |y - z| + (L + m) e) / m of y. Assume that the
logit of a class exceeds every other logit at y by more than the difference can change within that distance. Then
it exceeds them at the equilibrium, too.
"""

from __future__ import annotations

import math
import os
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import arithmetic, types
from deqsmooth.config import checks
from deqsmooth.models import classifiers
from deqsmooth.smoothing import thomson
from deqsmooth.solvers import per_lane, settled

_UNIT = 2.0**-24
_FAST_MATH = re.compile(r"xla_cpu_enable_fast_math(?!=(?:false|0))")
_LARGEST_RATIO = 50
FACTOR_STEP = 1e-4
"""Constants of cells are rounded up to a multiple of this."""


class Proof(NamedTuple):
    """Constants of a model with its variables; see `types.Contraction`.

    Attributes:
      factor: Lipschitz constant of the cell.
      rounding: of an evaluation of the cell.
      reach: Lipschitz constants of the differences of logits [classes, classes].
      readout_rounding: of a logit.
      norms: bound on the relative rounding of a norm of states.
      modulus: m above.
      underflow: more than the norm of all entries whose squares are 0, for up to 2^40 of them.
    """

    factor: float
    rounding: tuple[float, float]
    reach: np.ndarray
    readout_rounding: tuple[float, float]
    norms: float
    modulus: float
    underflow: float = 2.0**-43

    def in_float64(self) -> Proof:
        """These constants for float64, where a bound on rounding is at most 2^-29 times that for float32."""
        at_state, at_injection = (x * arithmetic.FROM_FLOAT32 for x in self.rounding)
        of_state, constant = (x * arithmetic.FROM_FLOAT32 for x in self.readout_rounding)
        return self._replace(
            rounding=(at_state, at_injection),
            readout_rounding=(of_state, constant),
            norms=self.norms * arithmetic.FROM_FLOAT32,
            underflow=2.0**-512,
        )

    def distance(self, z: types.State, fz: types.State, u: types.Injection) -> types.PerLane:
        """Upper bound on the distance from f(z) to the equilibrium [lanes].

        Args:
          z: a state.
          fz: the cell at z.
          u: injection of the cell.
        """
        return self._distance(*self._parts(z, fz, u))

    def _distance(self, step: types.PerLane, error: types.PerLane) -> types.PerLane:
        return (1 + self.norms) / self.modulus * (step + error)

    def _parts(self, z: types.State, fz: types.State, u: types.Injection) -> tuple[types.PerLane, types.PerLane]:
        """The parts of the distance that come from the last step and from rounding, both times the modulus."""
        step = per_lane.norm(jax.tree.map(jnp.subtract, fz, z)) + self.underflow
        at_state, at_injection = self.rounding
        error = at_state * per_lane.norm(z) + at_injection * per_lane.norm(u)
        return self.factor * step, (self.factor + self.modulus) * error

    def readout_error(self, z: types.State) -> types.PerLane:
        """Upper bound on the rounding of a logit of a state, but for that of the norm of the state [lanes]."""
        at_state, constant = self.readout_rounding
        return at_state * per_lane.norm(z) + constant

    def verdict(
        self, z: types.State, fz: types.State, u: types.Injection, logits: types.Logits, share: float = 1.0
    ) -> settled.Verdict:
        """Whether the largest logit of f(z) is the largest of the equilibrium, and whether that can be proved.

        It is hopeless where rounding makes up most of the distance, so that further evaluations leave nearly all
        of it.

        Args:
          z: a state.
          fz: the cell at z.
          u: injection of the cell.
          logits: the readout at f(z).
          share: part of the margin that the distance and rounding may take.
        """
        # Of two logits, each computed once here and once more where the vote is read.
        rounding = 4 * self.readout_error(fz)
        margin, reach, is_other = self._margins(logits)
        step, error = self._parts(z, fz, u)
        changes = reach * self._distance(step, error)[:, None] + rounding[:, None]
        is_settled = jnp.all(jnp.where(is_other, share * margin > (1 + self.norms) * changes, True), -1)
        return settled.Verdict(is_settled, step <= settled.HOPELESS * error)

    def remaining(self, solution: types.Solution, logits: types.Logits) -> types.PerLane:
        """How far solves by plain iteration are from settled, a loss for training [lanes].

        It is the logarithm of d / (m + d / 50), and at least 0. Here d bounds the distance to the equilibrium, and
        no state within m of the solution has another class, both without rounding. Plain iteration settles a lane
        after about this many further evaluations, times 1 / log(1 / factor).

        Args:
          solution: of a solve by the plain method to a budget.
          logits: the readout at the solution.
        """
        distance = self.factor / self.modulus * solution.residual * per_lane.norm(solution.value)
        margin, reach, is_other = self._margins(logits)
        within = jnp.min(jnp.where(is_other, margin / jnp.where(is_other, reach, 1), jnp.inf), -1)
        return jnp.log(jnp.maximum(distance / (within + distance / _LARGEST_RATIO), 1))

    def _margins(self, logits: types.Logits) -> tuple[jax.Array, jax.Array, jax.Array]:
        """How far the largest logit exceeds each, the Lipschitz constant of that, and which are other classes."""
        vote, margin, is_other = settled.margins(logits)
        return margin, jnp.asarray(self.reach, logits.dtype)[vote], is_other


Constants = Proof | thomson.Proof


def proof(classifier: classifiers.Classifier) -> Constants:
    """Returns the constants of a classifier whose votes may be settled by them.

    Raises:
      ValueError: it has none, its cell is no contraction, the devices are no CPUs, or XLA may use fast math.
    """
    check_rounding()
    model, variables = classifier.model, classifier.variables
    if isinstance(model, types.Model) and isinstance(model.contraction, types.Subhomogeneous):
        found = thomson.constants(model.contraction, variables, model.num_classes)
        return found._replace(factor=_stated(found.factor))
    return constants(model, variables)


def check_rounding() -> None:
    """Raises `ValueError` where bounds on rounding do not hold: on devices that are no CPUs, or with fast math."""
    if jax.default_backend() != "cpu":
        # Other devices may compute the cell's convolutions by Winograd's or a Fourier method: other rounding.
        raise ValueError(
            f"the device is {jax.default_backend()}; a proof of votes or radii must be made on a CPU, where the "
            "rounding of convolutions is bounded; without a proof, short solves and audited chains can be "
            "certified on any device"
        )
    if _FAST_MATH.search(os.environ.get("XLA_FLAGS", "")):
        raise ValueError(
            "XLA_FLAGS must not have xla_cpu_enable_fast_math, which allows roundings that a proof of votes or "
            "radii does not cover"
        )


def constants(model: object, variables: types.Variables) -> Proof:
    """Returns the constants in L2 of a model with its variables.

    Raises:
      ValueError: it has none, or its cell is no contraction.
    """
    contraction = model.contraction if isinstance(model, types.Model) else None
    if not isinstance(model, types.Model) or not isinstance(contraction, types.Contraction):
        raise ValueError(
            "settle is 'proof'; it must be left out for a model whose cell has no proven equilibrium: the learned "
            "start and serial sampling with an audit remain (a ContractionModel, MonotoneModel or "
            "SubhomogeneousModel has one)"
        )
    factor = contraction.factor(variables)
    images = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
    state = jax.eval_shape(lambda images: model.initial_state(model.inject(variables, images, None)[0]), images)
    size = sum(math.prod(x.shape) for x in jax.tree.leaves(state))
    found = Proof(
        _stated(factor),
        contraction.rounding(variables),
        contraction.reach(variables),
        contraction.readout_rounding(variables),
        # Squares, a sum, a root and the few operations around them.
        (size + 16) * _UNIT,
        1 - factor if contraction.modulus is None else contraction.modulus(variables),
    )
    _check(found, model.num_classes)
    return found


def _stated(factor: float) -> float:
    """A Lipschitz constant of few digits, so that machines which round kernels differently state the same."""
    if not factor < 1 - FACTOR_STEP:
        raise ValueError(f"the cell has a Lipschitz bound of {factor:.5g}; a proof needs one below 0.9999")
    return round(math.ceil(factor / FACTOR_STEP) * FACTOR_STEP, 9)


def _check(found: Proof, num_classes: int) -> None:
    """Raises `ValueError` if a constant that a model states cannot be one."""
    for name, value in (
        ("factor", found.factor),
        ("rounding", float(np.min(found.rounding))),
        ("readout_rounding", float(np.min(found.readout_rounding))),
        ("reach", float(np.min(found.reach))),
    ):
        checks.holds(0 <= value < math.inf, f"{name} of the contraction", value, "finite and at least 0")
    checks.finite_positive("modulus of the contraction", found.modulus)
    rule = f"({num_classes}, {num_classes}), one number for each pair of classes"
    shape = np.shape(found.reach)
    checks.holds(shape == (num_classes, num_classes), "shape of reach of the contraction", shape, rule)
