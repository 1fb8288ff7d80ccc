"""Prediction: images become classes of the smoothed classifier, without a radius (Cohen et al. 2019, PREDICT)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deqsmooth import config, data
from deqsmooth.certificates import predictions
from deqsmooth.config import checks, stopping
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, independent, inputs, noise, sampler


class Prediction(NamedTuple):
    """The prediction of one image.

    Attributes:
      label: class that the smoothed classifier gives, with probability at least 1 - alpha; None if it abstains.
      counts: votes by class; the last entry counts samples that were not finite.
    """

    label: int | None
    counts: tuple[int, ...]


def predict(
    classifier: classifiers.Classifiable,
    images: npt.ArrayLike,
    settings: config.Smoothing,
    *,
    indices: npt.ArrayLike | None = None,
    programs: sampler.Programs | None = None,
    skip_soundness_check: bool = False,
) -> Iterator[Prediction]:
    """Predicts the smoothed classifier's class of images, in order (Cohen et al. 2019, PREDICT).

    A two-sided binomial test compares the two classes with the most votes. A class that is not the smoothed
    classifier's is returned with probability at most `settings.alpha` (Hung & Fithian 2019). This is a generator,
    as `ds.certify` is.

    Args:
      classifier: see `ds.certify`.
      images: uint8, or floating point in [0, 1] [images, H, W, C].
      settings: of the independent sampler, without looks; `num_estimation` votes are drawn, and no selection.
        Without a sampler, the recommended start is used; see `ds.Smoothing`.
      indices: number of each image, on which its noise depends [images]; by default 0, 1, ...
      programs: see `ds.certify`.
      skip_soundness_check: see `ds.certify_dataset`.

    Yields:
      The prediction of each image.

    Raises:
      ValueError: see `ds.certify`; or the settings are of the serial sampler, or have looks.

    Example:
      >>> import deqsmooth as ds
      >>> images, labels = ds.load_dataset("digits").take(range(2))
      >>> settings = ds.Smoothing(sigma=0.5, num_estimation=100)
      >>> model = ds.load_checkpoint("digits", 0.5)
      >>> [prediction.label for prediction in ds.predict(model, images, settings)]
      [2, 8]
    """
    classifier = classifiers.classifier(classifier)
    checks.kind("settings", settings, config.Smoothing, "settings of certificates, made by ds.Smoothing")
    settings = voting(classifier, settings)
    images = inputs.images(classifier, images, settings)
    places = np.arange(len(images)) if indices is None else data.check_indices(indices, len(images))
    certification.check(classifier, settings, images[0], skip_soundness_check=skip_soundness_check)
    if programs is not None:
        programs.check(classifier, settings)
    else:
        programs = certification.prepare(classifier, settings, images.shape[1:], len(images))
    if not skip_soundness_check:
        programs.check_bits(images[0])
    error = settings.noise_error(images.shape[1:])
    for votes, _ in independent.votes(programs, images, places, noise.PREDICTION, settings.num_estimation):
        counts = np.bincount(votes, minlength=programs.assembly.num_classes + 1).tolist()
        yield Prediction(predictions.smoothed_class(counts, settings, error), tuple(counts))


def voting(classifier: classifiers.Classifier, settings: config.Smoothing) -> config.Smoothing:
    """Settings with which predictions are made: these, or without a sampler those recommended for a classifier.

    Raises:
      ValueError: they are not of independent votes, all counted at once.
    """
    if settings.sampler != "serial":
        rule = "left out in a prediction, which has no radius"
        checks.holds(settings.bound is None, "bound", settings.bound, rule)
    if settings.sampler is None and settings.looks is None:
        chosen = certification.recommended(classifier, settings)
        without = ("looks", "spending", *stopping.RULES, "bound", "alpha_upper")
        at_the_end: dict[str, Any] = dict.fromkeys(without)
        return dataclasses.replace(chosen, **at_the_end, only_correct=False)
    if settings.sampler != "independent" or settings.looks:
        raise ValueError(
            f"sampler is {settings.sampler or 'not given'} and looks is {settings.looks}; "
            "a prediction takes 'independent' votes, all at once"
        )
    return settings
