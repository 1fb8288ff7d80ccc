"""Attacks on certified images: projected gradient ascent within L2 balls, and the prediction of the result.

The ascent (Madry et al. 2018) increases the loss of the base classifier through the implicit gradient of its
equilibrium, or that of the smoothed classifier by its mean probabilities over a few noise draws (Salman et al.
2019). An attack that fails proves nothing. An attack that changes the smoothed class within a certified radius
refutes the certificate.
"""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deqsmooth import arithmetic, config, data, devices, models, solvers, types
from deqsmooth.certificates import attempts, record
from deqsmooth.config import checks
from deqsmooth.models import classifiers, starts
from deqsmooth.smoothing import ascent, certification, inputs, noise, prediction, recertification
from deqsmooth.solvers import gradients

_IMAGES = 4


def classify_fn(
    checkpoint: classifiers.Classifier, settings: config.Smoothing, gradient_budget: int
) -> Callable[[types.Variables, types.Images], types.Logits]:
    """The base classifier f as a function that can be differentiated in its images.

    Args:
      checkpoint: the model.
      settings: of the certificates, of the independent sampler.
      gradient_budget: terms of the Neumann series of the implicit gradient.
    """
    if not isinstance(checkpoint.model, types.Model):
        return checkpoint.apply
    model = models.with_cell_dtype(checkpoint.model, settings.dtype)
    solver = solvers.build(str(settings.solver), settings.budget or 1, settings.tolerance)
    start = starts.build(str(settings.first_start), model, checkpoint.start_training)

    def classify(variables: types.Variables, images: types.Images) -> types.Logits:
        params = model.bind(variables)
        u, _ = model.inject(variables, images, None)
        fixed = lax.stop_gradient(u)
        solution = solver.solve(lambda z: model.cell(params, z, fixed), start(variables)(fixed))
        z = gradients.neumann(model.cell, gradient_budget)(params, lax.stop_gradient(solution.value), u)
        return model.readout(variables, z, False)[0]

    return classify


def attack(
    classifier: classifiers.Classifiable,
    found: Sequence[record.Certificate],
    settings: config.Smoothing,
    dataset: data.Dataset,
    radii: Sequence[float],
    how: config.Attack,
) -> Iterator[attempts.Attempt]:
    """Attacks the images of certificates at every radius, from the smallest, by projected gradient ascent in L2.

    The ascent (Madry et al. 2018) increases the loss of the smoothed classifier by its mean probabilities over a
    few noise draws (Salman et al. 2019), or that of the base classifier, through the implicit gradient of the
    equilibrium. The smoothed class of an attacked image is predicted from noise that the attack did not use. If
    the prediction is a class other than the label, the image is not attacked again: the attempt counts for every
    larger radius. An attack that fails proves nothing. One that changes the smoothed class within a certified
    radius refutes the certificate.

    Args:
      classifier: that the certificates are about, as `ds.certify` takes it.
      found: certificates of images whose label is known, such as `ds.certify` yields them with `labels`.
      settings: of the certificates, of independent sampling; without a sampler they are
        `ds.recommended(classifier, settings)`.
      dataset: the images, by the indices of the certificates.
      radii: largest L2 distances of the attacked images, finite numbers from 0.
      how: settings of the attack.

    Yields:
      The result of each attack, a `deqsmooth.certificates.attempts.Attempt`; those on an image in the order of the
      radii.

    Raises:
      ValueError: the certificates are not those of independent sampling or of these settings, a label is not
        known, a radius is out of range, or an image cannot be read.

    Example:
      >>> import deqsmooth as ds
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> def brightness(images):
      ...     score = images.mean((1, 2, 3)) - 0.3
      ...     return jnp.stack([score, -score], -1)
      >>> images, labels = np.full((1, 8, 8, 1), 0.4, np.float32), [0]
      >>> settings = ds.Smoothing(sampler="independent", sigma=0.25, num_estimation=500)
      >>> found = list(ds.certify(brightness, images, settings, labels=labels))
      >>> how = ds.Attack(steps=5, draws=2, num_estimation=200)
      >>> dataset = ds.arrays(images, labels)
      >>> for attempt in ds.attack(brightness, found, settings, dataset, [0.5, 2.0], how):
      ...     print(attempt.budget, attempt.prediction, attempt.refutes)
      0.5 0 False
      2.0 1 False
    """
    inputs.given(dataset, settings)
    made = classifiers.classifier(classifier)
    settings = certification.recommended(made, settings)
    checks.kind("how", how, config.Attack, "settings of an attack, made by ds.Attack")
    radii = np.atleast_1d(np.asarray(radii)).tolist()
    if not radii or not all(isinstance(radius, int | float) and 0 <= radius < math.inf for radius in radii):
        raise ValueError(f"radii is {radii}; it must be finite numbers from 0, at least one")
    if settings.sampler != "independent":
        raise ValueError(
            f"sampler is {settings.sampler!r}; attacks are made on the classifiers of 'independent' certificates"
        )
    rule = "'gaussian': attacked images are on no grid, and exact noise cannot be drawn for them"
    checks.holds(settings.noise == "gaussian", "noise", repr(settings.noise), rule)
    found = inputs.certificates(found, settings)
    if not found:
        return
    for certificate in found:
        if certificate.label is None:
            raise ValueError(f"image {certificate.index} has no label; an attack is away from it")
    smoothed = how.target == "smoothed"
    voting = recertification.base_settings(
        settings, num_estimation=how.num_estimation, alpha=how.alpha, seed=how.seed
    )
    image = dataset[found[0].index][0]
    certification.check(made, voting, image)
    programs = certification.prepare(made, voting, image.shape, len(found)) if smoothed else None
    num_images = _IMAGES * devices.mesh().size
    ascend = _ascend_fn(made, settings, how, num_images)
    predict_base = _predict_fn(made, settings, how, num_images)
    waiting = collections.deque((certificate, sorted(radii)) for certificate in found)
    while waiting:
        turn = [waiting.popleft() for _ in range(min(num_images, len(waiting)))]
        indices = np.array([certificate.index for certificate, _ in turn])
        images = inputs.images(made, dataset.images(indices), voting)
        rows = _Rows(
            jnp.asarray(images),
            jnp.asarray(indices, jnp.uint32),
            jnp.asarray([certificate.label for certificate, _ in turn], jnp.int32),
            jnp.asarray([left[0] for _, left in turn], jnp.float32),
        )
        changed = ascend(rows)
        if smoothed:
            votes = prediction.predict(
                made, changed, voting, indices=indices, programs=programs, skip_soundness_check=True
            )
            predicted = [one.label for one in votes]
        else:
            predicted = predict_base(jnp.asarray(changed)).tolist()
        distances = np.linalg.norm((changed.astype(float) - images).reshape(len(turn), -1), axis=1).tolist()
        going_on = []
        for (certificate, left), distance, label in zip(turn, distances, predicted, strict=True):
            is_changed = label not in (None, certificate.label)
            for radius in left if is_changed else left[:1]:
                yield _attempt(radius, how.target, certificate, distance, label)
            if not is_changed and left[1:]:
                going_on.append((certificate, left[1:]))
        waiting.extendleft(reversed(going_on))


