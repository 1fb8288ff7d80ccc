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
      ValueError: it cannot; see `data.check_images`.
    """
    _check_settings(classifier, settings)
    return data.check_images(given, classifier.image_shape)


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
    errors = []
    for index in chosen[:_TRIED]:
        try:
            return images(classifier, dataset[index][0][None], settings)[0]
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _check_settings(classifier: classifiers.Classifier, settings: config.Smoothing) -> None:
    if settings.sampler != "independent" and not classifier.solves:
        raise ValueError(
            f"sampler is {settings.sampler!r}; a classifier without an equilibrium has only 'independent'"
        )
    if settings.bound == bounds.PAIRED:
        raise ValueError("bound is 'paired'; it is that of certificates made from those of another classifier")
    if settings.dtype != "float32" and not classifier.solves:
        raise ValueError(
            f"dtype is {settings.dtype!r}; it is that of the cell, which a classifier without an equilibrium lacks"
        )
    starts.check_trained(settings.start, classifier.start_training)
