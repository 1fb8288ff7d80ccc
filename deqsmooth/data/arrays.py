"""Data sets of users: arrays of images and labels, in memory or in an `.npz` file."""

from __future__ import annotations

import errno
import hashlib
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deqsmooth.config import checks
from deqsmooth.data import contents, dataset, transforms

_LARGEST = 2**34
_BLOCK = 1024
_NEEDED = "a .npz file with the arrays 'images' and 'labels'"


def of(
    images: npt.ArrayLike, labels: npt.ArrayLike | None = None, indices: npt.ArrayLike | None = None
) -> dataset.Dataset:
    """Makes a data set of arrays in memory.

    Type and shape are checked at once. An image with a pixel that breaks the rule is refused when it is read, so
    that the others can be used. The images are not copied.

    Records know the data set by its `identity`: a digest of the images as float32 in [0, 1], the labels and the
    indices. It does not depend on the type in which the images are stored.

    Args:
      images: uint8 (divided by 255 when read), or floating point in [0, 1] [num, height, width, channels]. Grey
        images have one channel.
      labels: classes, integers from 0 [num]; None if they are not known. Training, attacks and plans need them.
        The number of classes of the data set is the largest label plus 1, or 1 without labels.
      indices: numbers by which the images are asked for, different integers from 0 [num]; by default 0, 1, ...
        The noise of an image depends on its number.

    Returns:
      The data set. Its length is the largest index plus 1.

    Raises:
      ValueError: type or shape break the rule, a label or an index is no integer from 0, an index is there twice,
        or there are not as many labels or indices as images.

    Example:
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> dataset = ds.arrays(np.zeros((2, 8, 8, 1)), [3, 4])
      >>> image, label = dataset[1]
      >>> image.shape, image.dtype.name, label
      ((8, 8, 1), 'float32', 4)
      >>> len(dataset), dataset.num_classes
      (2, 5)
    """
    images = np.asarray(images)
    contents.check_form(images)
    places = np.arange(len(images)) if indices is None else contents.check_indices(indices, len(images))
    classes = None if labels is None else contents.check_labels(labels, len(images))
    return dataset.Dataset(
        _Arrays(images, classes, places.tolist()),
        1 if classes is None else int(classes.max()) + 1,
        f"sha256:{_digest(images, classes, places if indices is not None else None)}",
        contents.to_float,
        transforms.stack,
        classes,
    )


def _digest(images: np.ndarray, *others: np.ndarray | None) -> str:
    """The SHA-256 of images as a classifier sees them, float32 in [0, 1], and of other arrays, hexadecimal.

    The same pixels have the same digest as uint8, float32 and float64.
    """
    digest = hashlib.sha256(f"float32 {images.shape}".encode())
    for start in range(0, len(images), _BLOCK):
        digest.update(np.ascontiguousarray(contents.converted(images[start : start + _BLOCK])).data)
    for array in others:
        if array is not None:
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class _Arrays:
    """Pairs of arrays, each under its index."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, places: Sequence[int]) -> None:
        self._images, self._labels = images, labels
        self._rows = {place: row for row, place in enumerate(places)}

    def __len__(self) -> int:
        return max(self._rows) + 1

    def __getitem__(self, index: int) -> dataset.Pair:
        if index >= len(self):
            raise IndexError(f"image {index} is asked for; the last one is {len(self) - 1}")
        if index not in self._rows:
            raise ValueError(f"there is no image {index}")
        row = self._rows[index]
        return self._images[row], None if self._labels is None else int(self._labels[row])


def load(path: str | None, *, check_all: bool = False) -> dataset.Dataset:
    """Loads a `.npz` file with `images` and `labels`; the rules are those of `check_images` and `check_labels`.

    An image with a pixel that breaks the rule is refused when it is read, so that the others can be used.

    Args:
      path: the file. None, which a command line gives without `--data-dir`, is refused.
      check_all: whether the file is refused if a single image cannot be used; else only if all cannot.

    Raises:
      ValueError: the file cannot be read, or breaks the rules.
    """
    if path is None:
        raise ValueError(f"data set arrays needs --data-dir FILE.npz, {_NEEDED}")
    images, labels = _read(path)
    try:
        made = of(images, labels)
        unusable = contents.unusable(images)
        if unusable.any() if check_all else unusable.all():
            contents.check_images(images)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return made


def _read(path: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        if pathlib.Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        checks.unpacks_to(path, _LARGEST)
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("images", "labels") if name not in file.files]
            if missing:
                names = ", ".join(sorted(file.files)[:20]) or "none"
                raise ValueError(f"it has no array {missing[0]!r}; its arrays: {names}")
            return file["images"], file["labels"]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}; it must be {_NEEDED}") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no {_NEEDED[2:]}: it is no archive, or is damaged ({error})") from None
    except Exception as error:
        # Damaged archives and arrays raise exceptions of many types.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason:
            reason = "an array holds Python objects, which may run code when they are loaded; give numbers"
        raise ValueError(f"{path} is no {_NEEDED[2:]}: {reason}") from None