class _Rows(NamedTuple):
    """Images to attack: pixels [rows, H, W, C], index in the data set, label and allowed distance [rows]."""

    images: jax.Array
    places: jax.Array
    labels: jax.Array
    radii: jax.Array


def _ascend_fn(
    checkpoint: classifiers.Classifier, settings: config.Smoothing, how: config.Attack, num_images: int
) -> Callable[[_Rows], np.ndarray]:
    """The function from rows to attacked images, for up to a number of images."""
    classify = classify_fn(checkpoint, settings, how.gradient_budget)
    num_draws = how.draws if how.target == "smoothed" else 1
    sigma = settings.sigma if how.target == "smoothed" else 0.0

    def on_block(variables: types.Variables, rows: _Rows) -> jax.Array:
        shape = rows.images.shape[1:]
        keys = jax.vmap(lambda index: noise.phase_key(how.seed, index, noise.ATTACK))(rows.places)
        samples = jnp.arange(num_draws, dtype=jnp.int32)
        draws = jax.vmap(lambda key: noise.gaussian(jnp.broadcast_to(key, samples.shape), samples, shape))(keys)
        loss = ascent.smoothed_loss(functools.partial(classify, variables), rows.labels, sigma * draws)
        first_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, num_draws)
        return ascent.ascend(loss, rows.images, rows.radii, first_keys, how)

    return _compiled(on_block, checkpoint, num_images)


def _predict_fn(
    checkpoint: classifiers.Classifier, settings: config.Smoothing, how: config.Attack, num_images: int
) -> Callable[[jax.Array], np.ndarray]:
    """The function from images to classes of the base classifier, for up to a number of images."""
    classify = classify_fn(checkpoint, settings, how.gradient_budget)

    def on_block(variables: types.Variables, images: jax.Array) -> jax.Array:
        return jnp.argmax(classify(variables, images), -1)

    return _compiled(on_block, checkpoint, num_images)


Rows = TypeVar("Rows")


def _compiled(
    on_block: Callable[[types.Variables, Rows], jax.Array], checkpoint: classifiers.Classifier, num_images: int
) -> Callable[[Rows], np.ndarray]:
    """A function of rows over all devices, compiled once, for up to a number of rows."""
    on_rows = functools.partial(devices.map_blocks, on_block, block=_IMAGES, mesh=devices.mesh())
    run = jax.jit(on_rows)

    def call(rows: Rows) -> np.ndarray:
        num_rows = len(jax.tree.leaves(rows)[0])
        with arithmetic.standard():
            return np.asarray(run(checkpoint.variables, devices.pad(rows, num_images)))[:num_rows]

    return call


def _attempt(
    budget: float, target: str, certificate: record.Certificate, distance: float, predicted: int | None
) -> attempts.Attempt:
    assert certificate.label is not None
    refutes = attempts.refutes(target, distance, predicted, certificate.prediction, certificate.radius)
    return attempts.Attempt(
        certificate.index,
        certificate.label,
        budget,
        distance,
        predicted,
        certificate.prediction,
        certificate.radius,
        refutes,
    )
