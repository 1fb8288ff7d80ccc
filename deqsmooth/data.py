"""Data sets as images and labels with random access, and the batches that training sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import grain
import numpy as np

from deqsmooth import config

SPLITS = ("train", "test")
_DIGITS_NUM_TEST = 360
_DIGITS_SPLIT_SEED = 0


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split in a fixed order; `dataset[i]` is the image with index i and its label.

    Attributes:
      images: float32 in [0, 1] [images, height, width, channels].
      labels: int32 [images].
      num_classes: number of classes.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


def load(name: str, split: str = "test") -> Dataset:
    """Loads one split of a data set.

    `digits` is scikit-learn's copy of the UCI handwritten digits (1,797 scans of 8 x 8 pixels and 17
    grey levels, Alpaydin & Kaynak 1998), embedded in that package and divided at random, once and for
    all, into 1,437 training and 360 test images.

    Args:
      name: data set, one of `config.DATASETS`.
      split: `train` or `test`.

    Raises:
      ValueError: an unknown name.

    Example:
      >>> dataset = load("digits", "test")
      >>> len(dataset), dataset.images.shape
      (360, (360, 8, 8, 1))
    """
    config.check_name("data set", name, config.DATASETS)
    config.check_name("split", split, SPLITS)
    return _LOADERS[name](split)


def _load_digits(split: str) -> Dataset:
    from sklearn import datasets

    digits = datasets.load_digits()
    order = np.random.RandomState(_DIGITS_SPLIT_SEED).permutation(len(digits.target))
    chosen = order[:_DIGITS_NUM_TEST] if split == "test" else order[_DIGITS_NUM_TEST:]
    images = (digits.images[chosen, :, :, None] / 16).astype(np.float32)
    return Dataset(images, digits.target[chosen].astype(np.int32), 10)


_LOADERS: dict[str, Callable[[str], Dataset]] = {"digits": _load_digits}


def batches(
    dataset: Dataset, batch_size: int, *, seed: int, first: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless training batches; batch t is a function of seed and t, so that a run can resume at any t.

    Every epoch has an order of its own; the images that do not fill a batch go into the next.

    Args:
      dataset: training split.
      batch_size: images a batch.
      seed: of the order.
      first: index of the first batch.

    Yields:
      Images [batch_size, height, width, channels] and labels [batch_size].
    """
    stream = grain.MapDataset.source(dataset).seed(seed).shuffle().repeat().batch(batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    for images, labels in stream.slice(slice(first, None)).to_iter_dataset(options):
        yield images, labels.astype(np.int32)
