"""Upper bounds on what linear maps between branches do: their norms, and the rounding of their sums.

A map is a table of kernels [to][from], as in `branches.mapped`. A kernel of 1x1 between two resolutions has the
norm of its matrix, since pixels that become channels keep norms.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Kernels = list[list[Any]]
"""A linear map between branches: kernels [to][from], HWIO, arrays of NumPy or JAX."""
_Array = TypeVar("_Array", jax.Array, np.ndarray)
# A compiled program computes the kernels in float32 by sums of at most some thousand terms; constants are made
# larger by more than these can differ, if the norms of the channels of a kernel differ by less than 1e4.
OUTWARDS = 1 + 2.0**-12
_ITERATIONS, _SMALLEST = 50, 1e-6


def rescaled(kernel: jax.Array | np.ndarray) -> jax.Array:
    """The kernel with each input channel scaled so that the norm of its convolution is at most 1.

    This is the rule of almost orthogonal layers (Prach & Lampert 2022).
    """
    kernel = jnp.asarray(kernel)
    return kernel / jnp.sqrt(jnp.sum(_products(kernel), -1) + 1e-12)[:, None]


def normalised(kernel: jax.Array | np.ndarray) -> jax.Array:
    """The kernel divided by one number, so that the norm of its convolution is at most 1."""
    kernel = jnp.asarray(kernel)
    return kernel / jnp.sqrt(jnp.max(jnp.sum(_products(kernel), -1)) + 1e-12)


def weighed(kernels: Kernels, weights: jax.Array) -> Kernels:
    """The map whose parts are rescaled kernels times weights [to, from]."""
    return [[weights[i, j] * rescaled(kernel) for j, kernel in enumerate(row)] for i, row in enumerate(kernels)]


def of_weights(weights: jax.Array) -> jax.Array:
    """Upper bound on the norm of a map whose parts have norms of at most these weights [to, from].

    The norm of a matrix is at most the geometric mean of its largest row and column sums.
    """
    return jnp.sqrt(jnp.max(weights.sum(0)) * jnp.max(weights.sum(1)))


def norm(kernels: Kernels) -> float:
    """Upper bound on the norm of a map, computed in float64."""
    return of_matrix(np.array([[_of_convolution(kernel) for kernel in row] for row in kernels]))


def rounding(kernels: Kernels, num_additions: int) -> float:
    """Bound on the rounding of a map in float32, relative to the norm of its argument.

    Args:
      kernels: the map.
      num_additions: largest number of additions that a part takes part in after it was computed.
    """
    return norm([[of_sum(x[..., 0].size + num_additions) * np.abs(x) for x in row] for row in kernels])


def of_sum(num_terms: int) -> float:
    """Bound on the relative error of a float32 sum of products, in any order (Higham 2002, section 3.1)."""
    unit = num_terms * 2.0**-24
    return unit / (1 - unit)


def _products(kernel: _Array) -> _Array:
    """Bound on the products of a convolution with its transpose [in_channels, in_channels].

    Entry (c, d) is the sum over all offsets of the absolute correlation of the kernels of input channels c and d.
    A convolution with zero padding extends by zeros, convolves in the plane and restricts to the image. Extension
    and restriction do not increase norms.
    """
    height, width, channels, _ = kernel.shape

    def correlation(y: int, x: int) -> _Array:
        here = kernel[: height - y, max(0, -x) : width - max(0, x)]
        there = kernel[y:, max(0, x) : width + min(0, x)]
        rows = [part.transpose(2, 0, 1, 3).reshape(channels, -1) for part in (here, there)]
        return abs(rows[0] @ rows[1].T)

    # The correlation at an offset is the transpose of that at the opposite one.
    offsets = itertools.product(range(height), range(1 - width, width))
    half = sum((correlation(*offset) for offset in offsets if offset > (0, 0)), start=correlation(0, 0) / 2)
    return half + half.T


def _of_convolution(kernel: np.ndarray) -> float:
    """Upper bound on the norm of a convolution with zero padding, at any resolution."""
    return float(np.sqrt(_perron(_products(kernel))))


def of_matrix(matrix: np.ndarray) -> float:
    """Upper bound on the norm of a matrix without negative entries."""
    return float(np.sqrt(_perron(matrix.T @ matrix)))


def _perron(matrix: np.ndarray) -> float:
    """Upper bound on the largest eigenvalue of a symmetric matrix without negative entries (Collatz & Wielandt).

    For every positive vector v it is at most the largest entry of M v / v; iterations only make it tighter.
    """
    vector = np.ones(len(matrix))
    for _ in range(_ITERATIONS):
        after = matrix @ vector
        vector = np.maximum(after / max(after.max(), np.finfo(float).tiny), _SMALLEST)
    return float((matrix @ vector / vector).max())
