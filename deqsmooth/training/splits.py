"""Images of a training: checks them, holds some out for evaluation, and fits the size of a model to them."""

from __future__ import annotations

import dataclasses
import logging
from typing import TypeVar

import numpy as np

from deqsmooth import config, data
from deqsmooth.config import architecture, checks
from deqsmooth.data import transforms

_LOG = logging.getLogger(__name__)
_HELD_OUT = 10
_CHECKED = 500
_MEASURED = 1000
# Fewer classes than this may be without images: a small file need not have all ten digits.
_FEW = 11
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

    If there are no test images, every `settings.held_out`-th image, by default every tenth, is held out. The
    images to train on have the augmentation of the settings.

    Args:
      dataset: images to train on.
      test: images to evaluate on, or None.
      settings: settings of the training.

    Raises:
      ValueError: there are fewer than two images to divide, `held_out` is given together with test images, or
        `augment` for images that have to be resized.
    """
    if settings.augment is not None:
        given = tuple(transforms.AUGMENTATIONS.values())
        rule = "left out for a data set whose images are resized"
        checks.holds(dataset.augment in given, "augment", settings.augment, rule)
        dataset = dataclasses.replace(dataset, augment=transforms.AUGMENTATIONS[settings.augment])
    if test is not None:
        if settings.held_out is not None:
            raise ValueError(f"held_out is {settings.held_out}; it must be left out where test images are given")
        return dataset, test, settings
    settings = dataclasses.replace(settings, held_out=settings.held_out or _HELD_OUT)
    num = len(dataset)
    checks.holds(num > 1, "number of images", num, "at least 2, of which one is held out for evaluation")
    order = np.random.default_rng(settings.seed).permutation(num)
    is_held = np.zeros(num, bool)
    is_held[order[:: settings.held_out]] = True
    rule = f"1 of {settings.held_out} by seed {settings.seed}"
    kept, held = (
        dataclasses.replace(
            dataset,
            source=_Part(dataset.source, np.flatnonzero(chosen)),
            labels=None if dataset.labels is None else dataset.labels[chosen],
            identity=f"{dataset.identity} {words} {rule}",
        )
        for chosen, words in ((~is_held, "without"), (is_held, "only"))
    )
    _LOG.info(f"evaluated on {len(held):,} of the {num:,} images, which are held out and never trained on")
    return kept, held, settings


def check(dataset: data.Dataset, shape: tuple[int, ...], num_classes: int, name: str) -> None:
    """Raises `ValueError` unless a model can be trained on a data set, or evaluated on it.

    All labels that are in memory are checked, and up to 500 images.

    Args:
      dataset: the images.
      shape: (height, width, channels) that the model takes.
      num_classes: number of classes of the model.
      name: what the images are, for messages.
    """
    checks.holds(len(dataset) > 0, f"number of {name}", len(dataset), "at least 1")
    try:
        dataset.check_classes(num_classes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    for index in _spaced(len(dataset), _CHECKED):
        image, label = _read(dataset, index, name)
        try:
            data.check_images(image[None], shape)
            data.check_labels(np.asarray([label]), 1, num_classes)
        except ValueError as error:
            fault = str(error).removeprefix("image 0: ").replace("the label of image 0", "its label")
            raise ValueError(f"image {index} of the {name}: {fault}") from None


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
    image, _ = _read(dataset, 0, _TRAINING)
    data.check_images(image[None])
    height, width, channels = shape = image.shape
    fits = size.image_shape == shape and size.num_classes == dataset.num_classes
    if fits and name != "arrays":
        return size
    images = np.stack([_read(training, index, _TRAINING)[0] for index in _spaced(len(training), _MEASURED)])
    mean, std = images.mean((0, 1, 2), np.float64), images.std((0, 1, 2), np.float64)
    found = architecture.sized(
        size,
        (height, width, channels),
        dataset.num_classes,
        tuple(round(float(x), 4) for x in mean),
        # A channel that is constant is only shifted.
        tuple(round(float(x), 4) if x > 1e-4 else 1.0 for x in std),
    )
    if dataset.labels is not None and found.num_classes not in (size.num_classes, *range(_FEW)):
        _check_no_gap(dataset.labels)
    if found != size:
        of_images = f"{found.image_shape} and {found.num_classes} classes"
        _LOG.info(f"the size of the model is fitted to the data set: images of shape {of_images}")
    return found


def _check_no_gap(labels: np.ndarray) -> None:
    """Raises `ValueError` if a class has no image, which a wrong label above all others would also cause."""
    missing = np.setdiff1d(np.arange(labels.max()), labels)
    if len(missing):
        raise ValueError(
            f"the label of image {labels.argmax()} is {labels.max()}, but no image has label {missing[0]}; labels "
            "must be 0, 1, ... without a gap, or the number of classes be given (--model.num-classes)"
        )


def _read(dataset: data.Dataset, index: int, name: str) -> data.Pair:
    try:
        return dataset[index]
    except ValueError as error:
        raise ValueError(f"image {index} of the {name} {error}") from None


def _spaced(total: int, num: int) -> range:
    """At most `num` evenly spaced indices."""
    return range(0, total, -(-total // num))
