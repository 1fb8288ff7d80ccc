"""Noise: Gaussian draws keyed by seed, image, phase and sample index.

A draw depends on nothing else, so that counts of independent samples do not depend on batches, lanes, devices or
hosts.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import probability
from deqsmooth.smoothing import inversion

SELECTION, ESTIMATION, AUDIT, PREDICTION, ATTACK = range(5)
"""Phases of an image; no two phases share a draw."""


def phase_key(seed: int | jax.Array, image: int | jax.Array, phase: int | jax.Array) -> types.RandomKey:
    """Key of one phase of one image.

    Args:
      seed: seed of the run, below 2**32.
      image: index of the image in its split.
      phase: `SELECTION`, `ESTIMATION`, `AUDIT`, `PREDICTION` or `ATTACK` of this module; no two phases share a
        draw.

    Example:
      >>> keys = phase_key(0, 7, ESTIMATION)[None]
      >>> gaussian(keys, jnp.arange(1, dtype=jnp.int32), (8, 8, 1)).shape
      (1, 8, 8, 1)
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed, impl=probability.GENERATOR), image), phase)


def phase_keys(seed: int, images: jax.Array, phases: jax.Array) -> types.Keys:
    """Keys of phases of images [num], given the indices of the images and the phases [num]."""
    return jax.vmap(phase_key, (None, 0, 0))(seed, images, phases)


def noisy(
    images: types.Images, keys: types.Keys, samples: types.SampleIndices, sigma: float, grid: int | None = None
) -> types.Images:
    """Images [lanes, H, W, C], each with the noise of its key and sample index.

    Args:
      images: clean image of every lane [lanes, H, W, C]; with a grid, multiples of 1 / grid.
      keys: phase key of every lane [lanes].
      samples: sample index of every lane [lanes].
      sigma: standard deviation of the noise.
      grid: None for the sum of image and `gaussian` noise. Else the sum of image and real noise, rounded to
        multiples of 1 / grid: since the image is on the grid, that is the sum of image and rounded noise.
    """
    if grid is None:
        return images + sigma * gaussian(keys, samples, images.shape[1:])
    drawn = rounded(keys, samples, images.shape[1:], sigma, grid)
    return (jnp.round(images * grid).astype(jnp.int32) + drawn).astype(jnp.float32) / grid


def gaussian(keys: types.Keys, samples: types.SampleIndices, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal draws [lanes, ...], float32, one for each lane's phase key and sample index.

    The entries of a draw are drawn along one axis. With a last axis as short as that of colours a CPU takes three
    times as long.

    Args:
      keys: phase key of each lane [lanes].
      samples: sample index of each lane [lanes].
      shape: of a draw.
    """
    flat = (math.prod(shape),)
    draw = jax.vmap(lambda key, sample: jax.random.normal(jax.random.fold_in(key, sample), flat, jnp.float32))
    return draw(keys, samples).reshape(-1, *shape)


def rounded(
    keys: types.Keys, samples: types.SampleIndices, shape: tuple[int, ...], sigma: float, grid: int
) -> jax.Array:
    """Draws of the integer nearest to `grid` times a normal variable [lanes, ...], int32.

    Of 64 random bits of an entry, the last is the sign, and the others are an integer U. The magnitude is the
    number of `rounded_normal.thresholds` above U. Only integers are compared, so that the distribution is exact up
    to `rounded_normal.total_variation`, and draws are equal on all devices.

    Args:
      keys: phase key of each lane [lanes].
      samples: sample index of each lane [lanes].
      shape: of a draw.
      sigma: standard deviation of the normal variable.
      grid: points of the grid in a unit.

    Example:
      >>> keys = phase_key(0, 7, ESTIMATION)[None]
      >>> rounded(keys, jnp.arange(1, dtype=jnp.int32), (4,), 0.5, 255).tolist()
      [[-132, -121, 56, -72]]
    """

    def bits(key: types.RandomKey, sample: jax.Array) -> jax.Array:
        return jax.random.bits(jax.random.fold_in(key, sample), (2, math.prod(shape)), jnp.uint32)

    high, low = jnp.moveaxis(jax.vmap(bits)(keys, samples), 1, 0)
    magnitude = inversion.magnitude(inversion.table(sigma, grid), high, low & ~jnp.uint32(1))
    return jnp.where(low & 1, -magnitude, magnitude).reshape(-1, *shape)


def audit_order(key: types.RandomKey, num_samples: int) -> jax.Array:
    """Random order of the sample indices [num_samples], int32; an audit draws them in this order.

    Args:
      key: phase key.
      num_samples: number of samples.
    """
    return jax.random.permutation(key, num_samples).astype(jnp.int32)
