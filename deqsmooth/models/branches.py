"""States of several resolutions, and linear maps of them.

A state is a tuple of branches [lanes, height / 2^i, width / 2^i, channels_i]. A map is a table of kernels
[to][from]. Within a resolution a part is a convolution. Between two it is one of 1x1 at the coarser resolution,
where blocks of pixels are channels, which keeps norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, layers


def shapes(size: architecture.Branched) -> list[tuple[int, int, int]]:
    """(height, width, channels) of each branch."""
    height, width = (side // size.patch for side in size.image_shape[:2])
    return [(height >> i, width >> i, channels) for i, channels in enumerate(size.channels)]


def shape(of: int, to: int, halvings: int) -> tuple[int, int, int, int]:
    """Shape of the kernel of a part, as `mapped` applies it, from channels `of` to channels `to`."""
    if halvings == 0:
        return (3, 3, of, to)
    # Pixels of the finer resolution that lie in one of the coarser.
    block = 4 ** abs(halvings)
    return (1, 1, of * (block if halvings > 0 else 1), to * (block if halvings < 0 else 1))


def kernels(key: types.RandomKey, size: architecture.Branched) -> bounds.Kernels:
    """Random kernels [to][from] of a map between all branches: 3x3 within a branch, 1x1 between two."""
    initialise, num = nn.initializers.lecun_normal(), len(size.channels)
    return [
        [
            initialise(jax.random.fold_in(key, num * i + j), shape(of, to, i - j))
            for j, of in enumerate(size.channels)
        ]
        for i, to in enumerate(size.channels)
    ]


def mapped(
    kernels: bounds.Kernels, z: Sequence[jax.Array], offset: Sequence[Any] | None = None
) -> tuple[jax.Array, ...]:
    """The map of kernels [to][from] applied to branches, plus an offset. Convolutions pad with zeros."""
    return tuple(
        sum((_part(kernel, x, i - j) for j, (kernel, x) in enumerate(zip(row, z, strict=True))), start=start)
        for i, (row, start) in enumerate(zip(kernels, offset or [0.0] * len(kernels), strict=True))
    )


def adjoint(kernel: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """The kernel of the adjoint of a part, which leads from the branch that it led to."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def transposed(kernels: bounds.Kernels) -> bounds.Kernels:
    """The kernels of the adjoint map: `<mapped(k, x), y> = <x, mapped(transposed(k), y)>`."""
    return [[adjoint(kernel) for kernel in column] for column in zip(*kernels, strict=True)]


def absolute(kernels: bounds.Kernels) -> bounds.Kernels:
    """The map that takes the radii of boxes to those of their images."""
    return [[jnp.abs(kernel) for kernel in row] for row in kernels]


def rectified(centre: tuple[jax.Array, ...], radius: tuple[jax.Array, ...]) -> types.Box:
    """What relu makes of a box."""
    upper = [jax.nn.relu(x + r) for x, r in zip(centre, radius, strict=True)]
    lower = [jax.nn.relu(x - r) for x, r in zip(centre, radius, strict=True)]
    return types.Box(
        tuple((x + y) / 2 for x, y in zip(upper, lower, strict=True)),
        tuple((x - y) / 2 for x, y in zip(upper, lower, strict=True)),
    )


def features(z: types.State, side: int) -> jax.Array:
    """Means of every branch over the cells of a grid of `side` by `side` [lanes, features]."""
    return jnp.concatenate([_pooled(x, side) for x in z], -1)


def areas(size: architecture.Branched) -> np.ndarray:
    """Number of entries of the state of which each feature is the mean [features]."""
    cells = size.pooled**2
    return np.concatenate(
        [np.full(cells * channels, height * width / cells) for height, width, channels in shapes(size)]
    )


def in_float64(arrays: Any) -> Any:
    """A pytree of arrays in float64 on the host."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), arrays)


def _pooled(x: jax.Array, side: int) -> jax.Array:
    """Means over the cells of a grid [lanes, side * side * channels]."""
    lanes, height, width, channels = x.shape
    blocks = x.reshape(lanes, side, height // side, side, width // side, channels)
    return jnp.mean(blocks, (2, 4)).reshape(lanes, -1)


def _part(kernel: jax.Array | np.ndarray, x: jax.Array, halvings: int) -> jax.Array:
    """A kernel applied to a branch, and the result at the resolution of another."""
    lanes, height, width, _ = x.shape
    pad = (kernel.shape[0] - 1) // 2
    side = 2 ** abs(halvings)
    if halvings > 0:
        x = layers.blocks_to_channels(x, side)
    y = layers.convolve(x, kernel, 1, ((pad, pad), (pad, pad)))
    if halvings < 0:
        y = jnp.moveaxis(y.reshape(lanes, height, width, side, side, -1), 3, 2)
        y = y.reshape(lanes, height * side, width * side, -1)
    return y
