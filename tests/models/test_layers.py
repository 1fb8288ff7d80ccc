"""Layers against the implementations of lax and Linen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deqsmooth.models import layers

GEOMETRIES = [
    (8, 3, 1, 1), (9, 3, 2, 1), (8, 3, 2, 1), (8, 1, 1, 0), (7, 5, 3, 2), (8, 2, 2, 0), (10, 3, 3, 0),
    (2, 3, 1, 1), (2, 3, 2, 1), (2, 2, 1, 0), (1, 3, 1, 1), (2, 1, 1, 0),
]  # fmt: skip


def reference(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arguments(size, window):
    x = jax.random.normal(jax.random.key(0), (3, size, size, 4))
    return x, jax.random.normal(jax.random.key(1), (window, window, 4, 5))


@pytest.mark.parametrize(("size", "window", "stride", "pad"), GEOMETRIES)
def test_convolution_and_gradients_equal_lax(size, window, stride, pad):
    x, kernel = arguments(size, window)
    padding = ((pad, pad), (pad, pad))
    results = []
    for conv in (layers.convolve, reference):

        def loss(x, kernel, conv=conv):
            return jnp.sum(jnp.sin(conv(x, kernel, stride, padding)))

        def curvature(kernel, conv=conv, x=x):
            y, pull_back = jax.vjp(lambda x: jnp.tanh(conv(x, kernel, stride, padding)), x)
            return jnp.sum(pull_back(jnp.ones_like(y))[0] ** 2)

        first = jax.grad(loss, argnums=(0, 1))(x, kernel)
        results.append((conv(x, kernel, stride, padding), *first, jax.grad(curvature)(kernel)))
    for ours, theirs in zip(*results, strict=True):
        # Sums of at most a few hundred products in a different order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("affine", [True, False])
def test_group_norm_equals_two_pass_form(affine):
    # A mean of ten standard deviations, more than in any activation of the models.
    x = 10 + jax.random.normal(jax.random.key(0), (3, 4, 4, 8))
    scale, bias = (jnp.linspace(0.5, 2, 8), jnp.linspace(-1, 1, 8)) if affine else (None, None)
    ours = layers.group_norm(x, 4, scale, bias)
    norm = nn.GroupNorm(
        4, epsilon=1e-5, use_scale=affine, use_bias=affine, use_fast_variance=False, dtype=jnp.float32
    )
    theirs = norm.apply({"params": {"scale": scale, "bias": bias}} if affine else {}, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_group_norm_of_constant_is_zero():
    x = jnp.full((2, 4, 4, 8), 1234.5)
    np.testing.assert_allclose(layers.group_norm(x, 4, None, None), 0.0, atol=0.2)


def test_strided_convolution_aligns_like_pytorch():
    conv = layers.Conv(1, size=3, stride=2)
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    # Padding of 1 on both sides centres the windows on even pixels; SAME would centre them on odd pixels.
    y = conv.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_array_equal(y[0, ..., 0], [[0, 2], [8, 10]])


class Normalised(nn.Module):
    affine: bool
    bias: bool
    folded: bool

    @nn.compact
    def __call__(self, x, train):
        conv = layers.Conv(5, stride=2, use_bias=self.bias, name="conv")
        if self.folded:
            return layers.conv_batch_norm(conv, x, train, "norm", affine=self.affine)
        norm = nn.BatchNorm(
            not train, momentum=0.9, epsilon=1e-5, use_scale=self.affine, use_bias=self.affine, name="norm"
        )
        return norm(conv(x))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_folded_batch_norm_equals_linen(affine, bias):
    x, _ = arguments(8, 3)
    here, there = (Normalised(affine, bias, folded) for folded in (True, False))
    variables = there.init(jax.random.key(2), x, False)
    jax.tree.map(np.testing.assert_array_equal, variables, here.init(jax.random.key(2), x, False))
    random = iter(jax.random.split(jax.random.key(3), 9))
    variables = jax.tree.map(lambda v: jax.random.uniform(next(random), v.shape, minval=0.2), variables)
    for train in (False, True):
        found, expected = (module.apply(variables, x, train, mutable=["batch_stats"]) for module in (here, there))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
