"""How the samples of a batch of images are arranged: images in places, and their samples in rows, each a lane."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import devices, types


class Batch(NamedTuple):
    """What every row of a call sees whole: its images, their phase keys, whether each is asked for [images]."""

    images: types.Images
    keys: types.Keys
    is_asked: jax.Array


class Rows(NamedTuple):
    """Lanes of images: the place of their image in the batch [rows], and their samples [rows, steps]."""

    place: jax.Array
    samples: jax.Array


def places(num_images: int, batch: int, num_devices: int) -> np.ndarray:
    """Places of images in a batch [num_images]. On every device they are the first.

    If the devices divide the batch, their numbers of images differ by at most one.

    Example:
      >>> places(3, 8, 2).tolist()
      [0, 4, 1]
    """
    numbers = np.arange(num_images)
    if batch % num_devices:
        return numbers
    return numbers % num_devices * (batch // num_devices) + numbers // num_devices


def of_samples(samples: jax.Array, multiple: int) -> Rows:
    """Rows of samples [images, lanes, steps], padded to a multiple.

    The host cuts the padding off, so that the devices exchange nothing.
    """
    num_images, lanes, steps = samples.shape
    rows = Rows(jnp.repeat(jnp.arange(num_images), lanes), samples.reshape(-1, steps))
    return devices.pad(rows, multiple)


def of_images(rows: np.ndarray, places: np.ndarray, batch: int, lanes: int) -> np.ndarray:
    """What was computed for the rows of a batch [rows, ...], for the images in places [images, lanes, ...]."""
    return rows[: batch * lanes].reshape(batch, lanes, *rows.shape[1:])[places]


def grid(samples: np.ndarray, lanes: int) -> np.ndarray:
    """Samples [images, num] as [images, lanes, steps]; the last ones are repeated to fill it."""
    steps = -(-samples.shape[1] // lanes)
    filled = np.pad(samples, ((0, 0), (0, steps * lanes - samples.shape[1])), mode="edge")
    return np.swapaxes(filled.reshape(len(samples), steps, lanes), 1, 2)


def in_order(found: np.ndarray, num: int) -> np.ndarray:
    """The inverse of `grid`: what was found of its samples [images, lanes, steps] as [images, num]."""
    return np.swapaxes(found, 1, 2).reshape(len(found), -1)[:, :num]
