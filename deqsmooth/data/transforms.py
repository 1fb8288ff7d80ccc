"""Preparation of stored images for evaluation, and their augmentation for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from deqsmooth.data import contents

PADDING = 4
_SHORT_SIDE, _CROP = 256, 224


def stack(images: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The images as they are, of one size."""
    return contents.to_float(np.stack(images))


def centre_crops(images: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The centre crops of images of several sizes."""
    return np.stack([centre_crop(image) for image in images])


def crop_and_flip(images: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Random crops of the images padded with zeros, half of them flipped: the usual augmentation of CIFAR."""
    whole = np.stack(images)
    num, height, width, _ = whole.shape
    pad = (PADDING, PADDING)
    windows = sliding_window_view(np.pad(whole, ((0, 0), pad, pad, (0, 0))), (height, width), (1, 2))
    down, right = rng.integers(0, 2 * PADDING + 1, (2, num))
    crops = windows[np.arange(num), down, right].transpose(0, 2, 3, 1)
    flipped = rng.random((num, 1, 1, 1)) < 0.5
    return contents.to_float(np.where(flipped, crops[:, :, ::-1], crops))


def centre_crop(image: np.ndarray) -> np.ndarray:
    """Resizes the short side to 256 pixels and takes the central 224 x 224 pixels."""
    height, width, _ = image.shape
    scale = _SHORT_SIDE / min(height, width)
    size = (max(round(width * scale), _SHORT_SIDE), max(round(height * scale), _SHORT_SIDE))
    resized = _resize(image, size)
    top, left = (resized.shape[0] - _CROP) // 2, (resized.shape[1] - _CROP) // 2
    return contents.to_float(resized[top : top + _CROP, left : left + _CROP])


def resized_crops_and_flip(images: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Random parts of 8 to 100 % of the area, resized to 224 x 224, half of them flipped: usual for ImageNet."""
    return np.stack([_resized_crop_and_flip(image, rng) for image in images])


def _resized_crop_and_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width, _ = image.shape
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(height, width)
    left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    resized = _resize(image[top : top + h, left : left + w], (_CROP, _CROP))
    return contents.to_float(resized[:, ::-1] if rng.random() < 0.5 else resized)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, uint8, to (width, height)."""
    # A grey image of Pillow has no channel axis.
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    return resized.reshape(*resized.shape[:2], image.shape[-1])


AUGMENTATIONS = {"none": stack, "crop-and-flip": crop_and_flip}
"""Augmentations of images of one size, by the names of `config.training.AUGMENTATIONS`."""
