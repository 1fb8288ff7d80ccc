"""Certificates without noise: constants against dense matrices, radii against hyperplanes and attacks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

import deqsmooth as ds
from deqsmooth import types
from deqsmooth.models import branches, classifiers, injections, monotone
from deqsmooth.smoothing import without_noise

SIDE, CLASSES = 4, 3
COMMON = {"image_shape": (SIDE, SIDE, 1), "num_classes": CLASSES, "pooled": 1, "patch": 2, "lipschitz": 6.0}
CONTRACTION = ds.ContractionModel(channels=(5, 6), factor=0.6, **COMMON)
MONOTONE = ds.MonotoneModel(channels=(4, 3), modulus=0.5, **COMMON)
LARGE = ds.ContractionModel(
    image_shape=(8, 8, 3), channels=(5, 6, 7), pooled=1, patch=2, lipschitz=2.0, mean=(0.1, 0.2, 0.3)
)
# State and injection have the channels of the patches.
TIGHT = [
    ds.ContractionModel(channels=(4,), factor=0.6, **COMMON),
    ds.MonotoneModel(channels=(4,), modulus=0.5, **{**COMMON, "lipschitz": 0.8}),
]
images = np.asarray(jax.random.uniform(jax.random.key(2), (24, SIDE, SIDE, 1)))


def names(size):
    return f"{type(size).__name__}-{len(size.channels)}"


def made(size):
    """A classifier whose biases leave most of the state positive, and its parts of different weights."""
    model = ds.build(size)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
    inject = variables["params"]["inject"]
    for i, channels in enumerate(size.channels):
        inject[f"bias_{i}"] = np.full(channels, 0.3, np.float32)
    inject["weights"] = np.array([[1.0], [-2.0], [0.5]], np.float32)[: len(size.channels)]
    return ds.classifier(size, variables)


def tight(size):
    """A classifier that is affine with the largest slope that its constants allow, in every direction.

    The injection is the patches, and the state stays positive. The cell of a contraction is `factor z + u`. A
    monotone one has no A and no N, and its logits have orthogonal derivatives of the length s in the state, with
    s^2 = 1 - 2 m c for the constant c. Then they change c times as fast as the image: s / (m + (1 + s^2) / (2 c)).
    """
    model = ds.build(size)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
    identity = np.zeros((3, 3, 4, 4), np.float32)
    identity[1, 1] = np.eye(4)
    inject, cell = variables["params"]["inject"], variables["params"]["cell"]
    inject["kernel_0"], inject["bias_0"] = identity, np.full(4, 2.0, np.float32)
    cell["kernels"] = [[identity if isinstance(size, ds.ContractionModel) else np.zeros_like(identity)]]
    if isinstance(size, ds.MonotoneModel):
        cell["skew_kernels"] = [[np.zeros_like(identity)]]
        # A logit is a mean of four entries.
        length = np.sqrt(4 * (1 - 2 * size.modulus * size.lipschitz))
        variables["params"]["readout"]["kernel"] = length * np.eye(4, CLASSES, dtype=np.float32)
    return ds.classifier(size, variables)


def iterated(cell, params, u, num):
    """A state after a number of evaluations from zero."""
    zero = jax.tree.map(jnp.zeros_like, u)
    return lax.scan(lambda z, _: (cell(params, z, u), None), zero, length=num)[0]


def equilibria(classifier, pixels):
    """Equilibria [images, entries] and logits [images, classes] in float64."""
    model = classifier.model
    bound = jax.jit(model.bind)(classifier.variables)
    with jax.enable_x64(True):
        # The kernels that the float32 program uses.
        variables, params = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x, np.float64)), (classifier.variables, bound)
        )
        u, _ = model.inject(variables, jnp.asarray(pixels, jnp.float64), None)
        z = jax.jit(iterated, static_argnums=(0, 3))(model.cell, params, u, 200)
        logits = model.readout(variables, z, False)[0]
        return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in z], 1), np.asarray(logits)


def hyperplanes(logits, weights):
    """Distance of each image to the nearest other class of an affine classifier with weights [pixels, classes]."""
    labels = logits.argmax(-1)
    gaps = logits.max(-1, keepdims=True) - logits
    gaps[np.arange(len(gaps)), labels] = np.inf
    norms = np.linalg.norm(weights[:, labels, None] - weights[:, None], axis=0)
    return labels, (gaps / np.maximum(norms, 1e-9)).min(-1)


def dense(classifier):
    """Injection [state, pixels] and readout [state, classes] as matrices."""
    model, variables, shape = classifier.model, classifier.variables, classifier.size.image_shape

    @jax.jit
    def injection(pixels):
        return ravel_pytree(model.inject(variables, pixels.reshape(1, *shape), None)[0])[0]

    unravel = ravel_pytree(model.inject(variables, jnp.zeros((1, *shape)), None)[0])[1]
    matrix = np.asarray(jax.jacobian(injection)(jnp.zeros(np.prod(shape))), np.float64)
    readout = jax.jacobian(lambda z: model.readout(variables, unravel(z), False)[0][0])(jnp.zeros(len(matrix)))
    return injection, matrix, np.asarray(readout, np.float64).T


@pytest.mark.parametrize("size", [CONTRACTION, MONOTONE, pytest.param(LARGE, marks=pytest.mark.slow)], ids=names)
def test_injection_is_no_longer_than_stated(size):
    classifier = made(size)
    model, variables, shape = classifier.model, classifier.variables, size.image_shape
    is_normalised = isinstance(size, ds.ContractionModel)
    injection, matrix, readout = dense(classifier)
    stated, error = injections.of_linear(size, variables["params"]["inject"], is_normalised=is_normalised)
    truth = np.linalg.norm(matrix, 2)
    assert 0.4 * stated < truth <= stated
    if is_normalised:
        assert stated <= 1.001
        lengths = np.linalg.norm(readout, axis=0)
        np.testing.assert_allclose(lengths, size.lipschitz * (1 - size.factor), rtol=1e-4)
    # The rounding of an injection in float32.
    pixels = np.asarray(jax.random.uniform(jax.random.key(3), (50, *shape)))
    single = np.stack([injection(x) for x in pixels]).astype(np.float64)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), variables)
        exact = model.inject(wide, jnp.asarray(pixels, jnp.float64), None)[0]
        exact = np.stack([ravel_pytree(jax.tree.map(lambda x, i=i: x[i], exact))[0] for i in range(50)])
    rounding = np.linalg.norm(single - exact, axis=1)
    assert (rounding > 0).all() and (rounding <= error).all()


@pytest.mark.parametrize("size", TIGHT, ids=names)
def test_constants_and_radii_are_tight(size):
    """No smaller constant and no larger radius would be right for this model."""
    classifier = tight(size)
    _, logits = equilibria(classifier, images)
    slopes, _ = classifier.model.contraction.image(classifier.variables)
    # The logits are affine in the image.
    weights = np.linalg.lstsq(np.c_[images.reshape(24, -1), np.ones(24)], logits, rcond=None)[0][:-1]
    truth = np.linalg.norm(weights[:, :, None] - weights[:, None], axis=0)
    assert (truth <= slopes).all()
    np.testing.assert_allclose(truth, slopes, rtol=2e-3, atol=2e-5)
    labels, truth = hyperplanes(logits, weights)
    found = ds.certify_without_noise(classifier, images)
    assert (found.labels == labels).all() and (found.radii <= truth).all()
    np.testing.assert_allclose(found.radii, truth, rtol=4e-3, atol=2e-4)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_weights_of_an_lben_give_its_constant(scale):
    """However large injection and readout are, and above what the dense operator allows.

    With P the symmetric part of I - W, the maximum of `<v, d>` over `<d, P d> <= <d, U x>` is
    `(<v, P^-1 U x> + sqrt(<v, P^-1 v> <U x, P^-1 U x>)) / 2`, a convex function of x.
    """
    classifier = made(MONOTONE)
    variables = jax.tree.map(np.array, classifier.variables)
    variables["params"]["readout"]["kernel"] *= 10 * scale
    variables["params"]["inject"]["weights"] *= scale
    classifier = ds.classifier(MONOTONE, variables)
    slopes, _ = classifier.model.contraction.image(variables)
    pairs = ~np.eye(CLASSES, dtype=bool)
    assert (slopes[pairs] <= np.sqrt(2) * MONOTONE.lipschitz * 1.005).all()
    _, injection, readout = dense(classifier)
    params = jax.jit(classifier.model.bind)(variables)
    zero, unravel = ravel_pytree(tuple(jnp.zeros((1, *shape)) for shape in branches.shapes(MONOTONE)))
    offset = jax.tree.map(jnp.zeros_like, unravel(zero))

    def forward(z):
        return ravel_pytree(monotone.forward(params, unravel(z), list(offset), MONOTONE.pooled))[0]

    step = np.asarray(jax.jit(jax.jacobian(forward))(zero), np.float64)
    operator = (np.eye(len(step)) - step) / float(params["step"])
    inverse = np.linalg.inv((operator + operator.T) / 2)
    change = np.moveaxis(readout[:, :, None] - readout[:, None], 0, -1)[pairs]
    direct, square = change @ inverse @ injection, injection.T @ inverse @ injection
    root = np.sqrt(np.einsum("ps,st,pt->p", change, inverse, change))[:, None]
    x = direct
    for _ in range(100):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        length = np.sqrt(np.sum(x @ square * x, 1, keepdims=True))
        value = (np.sum(direct * x, 1, keepdims=True) + root * length) / 2
        x = direct + root * (x @ square) / length
    assert (slopes[pairs] >= value[:, 0]).all()
    if scale == 10.0:
        assert (slopes[pairs] > 0.9 * np.sqrt(2) * MONOTONE.lipschitz).all()


def test_attacks_within_radius_fail():
    classifier = made(CONTRACTION)
    found = ds.certify_without_noise(classifier, images)
    is_certified = found.radii > 0
    assert is_certified.sum() > 12
    assert (equilibria(classifier, images)[1].argmax(-1) == found.labels).all()
    model = classifier.model

    @jax.jit
    def gradient(pixels, labels, others):
        def gap(pixels):
            params, (u, _) = model.bind(classifier.variables), model.inject(classifier.variables, pixels, None)
            logits = model.readout(classifier.variables, iterated(model.cell, params, u, 60), False)[0]
            rows = jnp.arange(len(logits))
            return jnp.sum(logits[rows, labels] - logits[rows, others])

        return jax.grad(gap)(pixels)

    changed = {}
    for scale in (1.0, 10.0):
        is_wrong = np.zeros(len(images), bool)
        for other in range(1, CLASSES):
            delta = np.zeros_like(images)
            length = scale * found.radii[:, None, None, None]
            for _ in range(30):
                step = -np.asarray(gradient(images + delta, found.labels, (found.labels + other) % CLASSES))
                norm = np.linalg.norm(step.reshape(24, -1), axis=1)[:, None, None, None]
                delta = delta + 0.25 * length * step / np.maximum(norm, 1e-9)
                norm = np.linalg.norm(delta.reshape(24, -1), axis=1)[:, None, None, None]
                delta = delta * np.minimum(1, length / np.maximum(norm, 1e-9))
            is_wrong |= equilibria(classifier, images + delta)[1].argmax(-1) != found.labels
        changed[scale] = is_wrong[is_certified].mean()
    assert changed[1.0] == 0 and changed[10.0] > 0.5


def own(image, factor=0.0, reach=None):
    """A linear classifier of the caller's own: the state approaches the image by `factor` an evaluation."""
    weights = np.asarray(jax.random.normal(jax.random.key(1), (SIDE**2, CLASSES)), np.float32)
    differences = np.linalg.norm(weights[:, :, None] - weights[:, None].astype(np.float64), axis=0)
    model = ds.Model(
        image_shape=(SIDE, SIDE, 1),
        num_classes=CLASSES,
        init=lambda key: {"params": weights},
        bind=lambda variables: (),
        inject=lambda variables, pixels, keys: (pixels.reshape(len(pixels), -1), variables),
        initial_state=jnp.zeros_like,
        cell=lambda params, z, u: factor * z + (1 - factor) * u,
        readout=lambda variables, z, train: (z @ variables["params"], variables),
        contraction=types.Contraction(
            factor=lambda variables: factor,
            rounding=lambda variables: (1e-6, 1e-6),
            reach=lambda variables: differences if reach is None else reach,
            readout_rounding=lambda variables: (2e-6, 0.0),
            image=lambda variables: (np.where(np.eye(CLASSES), 0, image[0]) * differences, image[1]),
        ),
    )
    logits = images.reshape(24, -1).astype(np.float64) @ weights
    return classifiers.classifier(model, model.init(None)), *hyperplanes(logits, weights.astype(np.float64))


