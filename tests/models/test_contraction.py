"""The contraction: its constants against dense matrices, derivatives and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from deqsmooth import models
from deqsmooth.config import architecture

SIZES = [
    architecture.ContractionModel(channels=(5,), width=8, factor=0.5),
    architecture.ContractionModel(channels=(3, 4), width=8, factor=0.95, num_classes=4),
    architecture.ContractionModel(channels=(2, 3, 5), width=8, factor=0.8, pooled=1, image_shape=(8, 8, 2)),
]


def made(size, seed=0, scale=1.0):
    """A model and its variables, with the kernels of the cell made more alike than at random."""
    model = models.build(size)
    variables = model.init(jax.random.key(seed))
    cell = variables["params"]["cell"]
    cell["kernels"] = jax.tree.map(lambda x: x + scale * jnp.mean(jnp.abs(x)), cell["kernels"])
    return model, variables


def state_of(size, num_lanes=1):
    height, width, _ = size.image_shape
    return tuple(jnp.zeros((num_lanes, height >> i, width >> i, c)) for i, c in enumerate(size.channels))


def matrix(model, variables, size):
    """The linear part of the cell as a dense matrix, from its columns."""
    flat, unravel = ravel_pytree(state_of(size))
    params, far = model.bind(variables), jax.tree.map(lambda x: x + 100.0, state_of(size))

    def linear(z):
        return ravel_pytree(model.cell(params, unravel(z), far))[0]

    columns = jax.vmap(linear)(jnp.eye(len(flat))) - linear(flat)
    return np.asarray(columns, np.float64).T


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size.channels))
@pytest.mark.parametrize("scale", [pytest.param(0.0, marks=pytest.mark.slow), 3.0])
def test_factor_bounds_the_dense_norm(size, scale):
    model, variables = made(size, scale=scale)
    truth = np.linalg.norm(matrix(model, variables, size), 2)
    bound = model.contraction.factor(variables)
    assert truth <= bound <= size.factor * (1 + 1e-3)
    if scale and size.channels == (5,):
        # Kernels with one sign reach the bound up to what zero padding takes.
        assert truth > 0.75 * bound


def test_weights_raise_the_factor():
    """A bound that ignored the parts between branches would miss this."""
    model, variables = made(SIZES[1], scale=3.0)
    variables["params"]["cell"]["weights"] = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    truth = np.linalg.norm(matrix(model, variables, SIZES[1]), 2)
    assert 0.5 * SIZES[1].factor < truth <= model.contraction.factor(variables)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size.channels))
def test_reach_is_that_of_derivatives(size):
    model, variables = made(size)
    flat, unravel = ravel_pytree(state_of(size))
    gradients = np.asarray(jax.jacrev(lambda z: model.readout(variables, unravel(z))[0][0])(flat))
    truth = np.linalg.norm(gradients[:, None] - gradients[None], axis=-1)
    np.testing.assert_allclose(model.contraction.reach(variables), truth, rtol=1e-3, atol=1e-6)
    assert (model.contraction.reach(variables) >= truth - 1e-6).all()


@pytest.mark.parametrize("magnitude", [1.0, 1e3])
def test_rounding_is_below_its_bound(magnitude):
    size = SIZES[1]
    model, variables = made(size)
    params = model.bind(variables)
    rng = np.random.default_rng(3)
    z, u = (jax.tree.map(lambda x: magnitude * rng.normal(size=(20, *x.shape[1:])), state_of(size)) for _ in "zu")
    z, u = (jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), x) for x in (z, u))
    found, logits = model.cell(params, z, u), model.readout(variables, z)[0]
    with jax.enable_x64(True):
        z, u, params, wide = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x, np.float64)), (z, u, params, variables)
        )
        truth, exact = jax.tree.map(np.asarray, (model.cell(params, z, u), model.readout(wide, z)[0]))
        z, u = jax.tree.map(np.asarray, (z, u))
    norms = [np.sqrt(sum((np.asarray(x) ** 2).sum((1, 2, 3)) for x in one)) for one in (z, u)]
    error = np.sqrt(
        sum(((np.asarray(a, np.float64) - b) ** 2).sum((1, 2, 3)) for a, b in zip(found, truth, strict=True))
    )
    a, b = model.contraction.rounding(variables)
    assert (error > 0).all() and (error <= a * norms[0] + b * norms[1]).all()
    a, b = model.contraction.readout_rounding(variables)
    assert (np.abs(np.asarray(logits, np.float64) - exact).max(1) <= a * norms[0] + b).all()


def test_cell_has_one_equilibrium():
    """From anywhere it is reached, at the rate of the factor."""
    model, variables = made(SIZES[1])
    params = model.bind(variables)
    u, _ = model.inject(variables, jax.random.uniform(jax.random.key(1), (1, 8, 8, 1)), None)
    z = [jax.tree.map(lambda x, s=s: x + s, state_of(SIZES[1])) for s in (-7.0, 50.0)]
    for _ in range(500):
        z = [model.cell(params, one, u) for one in z]
    np.testing.assert_allclose(*(ravel_pytree(one)[0] for one in z), atol=1e-5)


def test_factor_zero_ignores_the_state():
    size = architecture.ContractionModel(channels=(3, 4), width=8, factor=0.0)
    model, variables = made(size)
    assert model.contraction.factor(variables) == 0
    u, _ = model.inject(variables, jnp.ones((1, 8, 8, 1)), None)
    params = model.bind(variables)
    one, other = (model.cell(params, jax.tree.map(lambda x, s=s: x + s, state_of(size)), u) for s in (0.0, 9.0))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_wide_cells_stay_sums_of_products():
    """The bound on their rounding is that of sums. The injection needs none, and is computed by fewer products."""
    size = architecture.ContractionModel(channels=(32, 64), width=64)
    model = models.build(size)
    variables = model.init(jax.random.key(0))
    images = jnp.zeros((2, 8, 8, 1))
    u = model.inject(variables, images, None)[0]
    cell = jax.jit(model.cell).lower(model.bind(variables), model.initial_state(u), u).as_text()
    assert cell.count("stablehlo.convolution") == 4
    assert "stablehlo.dot_general" not in cell
    injection = jax.jit(lambda images: model.inject(variables, images, None)[0]).lower(images).as_text()
    assert "stablehlo.dot_general" in injection
