"""Which images are certified."""

from __future__ import annotations

import dataclasses

from deqsmooth.config import checks

DATASETS = ("digits", "cifar10", "imagenet", "arrays")
_STRIDES = {"digits": 8, "cifar10": 20, "imagenet": 100, "arrays": 1}
EVALUATION_SPLITS = {"digits": "test", "cifar10": "test", "imagenet": "validation", "arrays": "test"}


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which images are certified.

    Attributes:
      dataset: name of the data set: `digits`, `cifar10`, `imagenet` or `arrays`, a file of your own.
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file with `images` and `labels`.
      split: by default `test`, for imagenet `validation`.
      stride: distance of two chosen images; by default 8 for digits, 20 for cifar10, 100 for imagenet.
      start_index: index of the first image.
      max_images: largest number of images.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    split: str | None = None
    stride: int | None = None
    start_index: int = 0
    max_images: int | None = None

    def __post_init__(self) -> None:
        checks.known("data set", self.dataset, DATASETS)
        for name, defaults in (("stride", _STRIDES), ("split", EVALUATION_SPLITS)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults[self.dataset])
        checks.positive(self, "stride")
        checks.holds(self.start_index >= 0, "start_index", self.start_index, "at least 0")
        if self.max_images is not None:
            checks.positive(self, "max_images")

    @property
    def step(self) -> int:
        """Distance of two chosen indices."""
        return self.stride or _STRIDES[self.dataset]

    def selects(self, index: int) -> bool:
        """Whether an index is one of the chosen ones, in a split that is large enough."""
        steps, rest = divmod(index - self.start_index, self.step)
        return steps >= 0 and not rest

    def indices(self, num_images: int) -> range:
        """Indices of the chosen images in a split of a size.

        Raises:
          ValueError: there are none.
        """
        chosen = range(self.start_index, num_images, self.step)[: self.max_images]
        checks.holds(
            len(chosen) > 0, "start_index", self.start_index, f"below the size of the split, {num_images}"
        )
        return chosen