@pytest.mark.parametrize(("image", "factor"), [((1.0, 0.0), 0.0), ((2.0, 0.1), 0.0), ((1.0, 0.0), 0.9)])
def test_radius_is_distance_to_hyperplane(image, factor):
    classifier, labels, truth = own(image, factor)
    found = ds.certify_without_noise(classifier, images)
    slope, error = image
    truth = np.maximum(truth - error, 0) / slope
    assert (found.labels == labels).all() and (found.radii <= truth).all()
    np.testing.assert_allclose(found.radii, truth, rtol=2e-3, atol=2e-4)


def test_unfinished_solve_lowers_radius(monkeypatch):
    classifier, _, truth = own((1.0, 0.0), 0.5)
    monkeypatch.setattr(without_noise, "_BUDGET", 4)
    found = ds.certify_without_noise(classifier, images)
    assert (found.evaluations == 5).all()
    assert (found.radii <= truth - 0.01).all() and (found.radii > 0).any()


def test_radius_needs_a_proved_class():
    """Where two logits are equal nothing is certified."""
    classifier = own((1.0, 0.0))[0]
    assert ds.certify_without_noise(classifier, np.zeros((1, SIDE, SIDE, 1))).radii.tolist() == [0.0]
    alike = own((1e-3, 0.0), reach=np.zeros((CLASSES, CLASSES)))[0]
    assert np.isfinite(ds.certify_without_noise(alike, images).radii).all()


