"""Inputs of smoothing, checked: whether a classifier and settings fit together and fit the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deqsmooth import config, data
from deqsmooth.models import classifiers, starts
from deqsmooth.statistics import bounds

_TRIED = 8


def images(classifier: classifiers.Classifier, given: npt.ArrayLike, settings: config.Smoothing) -> np.ndarray:
    """Images as float32 [images, H, W, C], if the classifier can be smoothed on them with these settings.

    Raises:
      ValueError: it cannot.
    """
    given = np.asarray(given)
    if given.ndim != 4 or len(given) == 0 or not np.issubdtype(given.dtype, np.floating):
        raise ValueError(
            f"images are {given.dtype} of shape {given.shape}; they must be floating point, "
            "[images, height, width, channels]"
        )
    if not (np.isfinite(given).all() and given.min() >= 0 and given.max() <= 1):
        raise ValueError(
            f"images go from {given.min():g} to {given.max():g}; pixels must be finite numbers in [0, 1]"
        )
    shape = classifier.image_shape
    if shape is not None and given.shape[1:] != shape:
        raise ValueError(f"images have shape {given.shape[1:]}; the model takes {shape}")
    _check_settings(classifier, settings)
    return given.astype(np.float32)


def indices(given: npt.ArrayLike | None, images: np.ndarray) -> np.ndarray:
    """Indices of images in their data set [images]; 0, 1, ... if they are not given.

    Raises:
      ValueError: there are not as many as images.
    """
    return np.arange(len(images)) if given is None else one_each("indices", given, images)


def one_each(name: str, values: npt.ArrayLike, images: np.ndarray) -> np.ndarray:
    """Values as an array, if there is one for each image.

    Raises:
      ValueError: there are not as many as images.
    """
    values = np.asarray(values)
    if len(values) != len(images):
        raise ValueError(f"{name} has {len(values)} entries; there are {len(images)} images")
    return values


def first_usable(
    classifier: classifiers.Classifier, dataset: data.Dataset, chosen: Sequence[int], settings: config.Smoothing
) -> np.ndarray:
    """The first image of a data set [H, W, C] that the classifier can be smoothed on.

    Args:
      classifier: the classifier.
      dataset: the images.
      chosen: their indices; eight of them are tried.
      settings: of the certificates.

    Raises:
      ValueError: none of those tried can be used; says what is wrong with the first.
    """
    for index in (*chosen[:_TRIED], chosen[0]):
        try:
            return images(classifier, dataset[index][0][None], settings)[0]
        except ValueError as error:
            reason = error
    raise reason


def _check_settings(classifier: classifiers.Classifier, settings: config.Smoothing) -> None:
    solves = classifier.solves
    if settings.sampler != "independent" and not solves:
        raise ValueError(
            f"sampler is {settings.sampler!r}; a classifier without an equilibrium has only 'independent'"
        )
    if settings.bound == bounds.PAIRED:
        raise ValueError("bound is 'paired'; it is that of certificates made from those of another classifier")
    if settings.dtype != "float32" and not solves:
        raise ValueError(
            f"dtype is {settings.dtype!r}; it is that of the cell, which a classifier without an equilibrium lacks"
        )
    starts.check_trained(settings.start, classifier.start_training)
