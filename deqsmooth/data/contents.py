"""Contents of images and labels: the rules that they keep, whether they come from files or from programs."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

_ROUNDING = float(np.finfo(np.float32).eps)
PIXEL_ROUNDING = 2.0**-22
"""More than `check_images` moves a pixel."""
_AXES = "[num, height, width, channels]"
_CHANNELS = (1, 3, 4)


def check_images(images: npt.ArrayLike, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Returns images as float32 in [0, 1] [num, height, width, channels].

    Args:
      images: uint8, which is divided by 255, or floating point in [0, 1]; a pixel within one rounding of float32
        (1.2e-7) of that range is moved into it. [num, height, width, channels].
      shape: (height, width, channels) that the model takes; None for any.

    Raises:
      ValueError: they have another type, shape or range; says which, and the first image that does.
    """
    array = _array("images", images)
    check_form(array, shape)
    for index in np.flatnonzero(unusable(array))[:1]:
        raise ValueError(f"image {index}: {_fault(array[index])}")
    return to_float(array)


def check_labels(labels: npt.ArrayLike, num_images: int, num_classes: int | None = None) -> np.ndarray:
    """Returns labels as int64 [num_images].

    Args:
      labels: integers, one an image.
      num_images: number of images.
      num_classes: number of classes, of which the first is 0; None for any.

    Raises:
      ValueError: they are no such integers; says which label of which image.
    """
    array = _array("labels", labels)
    rule = "integers from 0" if num_classes is None else f"integers in [0, {num_classes})"
    if array.ndim != 1:
        looks = ", which looks one-hot: give numpy.argmax(labels, -1)" if array.ndim == 2 else ""
        raise ValueError(f"labels have shape {array.shape}{looks}; labels must be {rule}, one an image")
    if len(array) != num_images:
        raise ValueError(f"labels has {len(array)} entries; there must be one for each of the {num_images} images")
    if np.issubdtype(array.dtype, np.integer):
        wrong = array < 0 if num_classes is None else (array < 0) | (array >= num_classes)
    else:
        wrong = np.array([not _is_integral(label) for label in array.tolist()], bool)
        # Whole numbers of a floating point type are refused, too.
        wrong |= not wrong.any()
    for index in np.flatnonzero(wrong)[:1]:
        shown = reprlib.repr(array.tolist()[index])
        raise ValueError(f"the label of image {index} is {shown}; labels must be {rule}, one an image")
    return array.astype(np.int64)


def check_indices(indices: npt.ArrayLike, num_images: int) -> np.ndarray:
    """Returns indices of images in their data set as int64 [num_images].

    Raises:
      ValueError: they are no integers from 0, there is none or not one for each image, or one is there twice.
    """
    array = _array("indices", indices)
    if array.size == 0:
        raise ValueError("there is no index of an image; there must be at least one")
    if (
        array.shape != (num_images,)
        or not np.issubdtype(array.dtype, np.integer)
        or array.min() < 0
        or array.max() >= 2**63
    ):
        raise ValueError(
            f"indices are {array.dtype} of shape {array.shape}; they must be integers from 0, one for each of the "
            f"{num_images} images"
        )
    ordered, counts = np.unique(array, return_counts=True)
    if counts.max() > 1:
        raise ValueError(f"indices has {ordered[counts.argmax()]} {counts.max()} times; each image has its own")
    return array.astype(np.int64)


def check_form(images: np.ndarray, shape: tuple[int, ...] | None = None) -> None:
    """Raises `ValueError` unless type and shape are those of images; see `check_images`. Reads no pixels."""
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"images are {images.dtype}; they must be uint8, or float16, float32 or float64 in [0, 1]"
        )
    if images.ndim == 3 and (images.shape == shape or (shape is None and images.shape[-1] in _CHANNELS)):
        raise ValueError(f"images have shape {images.shape}, that of a single image; {_AXES} is images[None]")
    if images.ndim != 4:
        grey = "; grey images have a channel, too: images[..., None]" if images.ndim == 3 else ""
        raise ValueError(f"images have shape {images.shape}; they must be {_AXES}{grey}")
    if images.size == 0:
        raise ValueError(f"images have shape {images.shape}; there must be at least one image and one pixel")
    found = images.shape[1:]
    if shape is not None and found == tuple(shape):
        return
    # Taken for height, width and channels, it would be an image of few rows and many channels.
    if found[0] in _CHANNELS and found[2] not in _CHANNELS and found[1] > 4:
        sides = "x".join(map(str, found))
        raise ValueError(
            f"images have shape {images.shape}: {sides} looks like channels first; images are {_AXES}, which "
            "numpy.moveaxis(images, 1, -1) makes of them"
        )
    if shape is not None:
        same = ", the same axes in another order" if sorted(found) == sorted(shape) else ""
        raise ValueError(f"images have shape {found}; the model takes {tuple(shape)}{same}")


def unusable(images: np.ndarray) -> np.ndarray:
    """Whether each image has a pixel that breaks the rule: images of a right form -> bool [num]."""
    if images.dtype == np.uint8:
        return np.zeros(len(images), bool)
    with np.errstate(invalid="ignore"):
        lowest, highest = images.min((1, 2, 3)), images.max((1, 2, 3))
        return ~((lowest >= -_ROUNDING) & (highest <= 1 + _ROUNDING))


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Pixels as float32 in [0, 1], of the same shape [..., height, width, channels].

    Raises:
      ValueError: floating point pixels are further from [0, 1] than one rounding of float32, or not finite.
    """
    if unusable(pixels[None] if pixels.ndim == 3 else pixels).any():
        raise ValueError(_fault(pixels))
    return converted(pixels)


def converted(pixels: np.ndarray) -> np.ndarray:
    """Pixels as float32 as `to_float` gives them; those that it refuses are moved into [0, 1] or stay NaN."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    with np.errstate(over="ignore"):
        return np.clip(pixels.astype(np.float32), 0, 1)


def _fault(pixels: np.ndarray) -> str:
    """Says what is wrong with the pixels of an image that cannot be used."""
    finite = np.isfinite(pixels)
    if not finite.all():
        wrong, more = ~finite, ""
    elif pixels.min() >= 0 and 2 <= pixels.max() <= 255:
        return f"pixels go up to {pixels.max()!s}, which looks like 0 to 255: divide by 255 or give uint8"
    elif pixels.min() < -_ROUNDING:
        wrong, more = pixels == pixels.min(), ", before any standardisation"
    else:
        wrong, more = pixels == pixels.max(), ""
    *_, row, column, channel = place = tuple(np.argwhere(wrong)[0].tolist())
    # The shortest decimals that tell a number from its neighbours, so that 1.0000002 is not shown as 1.
    return (
        f"the pixel at row {row}, column {column}, channel {channel} is {pixels[place]!s}; "
        f"pixels must be finite numbers in [0, 1]{more}"
    )


def _array(name: str, values: npt.ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name} are {type(values).__name__}, which makes no array: {reason}") from None


def _is_integral(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and value.is_integer())
