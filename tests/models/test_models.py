"""Properties of the models of every family."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from deqsmooth import models, solvers, types
from deqsmooth.config import architecture
from deqsmooth.models import starts

TINY = architecture.MdeqModel(image_shape=(8, 8, 3), channels=(8, 16), head_channels=(2, 3), final_channels=6)


@pytest.fixture(params=["conv", "toy", "mdeq"], scope="module")
def model(request) -> types.Model:
    if request.param == "toy":
        return toy.build()
    return models.build(architecture.ConvModel() if request.param == "conv" else TINY)


@pytest.fixture(scope="module")
def variables(model):
    return model.init(jax.random.key(0))


@pytest.fixture
def images(model):
    return jax.random.uniform(jax.random.key(3), (5, *model.image_shape))


def test_shapes_and_structures(model, variables, images):
    u, _ = jax.jit(model.inject)(variables, images, None)
    z = model.initial_state(u)
    after = jax.jit(lambda variables: model.cell(model.bind(variables), z, u))(variables)
    assert jax.tree.structure(after) == jax.tree.structure(z)
    assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(z)]
    assert all(len(x) == 5 and x.dtype == jnp.float32 for x in jax.tree.leaves(after))
    assert not any(x.any() for x in jax.tree.leaves(z))
    logits = jax.eval_shape(lambda z: model.readout(variables, z, False)[0], after)
    assert logits.shape == (5, model.num_classes)


def test_lanes_are_independent(model, variables, images):
    @jax.jit
    def logits(images):
        u, _ = model.inject(variables, images, None)
        z = solvers.build("plain", 3).solve(
            lambda z: model.cell(model.bind(variables), z, u), starts.zero(model)(u)
        )
        return model.readout(variables, z.value, False)[0]

    order = np.array([3, 1, 4, 0, 2])
    # Programs for different batch sizes differ in float32 rounding.
    np.testing.assert_allclose(logits(images)[order], logits(images[order]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits(images)[2:3], logits(images[2:3]), rtol=1e-5, atol=1e-5)
    changed = images.at[0].set(0.0)
    np.testing.assert_array_equal(logits(images)[1:], logits(changed)[1:])


def test_evaluation_does_not_change_variables(model, variables, images):
    u, after = jax.jit(model.inject)(variables, images, None)
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), variables, after))
    _, after = jax.jit(model.readout, static_argnums=2)(variables, model.initial_state(u), False)
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), variables, after))


def test_parameter_count_of_convolutional_deq():
    variables = models.build(architecture.ConvModel()).init(jax.random.key(0))
    count = sum(x.size for x in jax.tree.leaves(variables))
    channels, wide = 24, 48
    weights = 9 * channels + 2 * 9 * channels * wide + 16 * channels * 10
    affine = 2 * (channels + wide + channels + channels) + 10
    assert count == weights + affine
    assert 20_000 <= count <= 50_000


def test_injection_standardises_images():
    size = architecture.ConvModel()
    shifted = dataclasses.replace(size, mean=(0.305 - 0.1,))
    variables = models.build(size).init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(3), (2, 8, 8, 1))
    ours, _ = models.build(size).inject(variables, images, None)
    theirs, _ = models.build(shifted).inject(variables, images - 0.1, None)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_bfloat16_rounds_only_inside_cell(model, variables, images):
    assert models.with_cell_dtype(model, "float32") is model
    rounded = models.with_cell_dtype(model, "bfloat16")
    keys = jax.random.split(jax.random.key(1), 5)
    u, updated = jax.jit(rounded.inject)(variables, images, keys)
    expected_u, expected_updated = jax.jit(model.inject)(variables, images, keys)
    jax.tree.map(np.testing.assert_array_equal, updated, expected_updated)
    z = jax.tree.map(lambda x: jax.random.normal(jax.random.key(2), x.shape), model.initial_state(expected_u))

    def evaluation(model, u):
        return lambda variables: model.cell(model.bind(variables), z, u)

    after = jax.jit(evaluation(rounded, u))(variables)
    expected = jax.jit(evaluation(model, expected_u))(variables)
    assert {x.dtype for x in jax.tree.leaves((rounded.initial_state(u), after))} == {jnp.dtype("float32")}
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(expected), strict=True):
        # A dozen successive roundings to 8 bits (0.4 %).
        error = jnp.sqrt(jnp.mean((x - y) ** 2) / jnp.mean(y**2))
        assert 1e-4 < error < 0.03

    def power(variables):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(evaluation(rounded, u)(variables)))

    gradient = jax.jit(jax.grad(power))(variables)
    assert {x.dtype for x in jax.tree.leaves(gradient["params"])} == {jnp.dtype("float32")}


def test_bfloat16_injection_keeps_float32_gradients():
    size = architecture.ContractionModel(image_shape=(8, 8, 1), channels=(8,), width=8)
    model, images = models.build(size), jax.random.uniform(jax.random.key(3), (5, 8, 8, 1))
    rounded, variables = models.with_injection_dtype(model, "bfloat16"), model.init(jax.random.key(0))
    assert models.with_injection_dtype(model, "float32") is model

    def power(variables, model):
        u, after = model.inject(variables, images, None)
        assert after is variables
        return jnp.sum(u[0] ** 2), u[0]

    (gradient, found), (expected, exact) = (
        jax.jit(jax.grad(lambda v, m=m: power(v, m), has_aux=True))(variables) for m in (rounded, model)
    )
    assert found.dtype == jnp.float32
    assert 1e-4 < jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact) < 0.03
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        # Sums over all pixels, whose terms partly cancel.
        assert x.dtype == jnp.float32 and jnp.linalg.norm(x - y) <= 0.2 * jnp.linalg.norm(y)


def test_bfloat16_injection_refuses_batch_statistics():
    model = models.with_injection_dtype(models.build(TINY), "bfloat16")
    with pytest.raises(ValueError, match="injection_dtype is bfloat16; it must be float32 for a model with batch"):
        model.inject(model.init(jax.random.key(0)), jnp.zeros((1, 8, 8, 3)), None)


FAMILIES = {
    "conv": architecture.ConvModel(channels=8, expansion=1, num_groups=4),
    "mdeq": architecture.MdeqModel(channels=(8, 8), head_channels=(2, 2), final_channels=4, dropout=0.3),
    "resnet": architecture.ResnetModel(
        image_shape=(8, 8, 1), blocks=(1, 1), channels=(16, 32), mean=(0.305,), std=(0.376,)
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("train", [False, True])
def test_no_promotion_is_needed(family, train):
    model = models.build(FAMILIES[family])
    images = jnp.zeros((2, *model.image_shape), jnp.float32)

    def explicit(key):
        return model.apply(model.init(key), images, train)

    def equilibrium(key):
        variables = model.init(key)
        u, _ = model.inject(variables, images, jax.random.split(key, 2) if train else None)
        z = model.cell(model.bind(variables), model.initial_state(u), u)
        network = models.build_start(architecture.StartModel(width=8), model)
        return model.readout(variables, z, train), network.apply(network.init(key), u)

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(explicit if family == "resnet" else equilibrium, jax.random.key(0))
