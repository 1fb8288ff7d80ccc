"""Noise: Gaussian draws keyed by seed, image, phase and sample index.

A draw depends on nothing else, so that counts of independent samples do not depend on batches, lanes, devices or
hosts.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from deqsmooth import types

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
    # The draws of Threefry do not depend on how they are batched; those of other generators may.
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), image), phase)


def gaussian(keys: types.Keys, samples: types.SampleIndices, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal draws [lanes, ...], float32, one for each lane's phase key and sample index.

    Args:
      keys: phase key of each lane [lanes].
      samples: sample index of each lane [lanes].
      shape: of a draw.
    """
    draw = jax.vmap(lambda key, sample: jax.random.normal(jax.random.fold_in(key, sample), shape, jnp.float32))
    return draw(keys, samples)


def audit_order(key: types.RandomKey, num_samples: int) -> jax.Array:
    """Random order of the sample indices [num_samples], int32; an audit draws them in this order.

    Args:
      key: phase key.
      num_samples: number of samples.
    """
    return jax.random.permutation(key, num_samples).astype(jnp.int32)
