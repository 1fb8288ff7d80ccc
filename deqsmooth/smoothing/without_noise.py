"""Certificates without noise: radii from the Lipschitz constants of a model, for those models that state them.

Let y be a state near the equilibrium of an image, at a distance of at most d from it. If the difference of the
logits of classes A and j has the Lipschitz constants r in the state and c in the image, it stays positive within
(logit_A - logit_j - r d) / c of the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from deqsmooth import arithmetic, data, types
from deqsmooth.config import checks
from deqsmooth.models import classifiers
from deqsmooth.smoothing import contract, proof
from deqsmooth.solvers import picard, settled

_BUDGET = 1000
_LANES = 100
# A solve stops where distance and rounding take at most this part of a margin, or where rounding hides more.
_SHARE = 2.0**-10
# Makes radii smaller by more than float64 rounds them.
_INWARDS = 1 - 2.0**-40


class Certificates(NamedTuple):
    """What is certified of images without noise.

    Attributes:
      labels: class of the network at each image, int32 [images].
      radii: no image of values in [0, 1] within this L2 distance in pixels has another class, float64 [images]. It
        is 0 where the class of the image itself is not proved.
      evaluations: cell evaluations of each image, int32 [images].
    """

    labels: np.ndarray
    radii: np.ndarray
    evaluations: np.ndarray


@arithmetic.standard()
def certify_without_noise(classifier: classifiers.Classifiable, images: npt.ArrayLike) -> Certificates:
    """Certifies images by the Lipschitz constants of a model, without sampling.

    The certificate is about the network itself, at its exact equilibrium, with the kernels that its program
    computes. The smoothed classifier is another one. The constants are those of each pair of classes. The rounding
    of float32 and what is left of the solve are taken off.

    Args:
      classifier: of a `ds.ContractionModel` or `ds.MonotoneModel` with `lipschitz`, or of a `ds.Model` of your own
        whose `contraction` states `image`.
      images: uint8, or floating point in [0, 1] [images, H, W, C].

    Returns:
      Labels, radii and evaluations.

    Raises:
      ValueError: the model has no such constants, that of the cell is not below 0.9999, the devices are no CPUs,
        XLA may use fast math, or a model of your own does not keep the contract of a base classifier; see
        `data.check_images` for the images.

    Example:
      >>> import deqsmooth as ds
      >>> import jax
      >>> size = ds.ContractionModel(channels=(8,), lipschitz=4.0)
      >>> images, labels = ds.load_dataset("digits").take(range(2))
      >>> untrained = ds.classifier(size, ds.build(size).init(jax.random.key(0)))
      >>> ds.certify_without_noise(untrained, images).radii.round(1).tolist()
      [0.1, 0.2]
    """
    classifier = classifiers.classifier(classifier)
    model, variables = classifier.model, classifier.variables
    contraction = model.contraction if isinstance(model, types.Model) else None
    if (
        not isinstance(model, types.Model)
        or not isinstance(contraction, types.Contraction)
        or contraction.image is None
    ):
        raise ValueError(
            "the classifier has no Lipschitz constant; a certificate without noise needs one (a ContractionModel "
            "or MonotoneModel with lipschitz has one), and ds.certify does not"
        )
    proof.check_rounding()
    constants = proof.constants(model, variables)
    slopes, error = contraction.image(variables)
    slopes, rule = np.asarray(slopes), "finite and at least 0"
    is_table = slopes.shape == (model.num_classes,) * 2
    checks.holds(is_table, "shape of slopes of image of the contraction", slopes.shape, "[classes, classes]")
    is_possible = bool(np.all((slopes >= 0) & np.isfinite(slopes)))
    checks.holds(is_possible, "slopes of image of the contraction", slopes, rule)
    checks.holds(0 <= error < math.inf, "error of image of the contraction", error, rule)
    pixels = data.check_images(images, classifier.image_shape)
    solver = settled.Solver(picard.Picard(), _BUDGET)

    @jax.jit
    def solve(variables: types.Variables, pixels: types.Images) -> tuple[jax.Array, ...]:
        params, (u, _) = model.bind(variables), model.inject(variables, pixels, None)

        def cell(z: types.State) -> types.State:
            return model.cell(params, z, u)

        def decide(z: types.State, fz: types.State) -> settled.Verdict:
            return constants.verdict(z, fz, u, model.readout(variables, fz, False)[0], _SHARE)

        solution = solver.solve(cell, model.initial_state(u), decide)
        y = cell(solution.value)
        return (
            model.readout(variables, y, False)[0],
            constants.distance(solution.value, y, u),
            (1 + constants.norms) * constants.readout_error(y),
            solution.num_evaluations + 1,
        )

    if classifier.size is None:
        contract.check(lambda variables, pixels: solve(variables, pixels)[0], variables, pixels[0], own=True)
    found = [solve(variables, pixels[i : i + _LANES]) for i in range(0, len(pixels), _LANES)]
    logits, distances, errors, evaluations = map(np.concatenate, zip(*jax.device_get(found), strict=True))
    logits, distances, errors = (x.astype(np.float64) for x in (logits, distances, errors))
    labels = logits.argmax(-1)
    margins = np.take_along_axis(logits, labels[:, None], -1) - logits - 2 * errors[:, None]
    margins -= constants.reach[labels] * (distances + error)[:, None] / _INWARDS
    # Two classes of one readout are told apart by their biases alone.
    radii = margins / np.maximum(slopes[labels], 1e-30)
    radii[np.arange(len(radii)), labels] = np.inf
    radii = radii.min(-1) * _INWARDS - data.PIXEL_ROUNDING * math.sqrt(pixels[0].size)
    return Certificates(labels.astype(np.int32), np.where(radii > 0, radii, 0.0), evaluations)
