"""Training batches: images in random order, augmented."""

from __future__ import annotations

import os
from collections.abc import Iterator

import grain
import numpy as np

from deqsmooth.config import checks
from deqsmooth.data import dataset as splits

_PREFETCHED = 8
_FOR_EVER = 2**62


def batches(
    dataset: splits.Dataset, batch_size: int, *, seed: int, first: int = 0, shard: int = 0, num_shards: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields training batches without end; batch t is a function of seed and t, so a run can resume at any t.

    Every epoch has its own order of images. If the last images of an epoch do not fill a batch, the first images
    of the next epoch complete it.

    Args:
      dataset: training split.
      batch_size: number of images in a batch.
      seed: seed of order and augmentation.
      first: index of the first batch.
      shard: number of the part of every batch to yield, from 0; each process of a run takes one part.
      num_shards: number of equal parts, in order, into which batches are divided.

    Yields:
      Images [batch_size / num_shards, height, width, channels] and labels [batch_size / num_shards].

    Raises:
      ValueError: if `num_shards` does not divide `batch_size`, or an image cannot be read.
    """
    checks.holds(
        batch_size % num_shards == 0,
        "batch_size",
        batch_size,
        f"a multiple of the number of processes, {num_shards}",
    )
    # Grain cannot divide an endless stream into batches of one.
    stream = grain.MapDataset.source(_Stored(dataset)).seed(seed).shuffle().repeat(_FOR_EVER // len(dataset))
    stream = stream.batch(batch_size // num_shards, batch_fn=list).random_map(_Augment(dataset.augment))
    mine = stream.slice(slice(first * num_shards + shard, None, num_shards))
    options = grain.ReadOptions(num_threads=_num_threads(), prefetch_buffer_size=_PREFETCHED)
    yield from mine.to_iter_dataset(options)


def _num_threads() -> int:
    """Returns the number of reader threads: half of the cores, so that the others serve the devices."""
    return min(max((os.cpu_count() or 1) // 2, 1), _PREFETCHED)


class _Stored:
    """The stored images of a data set, as a source of Grain; says which one cannot be read."""

    def __init__(self, dataset: splits.Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> splits.Pair:
        try:
            return self._dataset.stored(index)
        except ValueError as error:
            raise ValueError(f"image {index} {error}") from error


class _Augment(grain.transforms.RandomMap):
    """Augments a batch of stored pairs."""

    def __init__(self, augment: splits.Augment) -> None:
        self._augment = augment

    def random_map(self, element: list[splits.Pair], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns augmented images [num, height, width, channels] and labels [num]."""
        images, labels = zip(*element, strict=True)
        return self._augment(images, rng), np.asarray(labels, np.int32)
