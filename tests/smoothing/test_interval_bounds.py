"""Certificates in L-infinity: against hyperplanes in closed form, and against equilibria of corners of the box."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import deqsmooth as ds
from deqsmooth import types

SIDE, CLASSES = 4, 3
COMMON = {"image_shape": (SIDE, SIDE, 1), "num_classes": CLASSES, "pooled": 1, "patch": 2, "lipschitz": 6.0}
SIZES = [
    ds.ContractionModel(channels=(5, 6), factor=0.4, **COMMON),
    ds.ContractionModel(channels=(4,), factor=0.0, **COMMON),
    ds.MonotoneModel(channels=(4, 3), modulus=2.0, **COMMON),
]
images = np.asarray(jax.random.uniform(jax.random.key(2), (24, SIDE, SIDE, 1)))


def names(size):
    return f"{type(size).__name__}-{len(size.channels)}"


def made(size):
    """A classifier whose biases leave much of the state positive."""
    variables = jax.tree.map(np.asarray, ds.build(size).init(jax.random.key(0)))
    for i, channels in enumerate(size.channels):
        variables["params"]["inject"][f"bias_{i}"] = np.full(channels, 0.3, np.float32)
    return ds.classifier(size, jax.tree.map(jnp.asarray, variables))


def affine(factor):
    """A contraction that is affine: the injection is the patches plus 2, the cell `factor z + u` of positive z."""
    size = ds.ContractionModel(channels=(4,), factor=factor, **COMMON)
    variables = jax.tree.map(np.asarray, ds.build(size).init(jax.random.key(0)))
    identity = np.zeros((3, 3, 4, 4), np.float32)
    identity[1, 1] = np.eye(4)
    inject, cell = variables["params"]["inject"], variables["params"]["cell"]
    inject["kernel_0"], inject["bias_0"] = identity, np.full(4, 2.0, np.float32)
    cell["kernels"], cell["weights"] = [[identity]], np.ones((1, 1), np.float32)
    # The mean of the images is on all hyperplanes.
    mean = equilibria(ds.classifier(size, jax.tree.map(jnp.asarray, variables)), images.mean(0, keepdims=True))
    variables["params"]["readout"]["bias"] = -mean[0]
    return ds.classifier(size, jax.tree.map(jnp.asarray, variables))


def equilibria(classifier, pixels):
    """Logits of the equilibria of images."""
    return np.asarray(compiled(classifier.size)(classifier.variables, jnp.asarray(pixels)))


@functools.cache
def compiled(size):
    return jax.jit(functools.partial(logits, ds.build(size)))


def logits(model, variables, pixels):
    """Logits of equilibria, differentiable."""
    params, (u, _) = model.bind(variables), model.inject(variables, pixels, None)
    z, _ = lax.scan(lambda z, _: (model.cell(params, z, u), None), model.initial_state(u), length=200)
    return model.readout(variables, z, False)[0]


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9])
def test_exact_for_affine_networks(factor):
    """The least epsilon that reaches a hyperplane is the margin over the L1 norm of its normal."""
    classifier = affine(factor)
    inside = images.mean(0) + 0.4 * (images - images.mean(0))
    found = equilibria(classifier, inside)
    one = functools.partial(logits, classifier.model, classifier.variables)
    slopes = jax.jit(jax.jacobian(lambda x: one(x[None])[0]))(jnp.asarray(inside[0]))
    norms = np.abs(np.asarray(slopes)[:, None] - np.asarray(slopes)).sum((2, 3, 4))
    for image, row in zip(inside[:4], found, strict=False):
        own = row.argmax()
        others = np.arange(CLASSES) != own
        reached = float(((row[own] - row[others]) / norms[own, others]).min())
        assert 0 < reached < min(image.min(), 1 - image.max()), "the box must not reach 0 or 1"
        assert ds.certify_box(classifier, image[None], 0.999 * reached - 1e-6).is_certified.all()
        assert not ds.certify_box(classifier, image[None], 1.001 * reached + 1e-6).is_certified.any()


@pytest.mark.parametrize("size", SIZES, ids=names)
def test_no_image_of_the_box_has_another_class(size):
    """Corners of the boxes, at random and along the gradient of every margin."""
    classifier = made(size)
    one = functools.partial(logits, classifier.model, classifier.variables)
    margins = jax.jit(jax.jacobian(lambda x: one(x[None])[0]))
    slopes = np.stack([np.asarray(margins(jnp.asarray(image))) for image in images])
    rng = np.random.default_rng(0)
    certified = refuted = 0
    for epsilon in (0.0, 0.003, 0.01, 0.03, 0.1, 0.3):
        found = ds.certify_box(classifier, images, epsilon)
        np.testing.assert_array_equal(found.labels, equilibria(classifier, images).argmax(-1))
        signs = list(rng.choice([-1, 1], (20, *images.shape)))
        rows = np.arange(len(images))
        signs += [np.sign(slopes[:, other] - slopes[rows, found.labels]) for other in range(CLASSES)]
        changed = np.clip(images + epsilon * np.stack(signs), 0, 1).astype(np.float32)
        changed = equilibria(classifier, changed.reshape(-1, *images.shape[1:])).argmax(-1)
        is_kept = (changed.reshape(len(signs), -1) == found.labels).all(0)
        assert is_kept[found.is_certified].all()
        certified += found.is_certified.sum()
        refuted += (~is_kept).sum()
    assert certified > 20
    assert refuted > 5


@pytest.mark.parametrize("size", SIZES, ids=names)
def test_functions_on_boxes_contain_those_of_members(size):
    """Of a box with members on all its faces; for a point the radius is 0 and the centre is the function."""
    classifier = made(size)
    model, variables, rng = classifier.model, classifier.variables, np.random.default_rng(1)
    boxes, params = model.contraction.boxes, model.bind(classifier.variables)

    def box(like):
        return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0, 0.2, x.shape), jnp.float32), like)

    def member(of, sign):
        return jax.tree.map(lambda c, r: c + jnp.asarray(sign(c.shape), jnp.float32) * r, of.centre, of.radius)

    def assert_contains(of, x):
        jax.tree.map(lambda c, r, x: np.testing.assert_array_less(abs(x - c), r + 1e-5), of.centre, of.radius, x)

    pixels = types.Box(jnp.asarray(images), box(jnp.asarray(images)))
    u = boxes.inject(variables, pixels)
    z = types.Box(box(u.centre), box(u.centre))
    after = boxes.cell(params, z, u)
    for _ in range(50):
        sign = functools.partial(rng.choice, [-1.0, 1.0])
        own = model.inject(variables, member(pixels, sign), None)[0]
        assert_contains(u, own)
        assert_contains(after, model.cell(params, member(z, sign), member(u, sign)))
    point = jax.tree.map(jnp.zeros_like, u.centre)
    alone = boxes.cell(params, types.Box(z.centre, point), types.Box(u.centre, point))
    expected = model.cell(params, z.centre, u.centre)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), alone.centre, expected)
    assert max(float(x.max()) for x in jax.tree.leaves(alone.radius)) == 0


def test_nothing_is_certified_where_boxes_grow():
    """Absolute values of a cell need not be a contraction; then no box of states is found."""
    size = ds.ContractionModel(image_shape=(8, 8, 1), channels=(16, 16), factor=0.99, lipschitz=4.0)
    classifier = made(size)
    classifier.variables["params"]["cell"]["kernels"] = jax.tree.map(
        lambda x: np.random.default_rng(0).choice([-1, 1], x.shape).astype(np.float32),
        classifier.variables["params"]["cell"]["kernels"],
    )
    found = ds.certify_box(classifier, np.full((2, 8, 8, 1), 0.5, np.float32), 0.01)
    assert not found.is_certified.any()


@pytest.mark.parametrize("epsilon", [-0.1, float("inf"), float("nan")])
def test_epsilon_is_checked(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        ds.certify_box(made(SIZES[0]), images, epsilon)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="ContractionModel or MonotoneModel with lipschitz"):
        ds.certify_box(ds.load_checkpoint("digits", 0.5, "proof"), images, 0.1)
