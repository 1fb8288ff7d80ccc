"""Images of a training: checks them, holds some out for evaluation, and fits the size of a model to them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from deqsmooth import config, data
from deqsmooth.config import architecture, checks

_LOG = logging.getLogger(__name__)
_HELD_OUT = 10
_CHECKED = 500
_MEASURED = 1000
_TRAINING = "training images"

Settings = TypeVar("Settings", bound=config.Descent)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some of the pairs of a data set, in the order of their indices."""

    pairs: data.Pairs
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> data.Pair:
        return self.pairs[int(self.indices[index])]


def split(
    dataset: data.Dataset, test: data.Dataset | None, settings: Settings
) -> tuple[data.Dataset, data.Dataset, Settings]:
    """Returns the images to train on, those to evaluate on, and the settings with what was held out.

    If there are no test images, every `settings.held_out`-th image, by default every tenth, is held out.

    Args:
      dataset: images to train on.
      test: images to evaluate on, or None.
      settings: settings of the training.

    Raises:
      ValueError: there are fewer than two images to divide, or `held_out` is given together with test images.
    """
    if test is not None:
        if settings.held_out is not None:
            raise ValueError(f"held_out is {settings.held_out}; it must be left out where test images are given")
        return dataset, test, settings
    settings = dataclasses.replace(settings, held_out=settings.held_out or _HELD_OUT)
    num = len(dataset)
    if num < 2:
        raise ValueError(f"the data set has {num} images; at least 2 are needed to hold one out for evaluation")
    order = np.random.default_rng(settings.seed).permutation(num)
    is_held = np.zeros(num, bool)
    is_held[order[:: settings.held_out]] = True
    rule = f"1 of {settings.held_out} by seed {settings.seed}"
    kept, held = (
        dataclasses.replace(
            dataset,
            source=_Part(dataset.source, np.flatnonzero(chosen)),
            identity=f"{dataset.identity} {words} {rule}",
        )
        for chosen, words in ((~is_held, "without"), (is_held, "only"))
    )
    _LOG.info(f"evaluated on {len(held):,} of the {num:,} images, which are held out and never trained on")
    return kept, held, settings


def check(dataset: data.Dataset, shape: tuple[int, ...], num_classes: int, name: str) -> None:
    """Raises `ValueError` for the first image that a model cannot be trained on.

    Of data sets that are not in memory only some images are checked.

    Args:
      dataset: the images.
      shape: (height, width, channels) that they must have.
      num_classes: number of classes of the model.
      name: what the images are, for messages.
    """
    checks.holds(len(dataset) > 0, f"number of {name}", len(dataset), "at least 1")
    for index in _checked(dataset):
        image, label = _read(dataset, index, name)
        where = f"image {index} of the {name}"
        if image.shape != tuple(shape):
            raise ValueError(f"{where} has shape {image.shape}; it must be {tuple(shape)}, as the model takes")
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            hint = ", and these look like 0 to 255" if 2 < high <= 255 and low >= 0 else ""
            raise ValueError(f"{where} has pixels from {low!r} to {high!r}; they must be finite, in [0, 1]{hint}")
        if not isinstance(label, int | np.integer) or not 0 <= label < num_classes:
            raise ValueError(f"{where} has label {label!r}; it must be an integer from 0 to {num_classes - 1}")


def sized(
    size: architecture.Model, dataset: data.Dataset, training: data.Dataset, name: str
) -> architecture.Model:
    """Returns the size of a model for a data set.

    A size that fits a named data set stays as it is. Otherwise see `architecture.sized`; mean and standard
    deviation of the channels are measured on up to 1,000 images.

    Args:
      size: the size.
      dataset: the data set.
      training: those of its images that are trained on.
      name: name of the data set.

    Raises:
      ValueError: what the size sets does not fit the images, or their labels leave out classes.
    """
    shape = _shape_of(dataset)
    fits = size.image_shape == shape and size.num_classes == dataset.num_classes
    if fits and name != "arrays":
        return size
    images = np.stack([_read(training, index, _TRAINING)[0] for index in _spaced(len(training), _MEASURED)])
    mean, std = images.mean((0, 1, 2), np.float64), images.std((0, 1, 2), np.float64)
    found = architecture.sized(
        size,
        shape,
        dataset.num_classes,
        tuple(round(float(x), 4) for x in mean),
        # A channel that is constant is only shifted.
        tuple(round(float(x), 4) if x > 1e-4 else 1.0 for x in std),
    )
    if found.num_classes > type(size)().num_classes and found.num_classes != size.num_classes:
        _check_no_gap(dataset)
    if found != size:
        of_images = f"{found.image_shape} and {found.num_classes} classes"
        _LOG.info(f"the size of the model is fitted to the data set: images of shape {of_images}")
    return found


def _shape_of(dataset: data.Dataset) -> tuple[int, int, int]:
    image, _ = _read(dataset, 0, _TRAINING)
    if image.ndim != 3:
        raise ValueError(f"the images have shape {image.shape}; it must be (height, width, channels)")
    height, width, channels = image.shape
    if height in (1, 3) and channels > 4:
        raise ValueError(
            f"the images have shape {image.shape}, which looks like channels first; it must be "
            "(height, width, channels)"
        )
    return height, width, channels


def _check_no_gap(dataset: data.Dataset) -> None:
    """Raises `ValueError` if a class has no image, which a wrong label above all others would also cause."""
    if not _is_in_memory(dataset.source):
        return
    labels = [int(dataset.source[index][1]) for index in range(len(dataset))]
    missing = sorted(set(range(dataset.num_classes)) - set(labels))
    if missing:
        highest = max(labels)
        raise ValueError(
            f"image {labels.index(highest)} of the {_TRAINING} has label {highest}, but no image has label "
            f"{missing[0]}; give the number of classes (--model.num-classes) if classes without images are meant"
        )


def _read(dataset: data.Dataset, index: int, name: str) -> tuple[np.ndarray, int]:
    try:
        return dataset[index]
    except ValueError as error:
        raise ValueError(f"image {index} of the {name} {error}") from None


def _checked(dataset: data.Dataset) -> Sequence[int]:
    return range(len(dataset)) if _is_in_memory(dataset.source) else _spaced(len(dataset), _CHECKED)


def _spaced(total: int, num: int) -> Sequence[int]:
    """At most `num` evenly spaced indices."""
    return range(0, total, -(-total // num))


def _is_in_memory(pairs: data.Pairs) -> bool:
    return isinstance(pairs.pairs if isinstance(pairs, _Part) else pairs, Sequence)
