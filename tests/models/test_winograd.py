"""Convolution by fewer products: against sums of products in float64, and where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import correlated

from deqsmooth.models import layers, winograd

PADDING = ((1, 1), (1, 1))


def made(lanes, height, width, channels, features, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(lanes, height, width, channels)).astype(dtype)
    kernel = rng.normal(size=(3, 3, channels, features)) / np.sqrt(9 * channels)
    return x, kernel.astype(dtype)


@pytest.mark.parametrize(
    ("lanes", "height", "width", "channels", "features"),
    [(1, 4, 4, 3, 2), (3, 8, 4, 2, 5), (67, 4, 8, 2, 2), (23, 8, 8, 1, 2), (2, 36, 40, 1, 1)],
)
def test_same_as_sums_of_products(lanes, height, width, channels, features):
    """Any number of lanes and tiles, also where blocks of lanes are filled up."""
    x, kernel = made(lanes, height, width, channels, features)
    found = np.asarray(jax.jit(winograd.convolve)(x, kernel))
    expected = correlated(x, kernel, 1, PADDING)
    assert found.dtype == np.float32
    assert np.sqrt(np.mean((found - expected) ** 2)) < 2e-6 * expected.std()


def test_exact_in_float64():
    x, kernel = made(3, 8, 8, 4, 3, np.float64)
    with jax.enable_x64(True):
        found = np.asarray(winograd.convolve(jnp.asarray(x), jnp.asarray(kernel)))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, correlated(x, kernel, 1, PADDING), atol=1e-13)


def test_derivatives_of_fast_convolutions():
    x, kernel = map(jnp.asarray, made(5, 8, 8, 24, 32))
    assert winograd.suits(x, kernel.shape, 1, PADDING)

    def loss(fast):
        return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(layers.convolve(x, kernel, 1, PADDING, fast))), (0, 1))

    for found, expected in zip(loss(True)(x, kernel), loss(False)(x, kernel), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "suits"),
    [
        ((2, 8, 8, 32), (3, 3, 32, 32), 1, PADDING, True),
        ((2, 8, 8, 16), (3, 3, 16, 80), 1, PADDING, True),
        ((2, 8, 8, 8), (3, 3, 8, 40), 1, PADDING, False),
        ((2, 8, 8, 16), (3, 3, 16, 16), 1, PADDING, False),
        ((2, 8, 8, 32), (1, 1, 32, 32), 1, ((0, 0), (0, 0)), False),
        ((2, 8, 8, 32), (5, 5, 32, 32), 1, ((2, 2), (2, 2)), False),
        ((2, 8, 8, 32), (3, 3, 32, 32), 2, PADDING, False),
        ((2, 8, 8, 32), (3, 3, 32, 32), 1, ((0, 0), (0, 0)), False),
        ((2, 6, 8, 32), (3, 3, 32, 32), 1, PADDING, False),
    ],
)
def test_used_where_it_is_the_same_function_and_pays(shape, kernel, stride, padding, suits):
    assert winograd.suits(jnp.zeros(shape), kernel, stride, padding) == suits


def test_not_used_in_bfloat16():
    assert not winograd.suits(jnp.zeros((2, 8, 8, 32), jnp.bfloat16), (3, 3, 32, 32), 1, PADDING)


def test_other_devices_have_their_own():
    """A GPU gets the plain convolution, for which its library chooses the method."""
    x, kernel = map(jnp.asarray, made(2, 8, 8, 32, 32))
    fast = jax.jit(lambda x, kernel: layers.convolve(x, kernel, 1, PADDING, True)).trace(x, kernel)
    assert "convolution" in fast.lower(lowering_platforms=("cuda",)).as_text()
    assert "convolution" not in fast.lower(lowering_platforms=("cpu",)).as_text()
