"""Loading of data sets by name."""

from __future__ import annotations

import numpy as np

from deqsmooth.config import checks, selection
from deqsmooth.data import arrays, contents, dataset, prepared, transforms

_DIGITS_NUM_TEST = 360
_DIGITS_SPLIT_SEED = 0


def load(
    name: str, split: str | None = None, data_dir: str | None = None, *, download: bool = False
) -> dataset.Dataset:
    """Loads one split of a data set by its name.

    `digits` is scikit-learn's copy of the UCI handwritten digits (1,797 scans of 8 x 8 pixels and 17 grey levels,
    Alpaydin & Kaynak 1998), which that package contains. A fixed random split has 1,437 training and 360 test
    images. `arrays` is a `.npz` file of your own with the arrays `images` and `labels`, which keep the rules of
    `ds.arrays`. Every other name is that of an image classification set of TensorFlow Datasets (TFDS), such as
    `cifar10`, `imagenet` or `mnist`. It is read from the folder where TFDS prepared it, without TensorFlow. Images
    of several sizes are resized and cropped to 224 x 224. In training, images of `cifar10`, `cifar100` and
    `imagenet` are cropped and flipped at random; those of other sets are not augmented.

    Args:
      name: `digits`, `arrays`, or the TFDS name `NAME[/CONFIGURATION][:VERSION]`.
      split: `train` or `test` (imagenet: `train` or `validation`; TFDS: also parts, such as `train[90%:]`); by
        default the one to evaluate on. `arrays` has one split, whatever its name; of `train` all images are
        checked, of any other only that there are images that can be used.
      data_dir: TFDS data directory, by default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`; for `arrays` the
        `.npz` file.
      download: whether TFDS may download and prepare missing data, which needs TensorFlow.

    Returns:
      The data set; its images are prepared when they are read.

    Raises:
      ValueError: the name or the split is unknown, the data are missing or in a format without random access, or
        they break the rules above.

    Example:
      >>> import deqsmooth as ds
      >>> dataset = ds.load_dataset("digits", "test")
      >>> len(dataset), dataset[0][0].shape, dataset.num_classes
      (360, (8, 8, 1), 10)
    """
    selection.check_dataset(name)
    split = split or selection.evaluation_split(name)
    if name == "digits":
        return _load_digits(split)
    if name == "arrays":
        return arrays.load(data_dir, check_all=split == "train")
    return prepared.load(name, split, data_dir, download=download)


def _load_digits(split: str) -> dataset.Dataset:
    from sklearn import datasets

    checks.known("split", split, ("train", "test"))
    digits = datasets.load_digits()
    order = np.random.RandomState(_DIGITS_SPLIT_SEED).permutation(len(digits.target))
    chosen = order[:_DIGITS_NUM_TEST] if split == "test" else order[_DIGITS_NUM_TEST:]
    images = (digits.images[chosen, :, :, None] / 16).astype(np.float32)
    pairs = list(zip(images, digits.target[chosen].tolist(), strict=True))
    return dataset.Dataset(pairs, 10, f"digits/{split}", contents.to_float, transforms.stack)
