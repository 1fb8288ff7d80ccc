"""Residual networks (He et al. 2016): takes a size, gives a `types.Explicit`.

Cohen et al. (2019) introduced randomized smoothing with ResNet-110 for CIFAR-10 and ResNet-50 for ImageNet.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import layers

_BOTTLENECK_EXPANSION = 4


class _Block(nn.Module):
    channels: int
    stride: int
    bottleneck: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        normalised = functools.partial(layers.conv_batch_norm, train=train, axis_name=self.axis_name)
        if self.bottleneck:
            features = _BOTTLENECK_EXPANSION * self.channels
            convolutions = [(self.channels, 1, 1), (self.channels, 3, self.stride), (features, 1, 1)]
        else:
            features = self.channels
            convolutions = [(features, 3, self.stride), (features, 3, 1)]
        y = x
        for index, (channels, window, stride) in enumerate(convolutions):
            conv = layers.Conv(channels, window, stride, name=f"conv_{index}")
            y = normalised(conv, nn.relu(y) if index else y, name=f"norm_{index}")
        if self.stride > 1 or x.shape[-1] != features:
            x = normalised(layers.Conv(features, 1, self.stride, name="project"), x, name="project_norm")
        return nn.relu(x + y)


class _Resnet(nn.Module):
    size: architecture.ResnetModel
    axis_name: str | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        size, wide = self.size, self.size.stem > 3
        x = layers.standardise(images, size.mean, size.std)
        stem = layers.Conv(size.channels[0], size.stem, 1 + wide, name="conv")
        x = nn.relu(layers.conv_batch_norm(stem, x, train, "norm", axis_name=self.axis_name))
        if wide:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (blocks, channels) in enumerate(zip(size.blocks, size.channels, strict=True)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                name = f"stage_{stage}_block_{block}"
                x = _Block(channels, stride, size.bottleneck, self.axis_name, name=name)(x, train)
        return nn.Dense(size.num_classes, name="classify")(jnp.mean(x, (1, 2)))


def resnet(size: architecture.ResnetModel, axis_name: str | None = None) -> types.Explicit:
    """Returns the residual network of a size; a shortcut is a projection if its block changes the shape.

    Args:
      size: size of the network.
      axis_name: see `models.build`.
    """
    module = _Resnet(size, axis_name)

    def init(key: types.RandomKey) -> types.Variables:
        return dict(module.init(key, jnp.zeros((1, *size.image_shape)), False))

    def apply(
        variables: types.Variables, images: types.Images, train: bool = False
    ) -> tuple[types.Logits, types.Variables]:
        if not train:
            logits: Any = module.apply(variables, images, False)
            return logits, variables
        logits, updated = module.apply(variables, images, True, mutable=["batch_stats"])
        return logits, {**variables, **updated}

    return types.Explicit(size.image_shape, size.num_classes, jax.jit(init), apply)
