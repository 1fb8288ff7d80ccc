"""Convolution by strips: against sums of products in float64, and where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import correlated

from deqsmooth.models import layers, strips


def made(shape, window, features, dtype=np.float32):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(window, window, shape[-1], features))
    return rng.normal(size=shape).astype(dtype), kernel.astype(dtype)


@pytest.mark.parametrize(
    ("shape", "window", "features", "stride", "padding"),
    [
        ((2, 8, 8, 3), 3, 8, 1, ((1, 1), (1, 1))),
        ((2, 6, 7, 2), 3, 5, 1, ((1, 1), (1, 1))),
        ((2, 9, 11, 2), 3, 4, 2, ((1, 1), (1, 1))),
        ((1, 8, 13, 1), 5, 2, 2, ((0, 1), (2, 3))),
        ((3, 5, 3, 2), 3, 1, 1, ((0, 0), (0, 0))),
        ((1, 8, 8, 1), 3, 4, 2, ((0, 0), (0, 0))),
        ((1, 12, 40, 1), 3, 6, 3, ((1, 0), (0, 1))),
    ],
)
def test_same_as_sums_of_products(shape, window, features, stride, padding):
    """Also where the last strip ends outside of the image, and where all outputs are one column."""
    x, kernel = made(shape, window, features)
    found = np.asarray(strips.convolve(jnp.asarray(x), jnp.asarray(kernel), stride, padding))
    expected = correlated(x, kernel, stride, padding)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=5e-6 * expected.std())


def test_derivatives():
    x, kernel = map(jnp.asarray, made((3, 8, 8, 3), 3, 8))
    padding = ((1, 1), (1, 1))
    assert strips.suits(kernel.shape, 1)

    def slopes(fast):
        return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(layers.convolve(x, kernel, 1, padding, fast))), (0, 1))

    for found, expected in zip(slopes(True)(x, kernel), slopes(False)(x, kernel), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("kernel", "stride", "suits"),
    [
        ((3, 3, 3, 8), 1, True),
        ((3, 3, 8, 8), 1, True),
        ((3, 3, 1, 16), 2, True),
        ((3, 3, 8, 8), 2, False),
        ((3, 3, 8, 16), 1, False),
        ((3, 3, 1, 24), 1, False),
        ((1, 1, 3, 8), 1, False),
    ],
)
def test_used_where_channels_are_few(kernel, stride, suits):
    assert strips.suits(kernel, stride) == suits


def test_only_on_a_cpu_and_only_where_any_order_of_the_sums_is_right():
    x, kernel = map(jnp.asarray, made((2, 8, 8, 3), 3, 8))

    def windows(platform, fast):
        convolve = jax.jit(lambda x, kernel: layers.convolve(x, kernel, 1, ((1, 1), (1, 1)), fast))
        text = convolve.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        return "3x6x3x32" in text

    assert windows("cpu", True)
    assert not windows("cpu", False)
    assert not windows("cuda", True)
