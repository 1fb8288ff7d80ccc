"""A split of a data set: random access to its images and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from deqsmooth.config import checks
from deqsmooth.data import contents

Pair = tuple[np.ndarray, int | None]
"""A stored image and its label; None if it is not known."""
Augment = Callable[[Sequence[np.ndarray], np.random.Generator], np.ndarray]
"""(stored images, random generator) -> augmented images [num, height, width, channels]."""


@runtime_checkable
class Pairs(Protocol):
    """Random access to pairs (stored image, label): any object with a length that takes an index in brackets."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a data set in a fixed order; `dataset[i]` is the prepared image number i and its label.

    `ds.arrays` and `ds.load_dataset` make data sets. Make one of your own where images should be read one by one.

    Attributes:
      source: random access to pairs: `len(source)`, and `source[index]` gives (stored image, label). A stored
        image is an array of any form that `prepare` takes; a label is an integer from 0, or None if it is not
        known.
      num_classes: number of classes.
      identity: name, version and split, by which records identify the data.
      prepare: stored image -> float32 in [0, 1] [height, width, channels], for evaluation.
      augment: (list of stored images, `numpy.random.Generator`) -> float32 in [0, 1] [num, height, width,
        channels], for training.
      labels: all labels, in the order of the images, where they are in memory; else None.
      class_names: name of each class; None if classes have only numbers.

    Example:
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> class Squares:  # reads each image when it is asked for
      ...     def __len__(self):
      ...         return 100
      ...     def __getitem__(self, index):
      ...         return np.full((8, 8, 1), index, np.uint8), index % 10
      >>> def prepare(image):
      ...     return image.astype(np.float32) / 255
      >>> def augment(images, generator):
      ...     return np.stack([prepare(image) for image in images])
      >>> dataset = ds.Dataset(Squares(), 10, "squares/1.0.0", prepare, augment)
      >>> images, labels = dataset.take([3, 4])
      >>> images.shape, labels.tolist()
      ((2, 8, 8, 1), [3, 4])
    """

    source: Pairs
    num_classes: int
    identity: str
    prepare: Callable[[np.ndarray], np.ndarray]
    augment: Augment
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Pair:
        """Returns the image with an index, float32 in [0, 1] [H, W, C], and its label, an int or None.

        Raises:
          IndexError: the index is out of range.
          ValueError: the image cannot be read, or has a pixel that is no number in [0, 1]; or a data set of arrays
            has no image with this index.
        """
        image, label = self.stored(index)
        return self.prepare(image), label

    def stored(self, index: int) -> Pair:
        """Returns the stored image with an index, before `prepare`, and its label.

        Raises:
          IndexError: the index is out of range.
          ValueError: the image cannot be read, or a data set of arrays has no image with this index.
        """
        try:
            return self.source[index]
        except (IndexError, MemoryError):
            raise
        except Exception as error:
            # Decoders and storage raise exceptions of many types.
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"cannot be read: {type(error).__name__}: {reason}") from error

    def take(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels of some indices as arrays.

        Args:
          indices: of the images, at least one.

        Returns:
          Images [num, height, width, channels], float32, and labels [num], int32.

        Raises:
          IndexError: an index is out of range.
          ValueError: an image cannot be read, its label is not known, or there is no index.
        """
        images, labels = zip(*self._pairs(indices), strict=True)
        if None in labels:
            raise ValueError("the labels of the images are not known")
        return np.stack(images), np.asarray(labels, np.int32)

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """Returns images [num, height, width, channels], float32, of some indices; see `ds.Dataset.take`."""
        return np.stack([image for image, _ in self._pairs(indices)])

    def _pairs(self, indices: Iterable[int]) -> list[Pair]:
        """Images and labels of some indices, at least one."""
        pairs = [self[int(index)] for index in indices]
        if not pairs:
            raise ValueError("indices is empty; it must hold the index of at least one image")
        return pairs

    def check_classes(self, num_classes: int) -> None:
        """Checks that the labels are classes of a model.

        Args:
          num_classes: number of classes of the model.

        Raises:
          ValueError: the data set has more classes, or a label that is in memory is none of the model's.
        """
        if self.labels is not None:
            contents.check_labels(self.labels, len(self.labels), num_classes)
        checks.holds(
            self.num_classes <= num_classes,
            "number of classes of the data set",
            self.num_classes,
            f"at most {num_classes}, the number of classes of the model",
        )
