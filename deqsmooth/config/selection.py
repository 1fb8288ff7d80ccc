"""Which images are certified."""

from __future__ import annotations

import dataclasses
import difflib
import re

from deqsmooth.config import checks

DATASETS = (
    "digits", "arrays", "cifar10", "cifar100", "imagenet", "mnist", "fashion_mnist", "kmnist", "emnist",
    "svhn_cropped",
)  # fmt: skip
"""Well-known data sets. TensorFlow Datasets (TFDS) has others, which are found by name when they are loaded."""
_STRIDES = {"digits": 8, "arrays": 1, "imagenet": 100, "imagenet2012": 100}
_STRIDE = 20
_SPLITS = {"imagenet": "validation", "imagenet2012": "validation"}
_SPLIT = "test"
# A name of TFDS: the name of the set, its configuration and its version.
_NAME = re.compile(r"[a-z][a-z0-9_]*(/\w[\w.+=,-]*)?(:\d+\.\d+\.\d+)?")
# Similarity (0 to 1) of a well-formed name to a well-known one from which on it is taken for a typing error.
_TYPING_ERROR = 0.9


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which images are certified.

    Attributes:
      dataset: name of the data set: `digits`; `arrays`, a file of your own; `cifar10`, `imagenet`, `mnist`,
        `svhn_cropped` or any other image classification set of TensorFlow Datasets (TFDS).
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file with `images` and `labels`.
      split: by default `test`, for imagenet `validation`; TFDS also has parts of splits, such as `train[90%:]`.
      stride: distance of two chosen images; by default 8 for digits, 1 for arrays, 100 for imagenet, else 20.
      start_index: index of the first image.
      max_images: largest number of images.

    Raises:
      ValueError: no data set can have the name, or a number is out of range.

    Example:
      >>> import deqsmooth as ds
      >>> ds.Selection("digits", max_images=3).indices(360)
      range(0, 24, 8)
    """

    dataset: str = "digits"
    data_dir: str | None = None
    split: str | None = None
    stride: int | None = None
    start_index: int = 0
    max_images: int | None = None

    def __post_init__(self) -> None:
        checks.typed(self)
        check_dataset(self.dataset)
        if self.split is None:
            object.__setattr__(self, "split", evaluation_split(self.dataset))
        if self.stride is None:
            object.__setattr__(self, "stride", _STRIDES.get(self.dataset, _STRIDE))
        checks.positive(self, "stride")
        checks.holds(self.start_index >= 0, "start_index", self.start_index, "at least 0")
        if self.max_images is not None:
            checks.positive(self, "max_images")

    @property
    def file_name(self) -> str:
        """The name of the data set as a part of names of files: `emnist/letters` is `emnist-letters`."""
        return re.sub(r"[/:]", "-", self.dataset)

    @property
    def step(self) -> int:
        """Distance of two chosen indices."""
        assert self.stride is not None
        return self.stride

    def selects(self, index: int) -> bool:
        """Whether an index is one of the chosen ones, in a split that is large enough."""
        steps, rest = divmod(index - self.start_index, self.step)
        return steps >= 0 and not rest

    def indices(self, num_images: int) -> range:
        """Indices of the chosen images in a split.

        Args:
          num_images: size of the split.

        Raises:
          ValueError: there are none.
        """
        chosen = range(self.start_index, num_images, self.step)[: self.max_images]
        checks.holds(
            len(chosen) > 0, "start_index", self.start_index, f"below the size of the split, {num_images}"
        )
        return chosen


def check_dataset(name: str) -> None:
    """Raises `ValueError` if no data set can have this name, or if it is nearly that of a well-known one."""
    well_formed = _NAME.fullmatch(name) is not None
    if name in DATASETS:
        return
    nearest = difflib.get_close_matches(name.lower(), DATASETS, 1, _TYPING_ERROR if well_formed else 0.6)
    if nearest or not well_formed:
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        if nearest and well_formed:
            hint += f" A set of your own with this name is given with its version: {name}:1.0.0"
        raise ValueError(
            f"unknown data set {name!r}; known: {', '.join(DATASETS)}, and any image classification set of "
            f"TensorFlow Datasets by its name{hint}"
        )


def evaluation_split(dataset: str) -> str:
    """Name of the split of a data set that models are evaluated on by default."""
    return _SPLITS.get(dataset, _SPLIT)
