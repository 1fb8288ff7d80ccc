"""Certificates without noise in L-infinity: a box of images, and a box of states that contains their equilibria.

Let the cell of every injection in a box map a box of states into itself. By Brouwer's theorem it has a fixed point
there, and this is its only equilibrium. If a logit exceeds every other one in the whole box of states, all images
of the box have its class (interval bound propagation, Gowal et al. 2018, at an equilibrium).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from deqsmooth import arithmetic, data, types
from deqsmooth.config import checks
from deqsmooth.models import classifiers
from deqsmooth.smoothing import proof
from deqsmooth.solvers import loop, picard

_BUDGET, _LANES, _CONVERGED = 1000, 100, 1e-9
# Boxes are made larger by this part of their largest radius, so that the cell is seen to map them into themselves.
_LARGER = 2.0**-20
# More than float64 rounds sums of some thousand products, and kernels that are rescaled by such sums, relative to
# sums of absolute values.
_ROUNDING = 2.0**-30


class BoxCertificates(NamedTuple):
    """What is certified of images in L-infinity.

    Attributes:
      labels: class of the network at each image, int32 [images]; it is proved where the image is certified, and
        elsewhere that of a solve of at most 1000 evaluations.
      is_certified: whether no image of values in [0, 1] whose pixels differ by at most epsilon has another class
        [images].
      evaluations: evaluations of the cell on boxes, two a step, the same number for all images of a batch, int32
        [images].
    """

    labels: np.ndarray
    is_certified: np.ndarray
    evaluations: np.ndarray


@arithmetic.double()
def certify_box(classifier: classifiers.Classifiable, images: npt.ArrayLike, epsilon: float) -> BoxCertificates:
    """Certifies images in L-infinity by interval bounds of the equilibrium, without sampling.

    The certificate is about the network itself, in exact arithmetic, with the variables of the checkpoint. It is
    computed in float64, with rounding outwards. A network whose training did not aim at it has few or none.

    Args:
      classifier: of a `ds.ContractionModel` or `ds.MonotoneModel` with `lipschitz`.
      images: uint8, or floating point in [0, 1] [images, H, W, C].
      epsilon: largest change of a pixel, at least 0.

    Returns:
      Labels, which images are certified, and evaluations.

    Raises:
      ValueError: the model has no functions on boxes, its cell is no contraction, epsilon is negative or not
        finite, the devices are no CPUs, or XLA may use fast math; see `data.check_images` for the images.

    Example:
      >>> import deqsmooth as ds
      >>> import jax
      >>> size = ds.ContractionModel(channels=(8,), lipschitz=4.0)
      >>> images, labels = ds.load_dataset("digits").take(range(2))
      >>> untrained = ds.classifier(size, ds.build(size).init(jax.random.key(0)))
      >>> ds.certify_box(untrained, images, 0.001).is_certified.tolist()
      [True, True]
    """
    classifier = classifiers.classifier(classifier)
    model = classifier.model
    contraction = model.contraction if isinstance(model, types.Model) else None
    if (
        not isinstance(model, types.Model)
        or not isinstance(contraction, types.Contraction)
        or contraction.boxes is None
    ):
        raise ValueError(
            "the classifier has no functions on boxes; a certificate in L-infinity needs them (a ContractionModel "
            "or MonotoneModel with lipschitz has them), and ds.certify in L2 does not"
        )
    boxes = contraction.boxes
    checks.holds(0 <= epsilon < np.inf, "epsilon", epsilon, "finite and at least 0")
    # The equilibrium must be the only one.
    proof.check_rounding()
    proof.constants(model, classifier.variables)
    pixels = np.asarray(data.check_images(images, classifier.image_shape), np.float64)
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), classifier.variables)
    certify = jax.jit(functools.partial(_certified, model, boxes))
    parts = [
        certify(variables, pixels[first : first + _LANES], epsilon + data.PIXEL_ROUNDING)
        for first in range(0, len(pixels), _LANES)
    ]
    return BoxCertificates(*map(np.concatenate, zip(*jax.device_get(parts), strict=True)))


def _certified(
    model: types.Model, boxes: types.Boxes, variables: types.Variables, images: jax.Array, epsilon: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Labels, which images are certified, and evaluations [lanes]."""
    params, (own, _) = model.bind(variables), model.inject(variables, images, None)
    solver = loop.Solver(picard.Picard(), _BUDGET, _CONVERGED)
    solution = solver.solve(lambda z: model.cell(params, z, own), model.initial_state(own))
    labels = jnp.argmax(model.readout(variables, solution.value, False)[0], -1).astype(jnp.int32)
    u = _injections(boxes, variables, images, epsilon)

    def image(z: types.Box) -> tuple[types.Box, jax.Array]:
        """What the cell makes of a box, and a bound on the rounding of that [lanes]."""
        after, of_sums = boxes.cell(params, z, u), boxes.cell(params, _of_zero(z), _of_zero(u))
        # On a box around 0 relu halves the radius.
        return after, _ROUNDING * 2 * _largest(of_sums.radius)

    def step(carry: _Search) -> _Search:
        after, error = image(carry.z)
        # How far the image of the box reaches out of it.
        reach = jax.tree.map(lambda c, d, s, r: jnp.abs(c - d) + s - r, carry.z.centre, *after, carry.z.radius)
        is_found = carry.is_found | (_largest(reach) + error < 0)
        larger = _larger(after, 2 * error + _LARGER * _largest(after.radius))
        z = jax.tree.map(lambda old, new: jnp.where(_over(is_found, old), old, new), carry.z, larger)
        return _Search(z, is_found, carry.num_evaluations + 2)

    zero = model.initial_state(u.centre)
    begin = _Search(types.Box(zero, zero), jnp.zeros(len(images), bool), jnp.int32(0))
    z, is_found, num = lax.while_loop(
        lambda carry: ~jnp.all(carry.is_found) & (carry.num_evaluations < _BUDGET), step, begin
    )
    least = least_margins(boxes, variables, z, labels)
    kernel, bias = boxes.readout(variables)
    error = _ROUNDING * (boxes.features(_of_zero(z)).radius @ jnp.abs(kernel) + jnp.abs(bias))
    is_other = jnp.arange(len(bias)) != labels[:, None]
    exceeds = least > error + jnp.take_along_axis(error, labels[:, None], -1)
    is_certified = is_found & jnp.all(exceeds | ~is_other, -1)
    return labels, is_certified, jnp.broadcast_to(num, is_found.shape)


