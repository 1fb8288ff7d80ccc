"""Images of a training that stay on the devices: takes a data set, gives batches inside a compiled program.

Batch t is a function of the seed and t alone: every epoch has its own order of the images, and crops and flips are
drawn by update and position in the batch. If the last images of an epoch do not fill a batch, the first images of
the next epoch complete it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from deqsmooth import data, devices, types
from deqsmooth.config import checks
from deqsmooth.data import transforms

_ORDER, _AUGMENT = 6, 7

Indices = Int[Array, "rows"]
Orders = Int[Array, "2 images"]
Corners = Int[Array, "rows 2"]
Flipped = Bool[Array, "rows"]


class Images(NamedTuple):
    """All images of a training split, on every device.

    Attributes:
      stored: uint8, or float32 in [0, 1] [images, height, width, channels].
      labels: classes, int32 [images].
    """

    stored: jax.Array
    labels: jax.Array


class Place(NamedTuple):
    """Where a call begins among the images of all epochs.

    Attributes:
      epoch: number of the epoch, int32.
      offset: number of its images that earlier batches had, int32.
    """

    epoch: jax.Array | int
    offset: jax.Array | int


class Crops(NamedTuple):
    """Random crops and flips.

    Attributes:
      corner: upper left corner in the padded image, int32 [rows, 2].
      flipped: whether the crop is mirrored, bool [rows].
    """

    corner: Corners
    flipped: Flipped


def load(dataset: data.Dataset, mesh: Mesh) -> Images:
    """Reads all images of a training split and puts them on every device.

    Raises:
      ValueError: the images have several sizes, take more than half of the memory of a device, or have an
        augmentation of their own.
    """
    if dataset.augment not in (transforms.stack, transforms.crop_and_flip):
        raise ValueError(
            "updates_per_call is given; the data set must then have no augmentation or that of CIFAR, or augment "
            "be given"
        )
    first, _ = dataset.stored(0)
    needed = len(dataset) * first.nbytes
    rule = f"at most half of the memory of a device, {devices.memory() // 2:,}, with updates_per_call"
    checks.holds(needed <= devices.memory() // 2, "size of the images", f"{needed:,} bytes", rule)
    pixels = np.empty((len(dataset), *first.shape), np.uint8 if first.dtype == np.uint8 else np.float32)
    labels = np.empty(len(dataset), np.int32)
    for index in range(len(dataset)):
        image, label = dataset.stored(index)
        rule = f"that of the first, {first.shape}, with updates_per_call"
        checks.holds(image.shape == first.shape, f"shape of image {index}", image.shape, rule)
        pixels[index] = image
        labels[index] = np.asarray(label)
    return Images(*jax.device_put((pixels, labels), devices.replicated(mesh)))


def place(update: int, batch_size: int, num_images: int) -> Place:
    """Returns where the batch of an update begins."""
    return Place(*divmod(update * batch_size, num_images))


def orders(seed: int, epoch: jax.Array | int, num_images: int) -> Orders:
    """Returns the orders of the images in an epoch and in the next: permutations of 0 to `num_images` - 1."""
    base = jax.random.fold_in(jax.random.key(seed), _ORDER)
    keys = jax.vmap(functools.partial(jax.random.fold_in, base))(epoch + jnp.arange(2))
    return lax.map(lambda key: jax.random.permutation(key, num_images), keys)


def indices(orders: Orders, offset: jax.Array | int, batch_size: int) -> Indices:
    """Returns the images of the batch that begins at an offset, below twice the number of images."""
    position = offset + jnp.arange(batch_size)
    num_images = orders.shape[1]
    return orders[position // num_images, position % num_images]


def draw_crops(seed: int, update: jax.Array | int, num: int) -> Crops:
    """Returns the crops and flips of the batch of an update, drawn for each position in it."""
    base = jax.random.fold_in(jax.random.key(seed), _AUGMENT)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.fold_in(base, update)))(jnp.arange(num))

    def one(key: types.RandomKey) -> Crops:
        corner_key, flip_key = jax.random.split(key)
        corner = jax.random.randint(corner_key, (2,), 0, 2 * transforms.PADDING + 1)
        return Crops(corner, jax.random.bernoulli(flip_key))

    return jax.vmap(one)(keys)


def crop_and_flip(stored: jax.Array, crops: Crops) -> jax.Array:
    """Crops images [rows, height, width, channels] that are padded with zeros, and mirrors some of them."""
    pad = (transforms.PADDING, transforms.PADDING)
    padded = jnp.pad(stored, ((0, 0), pad, pad, (0, 0)))
    cut = jax.vmap(lambda image, corner: lax.dynamic_slice(image, (*corner, 0), stored.shape[1:]))
    found = cut(padded, crops.corner)
    return jnp.where(crops.flipped[:, None, None, None], found[:, :, ::-1], found)


def batch(
    images: Images,
    orders: Orders,
    offset: jax.Array | int,
    update: jax.Array | int,
    *,
    seed: int,
    batch_size: int,
    augmented: bool,
) -> tuple[types.Images, types.Labels]:
    """Returns the images [batch, height, width, channels], float32 in [0, 1], and labels of an update."""
    chosen = indices(orders, offset, batch_size)
    stored = images.stored[chosen]
    if augmented:
        stored = crop_and_flip(stored, draw_crops(seed, update, batch_size))
    scale = 255.0 if stored.dtype == jnp.uint8 else 1.0
    return stored.astype(jnp.float32) / scale, images.labels[chosen]
