"""The single-scale convolutional DEQ for small images: takes a size, gives a `types.Model`.

The cell is the residual block of multiscale DEQs (Bai et al. 2020, section 3.1) at a single resolution.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import layers


class _Inject(nn.Module):
    size: architecture.ConvModel

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = layers.standardise(images, self.size.mean, self.size.std)
        return layers.GroupNorm(self.size.num_groups)(layers.Conv(self.size.channels)(x))


class _Cell(nn.Module):
    size: architecture.ConvModel

    @nn.compact
    def __call__(self, z: jax.Array, u: jax.Array) -> jax.Array:
        channels, groups = self.size.channels, self.size.num_groups
        y = layers.Conv(self.size.expansion * channels, kernel_init=nn.initializers.normal(0.01))(z)
        y = nn.relu(layers.GroupNorm(groups)(y))
        y = layers.Conv(channels, kernel_init=nn.initializers.normal(0.01))(y) + u
        return layers.GroupNorm(groups)(nn.relu(z + layers.GroupNorm(groups)(y)))


class _Readout(nn.Module):
    size: architecture.ConvModel

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        pool = (self.size.pool, self.size.pool)
        pooled = nn.pool(nn.relu(z), 0.0, lax.add, pool, strides=pool, padding="VALID") / self.size.pool**2
        return nn.Dense(self.size.num_classes)(pooled.reshape(len(z), -1))


def conv(size: architecture.ConvModel) -> types.Model:
    """Returns the single-scale convolutional DEQ of a size.

    The injection and the state are one array [lanes, height, width, channels] each. The model has no batch
    statistics and no dropout, so training and evaluation are the same.

    Example:
      >>> import jax
      >>> model = conv(architecture.ConvModel())
      >>> variables = model.init(jax.random.key(0))
      >>> u, _ = model.inject(variables, jax.numpy.zeros((2, 8, 8, 1)), None)
      >>> model.cell(model.bind(variables), model.initial_state(u), u).shape
      (2, 8, 8, 24)
    """
    inject, cell, readout = _Inject(size), _Cell(size), _Readout(size)

    def init(key: types.RandomKey) -> types.Variables:
        inject_key, cell_key, readout_key = jax.random.split(key, 3)
        injected, inject_variables = inject.init_with_output(inject_key, jnp.zeros((1, *size.image_shape)))
        return {
            "params": {
                "inject": inject_variables["params"],
                "cell": cell.init(cell_key, injected, injected)["params"],
                "readout": readout.init(readout_key, injected)["params"],
            }
        }

    def apply_inject(
        variables: types.Variables, images: types.Images, keys: types.Keys | None = None
    ) -> tuple[types.Injection, types.Variables]:
        return inject.apply({"params": variables["params"]["inject"]}, images), variables

    def apply_cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        return cell.apply({"params": params}, z, u)

    def apply_readout(
        variables: types.Variables, z: types.State, train: bool = False
    ) -> tuple[types.Logits, types.Variables]:
        logits: Any = readout.apply({"params": variables["params"]["readout"]}, z)
        return logits, variables

    return types.Model(
        image_shape=size.image_shape,
        num_classes=size.num_classes,
        init=jax.jit(init),
        bind=lambda variables: variables["params"]["cell"],
        inject=apply_inject,
        initial_state=jnp.zeros_like,
        cell=apply_cell,
        readout=apply_readout,
    )
