"""Data sets: loads splits of images and labels with random access, and makes training batches."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from deqsmooth import config
from deqsmooth.config import checks, selection

_DIGITS_NUM_TEST = 360
_DIGITS_SPLIT_SEED = 0
_TFDS_NAMES = {"cifar10": "cifar10", "imagenet": "imagenet2012"}
_CIFAR_PADDING = 4
_PREFETCHED = 8
_LARGEST_ARRAYS = 2**34
_IMAGENET_SHORT_SIDE, _IMAGENET_CROP = 256, 224

Pair = tuple[np.ndarray, int]
"""A stored image and its label."""
Augment = Callable[[Sequence[np.ndarray], np.random.Generator], np.ndarray]
"""(stored images, random generator) -> augmented images [num, height, width, channels]."""


@runtime_checkable
class Pairs(Protocol):
    """Random access to pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a data set in a fixed order; `dataset[i]` is the prepared image number i and its label.

    Attributes:
      source: random access to pairs (stored image, label).
      num_classes: number of classes.
      identity: name, version and split, by which records identify the data.
      prepare: stored image -> float32 in [0, 1] [height, width, channels], for evaluation.
      augment: (stored images, random generator) -> float32 in [0, 1] [num, height, width, channels], for training.
    """

    source: Pairs
    num_classes: int
    identity: str
    prepare: Callable[[np.ndarray], np.ndarray]
    augment: Augment

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the image with an index, and its label.

        Raises:
          IndexError: if the index is out of range.
          ValueError: if the image cannot be read.
        """
        try:
            image, label = self.source[index]
            return self.prepare(image), label
        except (IndexError, MemoryError):
            raise
        except Exception as error:
            # Decoders and storage raise exceptions of many types.
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"cannot be read: {type(error).__name__}: {reason}") from error

    def take(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns images [num, height, width, channels], float32, and labels [num], int32, of indices."""
        images, labels = zip(*(self[int(index)] for index in indices), strict=True)
        return np.stack(images), np.asarray(labels, np.int32)


def load(name: str, split: str | None = None, data_dir: str | None = None, *, download: bool = False) -> Dataset:
    """Loads one split of a data set.

    `digits` is scikit-learn's copy of the UCI handwritten digits (1,797 scans of 8 x 8 pixels and 17 grey levels,
    Alpaydin & Kaynak 1998), which that package contains. A fixed random split has 1,437 training and 360 test
    images. `cifar10` and `imagenet` are read by TensorFlow Datasets (TFDS) from the directory where they were
    prepared. `arrays` is a `.npz` file with `images`, uint8 or floating point in [0, 1] [num, height, width,
    channels], and `labels` [num].

    Args:
      name: data set, one of `config.DATASETS`.
      split: `train` or `test` (imagenet: `train` or `validation`; arrays: not used); by default the one to
        evaluate on.
      data_dir: TFDS data directory, by default that of TFDS; for `arrays` the `.npz` file.
      download: whether TFDS may download and prepare missing data, which needs TensorFlow.

    Raises:
      ValueError: if the name or the split is unknown, the data are missing, or the file breaks the rules above.

    Example:
      >>> dataset = load("digits", "test")
      >>> len(dataset), dataset[0][0].shape
      (360, (8, 8, 1))
    """
    checks.known("data set", name, config.DATASETS)
    if name == "digits":
        return _load_digits(split or selection.EVALUATION_SPLITS[name])
    if name == "arrays":
        return _load_arrays(data_dir)
    return _load_tfds(name, split or selection.EVALUATION_SPLITS[name], data_dir, download)


def batches(
    dataset: Dataset, batch_size: int, *, seed: int, first: int = 0, shard: int = 0, num_shards: int = 1
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
      ValueError: if `num_shards` does not divide `batch_size`.
    """
    checks.holds(
        batch_size % num_shards == 0,
        "batch_size",
        batch_size,
        f"a multiple of the number of processes, {num_shards}",
    )
    stream = grain.MapDataset.source(dataset.source).seed(seed).shuffle().repeat()
    stream = stream.batch(batch_size // num_shards, batch_fn=list).random_map(_Augment(dataset.augment))
    mine = stream.slice(slice(first * num_shards + shard, None, num_shards))
    options = grain.ReadOptions(num_threads=_num_threads(), prefetch_buffer_size=_PREFETCHED)
    yield from mine.to_iter_dataset(options)


def _num_threads() -> int:
    """Returns the number of reader threads: half of the cores, so that the others serve the devices."""
    return min(max((os.cpu_count() or 1) // 2, 1), _PREFETCHED)


class _Augment(grain.transforms.RandomMap):
    """Augments a batch of stored pairs."""

    def __init__(self, augment: Augment) -> None:
        self._augment = augment

    def random_map(self, element: list[Pair], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns augmented images [num, height, width, channels] and labels [num]."""
        images, labels = zip(*element, strict=True)
        return self._augment(images, rng), np.asarray(labels, np.int32)


def _to_float(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def _stack(images: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return _to_float(np.stack(images))


def _load_digits(split: str) -> Dataset:
    from sklearn import datasets

    checks.known("split", split, ("train", "test"))
    digits = datasets.load_digits()
    order = np.random.RandomState(_DIGITS_SPLIT_SEED).permutation(len(digits.target))
    chosen = order[:_DIGITS_NUM_TEST] if split == "test" else order[_DIGITS_NUM_TEST:]
    images = (digits.images[chosen, :, :, None] / 16).astype(np.float32)
    pairs = list(zip(images, digits.target[chosen].tolist(), strict=True))
    return Dataset(pairs, 10, f"digits/{split}", _to_float, _stack)


def _load_arrays(path: str | None) -> Dataset:
    if path is None:
        raise ValueError("data set arrays needs --data-dir FILE.npz, a file with the arrays 'images' and 'labels'")
    try:
        checks.unpacks_to(path, _LARGEST_ARRAYS)
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file with the arrays 'images' and 'labels': {error}") from None
    if images.ndim != 4 or labels.shape != images.shape[:1] or not len(images):
        raise ValueError(
            f"{path}: images have shape {images.shape} and labels {labels.shape}; they must be "
            "[num, height, width, channels] and [num]"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"{path}: labels are {labels.dtype}, from {labels.min()}; they must be integers from 0")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{path}: images are {images.dtype}; they must be uint8, or floating point in [0, 1]")
    pairs = list(zip(images, labels.tolist(), strict=True))
    identity = f"sha256:{hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}"
    return Dataset(pairs, int(labels.max()) + 1, identity, _to_float, _stack)


def _load_tfds(name: str, split: str, data_dir: str | None, download: bool) -> Dataset:
    # TFDS and its reader log advice on speed at this level, through absl's logger.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    import tensorflow_datasets as tfds

    try:
        source = tfds.data_source(_TFDS_NAMES[name], split=split, data_dir=data_dir, download=download)
    except Exception as error:
        if "Unknown split" in str(error):
            raise ValueError(f"split {split!r} of {name} does not exist: {str(error).splitlines()[0]}") from None
        where = data_dir or "TFDS's default directory"
        # ImageNet's archives can only be downloaded with an account.
        archives = " --manual_dir FOLDER_OF_THE_ILSVRC2012_TAR_FILES" if name == "imagenet" else ""
        raise ValueError(
            f"data set {name} is not prepared in {where}; prepare it once with\n"
            f"  pip install 'deqsmooth[prepare]' && tfds build {_TFDS_NAMES[name]} --file_format=array_record"
            f"{archives} [--data_dir DIR], then give --data-dir DIR"
        ) from error
    num_classes = source.dataset_info.features["label"].num_classes
    identity = f"{source.dataset_info.full_name}/{split}"
    if name == "imagenet":
        return Dataset(_TfdsPairs(source), num_classes, identity, _centre_crop, _resized_crops_and_flip)
    return Dataset(_Cached(_TfdsPairs(source)), num_classes, identity, _to_float, _crop_and_flip)


class _TfdsPairs:
    """Pairs of a TFDS data source."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Pair:
        record = self._source[index]
        return record["image"], int(record["label"])


class _Cached:
    """Pairs that are decoded once and kept in memory, for data sets that fit in memory."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._decoded: dict[int, Pair] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Pair:
        if index not in self._decoded:
            self._decoded[index] = self._pairs[index]
        return self._decoded[index]


def _crop_and_flip(images: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Random crops of the images padded with zeros, half of them flipped: the usual augmentation of CIFAR."""
    whole = np.stack(images)
    num, height, width, _ = whole.shape
    pad = (_CIFAR_PADDING, _CIFAR_PADDING)
    windows = sliding_window_view(np.pad(whole, ((0, 0), pad, pad, (0, 0))), (height, width), (1, 2))
    down, right = rng.integers(0, 2 * _CIFAR_PADDING + 1, (2, num))
    crops = windows[np.arange(num), down, right].transpose(0, 2, 3, 1)
    flipped = rng.random((num, 1, 1, 1)) < 0.5
    return _to_float(np.where(flipped, crops[:, :, ::-1], crops))


def _centre_crop(image: np.ndarray) -> np.ndarray:
    """Resizes the short side to 256 pixels and takes the central 224 x 224 pixels."""
    height, width, _ = image.shape
    scale = _IMAGENET_SHORT_SIDE / min(height, width)
    size = (max(round(width * scale), _IMAGENET_SHORT_SIDE), max(round(height * scale), _IMAGENET_SHORT_SIDE))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    top, left = (resized.shape[0] - _IMAGENET_CROP) // 2, (resized.shape[1] - _IMAGENET_CROP) // 2
    return _to_float(resized[top : top + _IMAGENET_CROP, left : left + _IMAGENET_CROP])


def _resized_crops_and_flip(images: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
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
    part = Image.fromarray(image[top : top + h, left : left + w])
    resized = np.asarray(part.resize((_IMAGENET_CROP, _IMAGENET_CROP), Image.Resampling.BILINEAR))
    return _to_float(resized[:, ::-1] if rng.random() < 0.5 else resized)
