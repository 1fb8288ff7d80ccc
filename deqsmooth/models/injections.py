"""Injections of models whose state has branches: a network of the image, or a linear map of it."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, branches, layers

_GROUPS = 8
_KERNEL = nn.initializers.lecun_normal()


class Network(nn.Module):
    """A residual network of the image, which may be anything, with an output for every branch."""

    size: architecture.Branched

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """Returns the injection of images in [0, 1] [lanes, H, W, C]."""
        width = self.size.width
        x = layers.standardise(images, self.size.mean, self.size.std)
        x = layers.Conv(width, name="conv")(layers.blocks_to_channels(x, self.size.patch))
        outputs = []
        for branch, channels in enumerate(self.size.channels):
            if branch:
                x = layers.Conv(width, size=1, name=f"down_{branch}")(layers.blocks_to_channels(nn.relu(x), 2))
            for block in range(self.size.blocks):
                y = nn.relu(layers.GroupNorm(_GROUPS, name=f"norm_{branch}_{block}")(x))
                x = x + layers.Conv(width, name=f"block_{branch}_{block}")(y)
            y = nn.relu(layers.GroupNorm(_GROUPS, name=f"norm_out_{branch}")(x))
            outputs.append(layers.Conv(channels, size=1, use_bias=True, name=f"out_{branch}")(y))
        return tuple(outputs)


class Linear(nn.Module):
    """A linear map of the image, with a bias by channel.

    Attributes:
      size: size of the model.
      is_normalised: whether the norm of the map is at most 1 in pixels.
    """

    size: architecture.Branched
    is_normalised: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """Returns the injection of images in [0, 1] [lanes, H, W, C]."""
        size, num = self.size, len(self.size.channels)
        pixels = size.image_shape[2] * size.patch**2
        shapes = [branches.shape(pixels, channels, i) for i, channels in enumerate(size.channels)]
        params = {f"kernel_{i}": self.param(f"kernel_{i}", _KERNEL, shape) for i, shape in enumerate(shapes)}
        params["weights"] = self.param("weights", nn.initializers.ones, (num, 1))
        biases = [self.param(f"bias_{i}", nn.initializers.zeros, (size.channels[i],)) for i in range(num)]
        x = layers.blocks_to_channels(layers.standardise(images, size.mean, (1.0,)), size.patch)
        return branches.mapped(kernels(params, is_normalised=self.is_normalised), (x,), biases)


def kernels(params: types.Parameters, *, is_normalised: bool) -> bounds.Kernels:
    """The map of a linear injection [to][1]: rescaled kernels, each times its weight.

    Its norm is at most that of the weights, which is made 1 if the map is normalised.
    """
    weights = jnp.asarray(params["weights"])
    if is_normalised:
        weights = weights / jnp.sqrt(jnp.sum(weights**2))
    return bounds.weighed([[params[f"kernel_{i}"]] for i in range(len(weights))], weights)


def of_linear(
    size: architecture.Branched, params: types.Parameters, *, is_normalised: bool
) -> tuple[float, float]:
    """Upper bounds on the norm of a linear injection, and on its float32 rounding for images in [0, 1]."""
    table = jax.jit(kernels, static_argnames="is_normalised")(params, is_normalised=is_normalised)
    shapes = branches.shapes(size)
    table, biases = branches.in_float64((table, [params[f"bias_{i}"] for i in range(len(shapes))]))
    bias = math.sqrt(sum(h * w * (b**2).sum() for (h, w, _), b in zip(shapes, biases, strict=True)))
    # A pixel is rounded when its mean is subtracted, a sum of products when it is computed and with its bias.
    largest = math.sqrt(math.prod(size.image_shape)) * (1 + max(map(abs, size.mean)))
    num_terms = max(row[0][..., 0].size for row in table) + 3
    error = bounds.rounding(table, 3) * largest + bounds.of_sum(num_terms) * bias
    return bounds.norm(table) * bounds.OUTWARDS, error
