"""Inputs of smoothing, checked: whether a classifier and settings fit together and fit the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from deqsmooth import config, data
from deqsmooth.certificates import record
from deqsmooth.config import checks, probability
from deqsmooth.models import classifiers, starts
from deqsmooth.smoothing.tally import Image
from deqsmooth.statistics import bounds

_TRIED = 8
# Images of 8 bits, with black as 0 and white as 255 or 256; of 10, 12 and 16 bits.
_GRIDS = (255, 256, 1023, 4095, 65535)
# Settings that each certificate has, too; and those that it has if its classifier solves for an equilibrium.
_OF_CERTIFICATES = ("sampler", "sigma", "alpha", "num_selection", "seed")
_OF_SOLVES = ("start", "solver", "budget", "tolerance", "dtype")


def given(dataset: data.Dataset, settings: config.Smoothing) -> None:
    """Raises `ValueError` unless these are a data set and settings of certificates."""
    made = "a data set, made by ds.arrays(images, labels) or ds.load_dataset"
    checks.kind("dataset", dataset, data.Dataset, made)
    checks.kind("settings", settings, config.Smoothing, "settings of certificates, made by ds.Smoothing")


def places(dataset: data.Dataset, indices: npt.ArrayLike) -> list[int]:
    """Indices of images of a data set.

    Raises:
      ValueError: they are no integers, there are none, or a data set of that length has no such images.
    """
    found = np.asarray(indices)
    if found.size == 0:
        raise ValueError("indices is empty; there must be at least one image")
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"indices are {found.dtype} of shape {found.shape}; they must be integers, one for each image to "
            "certify; those of a mask are numpy.flatnonzero(mask)"
        )
    for index in found[(found < 0) | (found >= len(dataset))][:1]:
        raise ValueError(f"indices has {index}; those of the data set are from 0 to {len(dataset) - 1}")
    return found.tolist()


def certificates(found: Iterable[record.Certificate], settings: config.Smoothing) -> list[record.Certificate]:
    """Certificates that were made with some settings.

    Raises:
      ValueError: an item is no certificate, or was made with other settings.
    """
    rule = "certificates, as ds.certify yields them and ds.read returns them"
    checks.kind("found", found, Iterable, rule)
    listed = list(found)
    for one in listed:
        checks.kind("an item of found", one, record.Certificate, "a certificate")
        for name in _OF_CERTIFICATES if one.solver is None else (*_OF_CERTIFICATES, *_OF_SOLVES):
            value, expected = getattr(one, name), getattr(settings, name)
            rule = f"{expected!r}, as in the settings of the certificates that are given"
            checks.holds(value == expected, f"{name} of the certificate of image {one.index}", value, rule)
        rule = f"that of {settings.noise!r} noise, as in the settings that are given"
        is_same = (one.noise_error > 0) == (settings.noise == "exact")
        checks.holds(is_same, f"noise_error of the certificate of image {one.index}", one.noise_error, rule)
    return listed


def images(classifier: classifiers.Classifier, given: npt.ArrayLike, settings: config.Smoothing) -> np.ndarray:
    """Images as float32 [images, H, W, C], if the classifier can be smoothed on them with these settings.

    Raises:
      ValueError: it cannot; see `data.check_images`. Or the noise is exact, and an image is not on its grid.
    """
    _check_settings(classifier, settings)
    found = data.check_images(given, classifier.image_shape)
    for number, image in enumerate(found if settings.grid else ()):
        _check_grid(settings, image, f"image {number}")
    return found


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
            image, label = dataset[index]
            _check_label(settings, index, label)
            return images(classifier, image[None], settings)[0]
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def read(
    classifier: classifiers.Classifier,
    dataset: data.Dataset,
    chosen: Sequence[int],
    settings: config.Smoothing,
    on_unreadable: Callable[[record.Unreadable], None] | None,
) -> Iterator[Image]:
    """Reads images of a data set, one after another.

    Args:
      classifier: the classifier.
      dataset: the images and labels.
      chosen: indices of the images.
      settings: of the certificates.
      on_unreadable: called for an image that cannot be used; None raises `ValueError` instead.
    """
    for index in chosen:
        try:
            image, label = dataset[index]
            _check_label(settings, index, label)
            data.check_images(image[None], classifier.image_shape)
            _check_grid(settings, image, "it")
        except ValueError as error:
            if on_unreadable is None:
                raise ValueError(f"image {index}: {error}") from None
            on_unreadable(record.Unreadable(index, str(error)))
        else:
            yield Image(index, image, label)


def _check_label(settings: config.Smoothing, index: int, label: int | None) -> None:
    """Raises `ValueError` if an image has no label and its settings need one."""
    rule = "known with only_correct, which ends an image whose selected class is another"
    checks.holds(not settings.only_correct or label is not None, f"the label of image {index}", label, rule)


def _check_grid(settings: config.Smoothing, image: np.ndarray, name: str) -> None:
    """Raises `ValueError` unless an image is on the grid of its exact noise, up to the rounding of float32."""
    if settings.grid is None or _is_on_grid(image, settings.grid):
        return
    wrong = image.ravel()[~_on_grid(image, settings.grid).ravel()][0]
    possible = probability.largest_grid(settings.sigma)
    other = [grid for grid in _GRIDS if grid <= possible and _is_on_grid(image, grid)]
    remedy = f"; it is on that of 1/{other[0]}: set grid to {other[0]}" if other else ", or noise 'gaussian'"
    raise ValueError(
        f"{name} has a pixel {wrong:.8g}; with exact noise pixels must be multiples of 1/{settings.grid}, the "
        f"grid{remedy}"
    )


def _on_grid(image: np.ndarray, grid: int) -> np.ndarray:
    points = np.round(image.astype(np.float64) * grid)
    # A quotient of float32, or one of float64 that is rounded.
    divided = points.astype(np.float32) / np.float32(grid)
    return (image == divided) | (image == (points / grid).astype(np.float32))


def _is_on_grid(image: np.ndarray, grid: int) -> bool:
    return bool(_on_grid(image, grid).all())


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
