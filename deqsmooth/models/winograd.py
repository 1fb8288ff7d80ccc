"""Convolution with windows of 3x3 by fewer products (Winograd 1980; Lavin & Gray 2016), for CPUs.

Tiles of 4x4 outputs take 36 products for each pair of channels instead of 144. The sums of the transforms are
written out, so that XLA computes them at the speed of the memory.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_WINDOW, _OUTPUTS = 3, 4
_TILE = _OUTPUTS + _WINDOW - 1
# Polynomials are evaluated here and at infinity. These points are exact in binary, and the rounding in float32 is
# half of that at the usual 0, 1, -1, 2, -2.
_POINTS = np.array([0.0, 0.75, -0.75, 1.5, -1.5])
# Products of channels for each transformed channel. With fewer the transforms cost more than the products save.
_FEWEST_PRODUCTS = 10
# Few tiles at once stay in a core's cache. With 100, blocks of 25 images of 8x8 or 16x16 need no padding.
_TILES_AT_ONCE = 100


def suits(x: jax.Array, kernel_shape: Sequence[int], stride: int, padding: Any) -> bool:
    """Whether `convolve` computes this convolution, and takes less time than a sum of products on a CPU.

    Args:
      x: activations [lanes, height, width, in_channels].
      kernel_shape: (height, width, in_channels, out_channels).
      stride: step of the window.
      padding: zeros before and after each spatial axis.
    """
    of, to = kernel_shape[2:]
    return (
        tuple(kernel_shape[:2]) == (_WINDOW, _WINDOW)
        and stride == 1
        and padding == ((1, 1), (1, 1))
        and to * of >= _FEWEST_PRODUCTS * (to + of)
        and x.shape[1] % _OUTPUTS == 0
        and x.shape[2] % _OUTPUTS == 0
        and x.dtype.itemsize >= 4
    )


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Two-dimensional convolution of stride 1 with one zero of padding on every side.

    In float32 the result differs from the exact one by about 1e-6 of its standard deviation; sums of products
    differ by about 1.5e-7. Bounds on the rounding of a sum of products do not hold here.

    Args:
      x: activations [lanes, height, width, in_channels]; height and width are multiples of 4.
      kernel: weights [3, 3, in_channels, out_channels].

    Returns:
      Activations [lanes, height, width, out_channels].
    """
    lanes, height, width, channels = x.shape
    tiles = (height // _OUTPUTS) * (width // _OUTPUTS)
    largest = max(1, min(lanes, _TILES_AT_ONCE // tiles))
    size = min(range(largest, largest // 2, -1), key=lambda size: -lanes % size)
    both = jnp.asarray(np.kron(_values(_WINDOW), _values(_WINDOW)), kernel.dtype)
    kernels = jnp.matmul(both, kernel.reshape(_WINDOW**2, -1), precision=lax.Precision.HIGHEST)
    kernels = kernels.reshape(_TILE**2, channels, -1)
    padded = jnp.pad(x, ((0, -lanes % size), (0, 0), (0, 0), (0, 0)))
    y = lax.map(lambda x: _block(x, kernels), padded.reshape(-1, size, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])[:lanes]


def _block(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """Convolution of few images with transformed kernels [tile * tile, in_channels, out_channels]."""
    lanes, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # By the transposition principle the transposed interpolation takes a tile to its factors.
    x = _sums(_interpolation().T, [x[:, :, first : width + first : _OUTPUTS] for first in range(_TILE)])
    x = _sums(_interpolation().T, [x[:, :, first : height + first : _OUTPUTS] for first in range(_TILE)])
    y = lax.dot_general(x.reshape(_TILE**2, -1, channels), kernels, (((2,), (1,)), ((0,), (0,))))
    y = y.reshape(_TILE, _TILE, lanes, height // _OUTPUTS, width // _OUTPUTS, -1)
    y = _sums(_values(_OUTPUTS).T, _sums(_values(_OUTPUTS).T, y).swapaxes(0, 1))
    return y.transpose(2, 3, 1, 4, 0, 5).reshape(lanes, height, width, -1)


def _values(num_coefficients: int) -> np.ndarray:
    """The map of the coefficients of a polynomial to its values at the points [tile, coefficients]."""
    return np.vstack([_POINTS[:, None] ** np.arange(num_coefficients), np.eye(num_coefficients)[-1]])


def _interpolation() -> np.ndarray:
    """The map of the values of a polynomial at the points to its coefficients [coefficients, tile]."""
    others = [np.delete(_POINTS, i) for i in range(len(_POINTS))]
    lagrange = [np.poly(rest)[::-1] / np.prod(point - rest) for point, rest in zip(_POINTS, others, strict=True)]
    return np.column_stack([*(np.append(x, 0.0) for x in lagrange), np.poly(_POINTS)[::-1]])


def _sums(matrix: np.ndarray, parts: Iterable[jax.Array]) -> jax.Array:
    """The products of a matrix [to, from] with `from` arrays, along a new first axis."""
    parts = list(parts)
    sums = [
        functools.reduce(operator.add, [float(x) * part for x, part in zip(row, parts, strict=True) if x])
        for row in matrix
    ]
    # Without the barrier XLA would compute sums again wherever they are used.
    return lax.optimization_barrier(jnp.stack(sums))