def test_form_of_images_does_not_matter():
    classifier = made(MONOTONE)
    pixels = np.resize((255 * images).astype(np.uint8), (101, SIDE, SIDE, 1))
    found = ds.certify_without_noise(classifier, pixels)
    assert found.radii.shape == found.labels.shape == found.evaluations.shape == (101,)
    with jax.enable_x64(True):
        wide = ds.certify_without_noise(classifier, pixels[-1:].astype(np.float64) / 255)
    np.testing.assert_allclose(found.radii[-1], wide.radii[0], rtol=2e-3)
    assert found.labels[-1] == wide.labels[0]


def test_size_with_lipschitz_is_kept(tmp_path):
    classifier = made(CONTRACTION)
    ds.save(tmp_path / "model", classifier)
    read = ds.load(tmp_path / "model")
    assert read.size == CONTRACTION
    before, after = (ds.certify_without_noise(one, images).radii for one in (classifier, read))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("image", [(-1.0, 0.0), (1e999, 0.0), (1.0, -1.0), (1.0, np.nan)])
def test_impossible_constants_are_refused(image):
    with pytest.raises(ValueError, match="of image of the contraction is"):
        ds.certify_without_noise(own(image)[0], images)


def test_models_without_constants_are_refused():
    free = dataclasses.replace(CONTRACTION, lipschitz=None, width=8)
    untrained = ds.classifier(free, ds.build(free).init(jax.random.key(0)))
    with pytest.raises(ValueError, match="has no Lipschitz constant"):
        ds.certify_without_noise(untrained, images)
    with pytest.raises(ValueError, match="has no Lipschitz constant"):
        ds.certify_without_noise(ds.load_checkpoint("digits", 0.5), np.zeros((1, 8, 8, 1)))
    with pytest.raises(ValueError, match="lipschitz is -1"):
        dataclasses.replace(CONTRACTION, lipschitz=-1.0)
