"""Certification: from a classifier and images to their certificates, step by step.

`prepare` resolves the settings, sizes the blocks and compiles the programs. Then every image goes one way: a
sampler counts its votes (selection, estimation, audit), the counts become a bound, and the bound becomes a
certificate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from deqsmooth import config, data, devices
from deqsmooth.certificates import bound, record
from deqsmooth.models import classifiers
from deqsmooth.smoothing import cost, independent, inputs, layout, sampler, serial
from deqsmooth.smoothing.tally import Image


def certify(
    classifier: classifiers.Classifiable,
    images: np.ndarray,
    settings: config.Smoothing,
    *,
    labels: npt.ArrayLike | None = None,
    indices: npt.ArrayLike | None = None,
    programs: sampler.Programs | None = None,
) -> Iterator[record.Certificate]:
    """Certifies images in order; with `looks`, certificates come in the order in which sampling stops.

    Everything is checked and compiled when the first certificate is asked for, before any sample.

    Args:
      classifier: a `classifiers.Classifier`, or, with the independent sampler, any function from images
        [lanes, H, W, C] to logits [lanes, classes] that treats its lanes independently and alike. A
        `jax.tree_util.Partial` over its parameters keeps them out of the compiled program.
      images: float in [0, 1] [images, H, W, C].
      settings: of the certificates.
      labels: true classes [images]; None if they are not known.
      indices: of the images in their data set [images], on which their noise depends; by default 0, 1, ...
      programs: what `prepare` gave for these arguments, if it was called before.

    Yields:
      A certificate for each image.

    Raises:
      ValueError: an argument breaks its rule.

    Example:
      >>> import deqsmooth as ds
      >>> images, labels = ds.load_dataset("digits").take(range(2))
      >>> settings = ds.Smoothing(sampler="independent", start="learned", budget=1, num_estimation=200)
      >>> found = list(ds.certify(ds.load_checkpoint("digits", 0.5), images, settings))
      >>> [certificate.prediction for certificate in found] == labels.tolist()
      True
    """
    classifier = classifiers.classifier(classifier)
    images = inputs.images(classifier, images, settings)
    places = inputs.indices(indices, images).tolist()
    truths = [None] * len(images) if labels is None else inputs.one_each("labels", labels, images).tolist()
    if programs is None:
        programs = prepare(classifier, settings, images.shape[1:], len(images))
    yield from _certify(programs, map(Image, places, images, truths))


def certify_dataset(
    classifier: classifiers.Classifiable,
    dataset: data.Dataset,
    indices: npt.ArrayLike,
    settings: config.Smoothing,
    programs: sampler.Programs | None = None,
    on_unreadable: Callable[[record.Unreadable], None] | None = None,
) -> Iterator[record.Certificate]:
    """Certifies images of a data set as `certify` does, but reads each when its turn comes.

    Args:
      classifier: see `certify`.
      dataset: the images and labels.
      indices: of the images.
      settings: of the certificates.
      programs: what `prepare` gave for these arguments, if it was called before.
      on_unreadable: called for an image that cannot be read or that the classifier does not take; the others are
        certified. By default such an image raises.

    Yields:
      A certificate for each image.

    Raises:
      ValueError: an argument or an image breaks its rule.
    """
    classifier = classifiers.classifier(classifier)
    places = np.asarray(indices).tolist()

    def read() -> Iterator[Image]:
        for index in places:
            try:
                image, label = dataset[index]
                inputs.images(classifier, image[None], settings)
            except ValueError as error:
                if on_unreadable is None:
                    raise ValueError(f"image {index}: {error}") from None
                on_unreadable(record.Unreadable(index, str(error)))
            else:
                yield Image(index, image, label)

    if programs is None:
        programs = prepare(classifier, settings, dataset[places[0]][0].shape, len(places))
    yield from _certify(programs, read())


def prepare(
    classifier: classifiers.Classifier, settings: config.Smoothing, image_shape: tuple[int, ...], num_images: int
) -> sampler.Programs:
    """Compiles what the certification of some images needs.

    Args:
      classifier: the classifier.
      settings: of the certificates.
      image_shape: [H, W, C].
      num_images: of the run.

    Raises:
      ValueError: no block fits into the memory of a device, or the classifier gives no logits.
    """
    fitting = fit(classifier, settings, image_shape, num_images)
    resolved = layout.resolve(fitting, num_images)
    return sampler.compile_programs(classifier, resolved, image_shape, devices.mesh())


def fit(
    classifier: classifiers.Classifier, settings: config.Smoothing, image_shape: tuple[int, ...], num_images: int
) -> config.Smoothing:
    """Settings whose block `auto` is the largest, of the default and its halves, that fits into a device's memory.

    Raises:
      ValueError: not even one row fits.
    """
    if settings.block != "auto":
        return settings
    block, available = layout.default_block(), devices.memory()
    while True:
        fitting = dataclasses.replace(settings, block=block)
        try:
            needed = max(cost.memory(prepare(classifier, fitting, image_shape, num_images)).values())
        except RuntimeError as error:
            if not devices.is_out_of_memory(error):
                raise
            needed = available + 1
        if needed <= available:
            return fitting
        if block == 1:
            raise ValueError(f"block is 'auto'; even 1 needs {needed:,} bytes of a device that has {available:,}")
        block //= 2


def _certify(programs: sampler.Programs, images: Iterator[Image]) -> Iterator[record.Certificate]:
    settings = programs.settings
    if isinstance(settings, config.Serial):
        tallies = serial.tallies(programs, settings, images)
    else:
        tallies = independent.tallies(programs, settings, images)
    for tally in tallies:
        proved = bound.of_votes(settings, tally.counts_selection, tally.counts, audit=tally.audit)
        yield record.certificate(
            tally.image.index,
            tally.image.label,
            proved,
            settings,
            solves=programs.assembly.solves,
            lanes=settings.lanes,
            work=tally.work,
        )