def box_of(images: jax.Array, epsilon: jax.Array | float) -> types.Box:
    """The box of all images of values in [0, 1] whose pixels differ by at most epsilon from given ones."""
    lower, upper = jnp.maximum(images - epsilon, 0), jnp.minimum(images + epsilon, 1)
    return types.Box((lower + upper) / 2, (upper - lower) / 2)


def least_margins(boxes: types.Boxes, variables: types.Variables, z: types.Box, labels: types.Labels) -> jax.Array:
    """Lower bounds on how far the logits of labels exceed each other logit, but for rounding [lanes, classes].

    Args:
      boxes: the model on boxes.
      variables: its variables.
      z: states.
      labels: classes [lanes].
    """
    (centre, radius), (kernel, bias) = boxes.features(z), boxes.readout(variables)
    logits = centre @ kernel + bias
    own = jnp.take_along_axis(logits, labels[:, None], -1)
    change = jnp.abs(kernel.T[labels][:, :, None] - kernel)
    return own - logits - jnp.einsum("lf,lfi->li", radius, change)


class _Search(NamedTuple):
    """A box of states for each lane, whether the cell maps it into itself [lanes], and evaluations so far."""

    z: types.Box
    is_found: jax.Array
    num_evaluations: jax.Array


def _injections(
    boxes: types.Boxes, variables: types.Variables, images: jax.Array, epsilon: jax.Array
) -> types.Box:
    """A box that contains the injections of all images of values in [0, 1] that differ by at most epsilon."""
    u = boxes.inject(variables, box_of(images, epsilon))
    # Pixels without their mean are at most 1 for a mean in [0, 1]; the constant has room for larger ones.
    of_sums = boxes.inject(variables, types.Box(images, jnp.ones_like(images)))
    return _larger(u, _ROUNDING * 2 * (_largest(u.centre) + _largest(of_sums.radius)))


def _of_zero(box: types.Box) -> types.Box:
    """The box around 0 whose radius is the largest absolute value of each entry."""
    zeros = jax.tree.map(jnp.zeros_like, box.centre)
    return types.Box(zeros, jax.tree.map(lambda c, r: jnp.abs(c) + r, *box))


def _larger(box: types.Box, by: jax.Array) -> types.Box:
    """The box with radii that are larger by a number for each lane [lanes]."""
    return box._replace(radius=jax.tree.map(lambda r: r + _over(by, r), box.radius))


def _largest(tree: types.State) -> jax.Array:
    """The largest entry of each lane [lanes]."""
    return functools.reduce(jnp.maximum, [jnp.max(x.reshape(len(x), -1), -1) for x in jax.tree.leaves(tree)])


def _over(by_lane: jax.Array, x: jax.Array) -> jax.Array:
    """Numbers of lanes [lanes], with the axes of x."""
    return by_lane.reshape(-1, *[1] * (x.ndim - 1))
