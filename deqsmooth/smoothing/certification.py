"""The certification of images: what may be certified, on which devices, and the certificates that come of it.

It has the sampling programs compiled, once for a data set; `serial` and `independent` draw the samples and
`bound` makes a bound of the votes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from deqsmooth import config, data, devices, types
from deqsmooth.certificates import bound, record
from deqsmooth.models import checkpoints
from deqsmooth.smoothing import independent, sampler, serial
from deqsmooth.statistics import looks

_DEFAULT_LANES = 100
_BLOCK = {"cpu": 100}
_BLOCK_ELSEWHERE = 400
_EVALUATIONS_PER_ROW = 32
_ROWS_PER_LANE = 32
_TRIED = 8


def certify(
    classifier: sampler.Classifier,
    images: np.ndarray,
    settings: config.Smoothing,
    *,
    labels: npt.ArrayLike | None = None,
    indices: npt.ArrayLike | None = None,
    programs: sampler.Programs | None = None,
) -> Iterator[record.Certificate]:
    """Certifies images, in order; with `looks`, each as soon as its sampling ends.

    Everything is checked and compiled when the first certificate is asked for, before any sample.

    Args:
      classifier: a `checkpoints.Checkpoint`, or, with the independent sampler, any function from
        images [lanes, H, W, C] to logits [lanes, classes] that treats its lanes alike and apart. A
        `jax.tree_util.Partial` over its parameters keeps them out of the compiled program.
      images: float in [0, 1] [images, H, W, C].
      settings: of the certificates.
      labels: true classes; None if they are not known.
      indices: number of each image in its data set, on which its noise depends; by default 0, 1, ...
      programs: what `prepare` gave for these arguments, if it was called before.

    Yields:
      A certificate for each image.

    Raises:
      ValueError: an argument breaks its rule.

    Example:
      >>> import deqsmooth as ds
      >>> images, labels = ds.load_dataset("digits").take(range(2))
      >>> settings = ds.Smoothing(sigma=0.5, num_estimation=1000, num_audit=100)
      >>> found = list(ds.certify(ds.load_checkpoint("digits", 0.5), images, settings))
      >>> [certificate.prediction for certificate in found] == labels.tolist()
      True
    """
    images = checked(classifier, images, settings)
    places = numbered(images, indices)
    truths = None if labels is None else _one_each("labels", labels, images)

    if programs is None:
        programs = prepare(classifier, settings, images.shape[1:], len(images))
    known = [None] * len(images) if truths is None else truths.tolist()
    yield from _certify(programs, map(bound.Image, places.tolist(), images, known))


def certify_dataset(
    classifier: sampler.Classifier,
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
      on_unreadable: called for an image that cannot be read, or that the classifier cannot take; the others are
        certified. By default such an image raises.

    Raises:
      ValueError: an argument or an image breaks its rule.
    """
    places = np.asarray(indices).tolist()

    def read():
        for index in places:
            try:
                image, label = dataset[index]
                checked(classifier, image[None], settings)
            except ValueError as error:
                if on_unreadable is None:
                    raise ValueError(f"image {index}: {error}") from None
                on_unreadable(record.Unreadable(index, str(error)))
            else:
                yield bound.Image(index, image, label)

    if programs is None:
        programs = prepare(classifier, settings, dataset[places[0]][0].shape, len(places))
    yield from _certify(programs, read())


def prepare(
    classifier: sampler.Classifier, settings: config.Smoothing, image_shape: tuple[int, ...], num_images: int
) -> sampler.Programs:
    """Compiles what the certification of some images needs."""
    settings = resolve(fit(classifier, settings, image_shape, num_images))
    if settings.sampler == "serial":
        fewer = min(settings.images_per_batch, num_images)
        settings = dataclasses.replace(settings, images_per_batch=fewer)
    return sampler.Programs(classifier, settings, devices.mesh(), image_shape)


def fit(
    classifier: sampler.Classifier, settings: config.Smoothing, image_shape: tuple[int, ...], num_images: int
) -> config.Smoothing:
    """Settings whose block `auto` is the largest, of the default and its halves, that the devices have memory for.

    Raises:
      ValueError: there is none.
    """
    if settings.block != "auto":
        return settings
    block, available = default_block(), devices.memory()
    while True:
        fitting = dataclasses.replace(settings, block=block)
        try:
            needed = max(prepare(classifier, fitting, image_shape, num_images).memory().values())
        except RuntimeError as error:
            if not devices.is_out_of_memory(error):
                raise
            needed = available + 1
        if needed <= available:
            return fitting
        if block == 1:
            raise ValueError(f"block is 'auto'; even 1 needs {needed:,} bytes of a device that has {available:,}")
        block //= 2


def default_block() -> int:
    """Rows in one compiled evaluation, where nothing else is said."""
    return _BLOCK.get(jax.default_backend(), _BLOCK_ELSEWHERE)


def _certify(programs, images):
    settings = programs.settings
    way = {"serial": serial, "independent": independent}[settings.sampler]
    for image, fields, seconds in way.certify(programs, settings, images):
        yield certificate(image.index, image.label, fields, seconds)


def certificate(index: int, label: int | None, fields: dict[str, Any], seconds: float) -> record.Certificate:
    """The certificate of an image, from what `bound.fields` says of it."""
    correct = None if label is None else fields["prediction"] == label
    return record.Certificate(index=index, label=label, correct=correct, seconds=seconds, **fields)


def checked(classifier: sampler.Classifier, images: np.ndarray, settings: config.Smoothing) -> np.ndarray:
    """Images as float32, if `certify` can take them with this classifier and these settings.

    Raises:
      ValueError: it cannot.
    """
    images = np.asarray(images)
    if images.ndim != 4 or len(images) == 0 or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; they must be floating point, "
            "[images, height, width, channels]"
        )
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images go from {images.min():g} to {images.max():g}; pixels must be finite numbers in [0, 1]"
        )
    if isinstance(classifier, checkpoints.Checkpoint):
        shape = classifier.model.image_shape
        if images.shape[1:] != shape:
            raise ValueError(f"images have shape {images.shape[1:]}; the model takes {shape}")
    if settings.sampler != "independent" and not solves(classifier):
        raise ValueError(
            f"sampler is {settings.sampler!r}; a classifier without an equilibrium has only 'independent'"
        )
    if settings.bound == "paired":
        raise ValueError("bound is 'paired'; it is that of certificates made from those of another classifier")
    if settings.dtype != "float32" and not solves(classifier):
        raise ValueError(
            f"dtype is {settings.dtype!r}; it is that of the cell, which a classifier without an equilibrium lacks"
        )
    if settings.start in ("constant", "learned") and getattr(classifier, "start", None) is None:
        raise ValueError(
            f"start is {settings.start!r}; the checkpoint has no trained start: train.py --phase start makes one"
        )
    return images.astype(np.float32)


def first_usable(
    classifier: sampler.Classifier, dataset: data.Dataset, indices: Sequence[int], settings: config.Smoothing
) -> np.ndarray:
    """The first image of some indices [H, W, C] that a classifier can take.

    Raises:
      ValueError: none of the first eight can be taken; says what is wrong with the first.
    """
    for index in (*indices[:_TRIED], indices[0]):
        try:
            return checked(classifier, dataset[index][0][None], settings)[0]
        except ValueError as error:
            reason = error
    raise reason


def numbered(images: np.ndarray, indices: npt.ArrayLike | None) -> np.ndarray:
    """Numbers of images in their data set; 0, 1, ... if they are not given.

    Raises:
      ValueError: there are not as many as images.
    """
    return np.arange(len(images)) if indices is None else _one_each("indices", indices, images)


def _one_each(name, values, images) -> np.ndarray:
    values = np.asarray(values)
    if len(values) != len(images):
        raise ValueError(f"{name} has {len(values)} entries; there are {len(images)} images")
    return values


def plain(settings: config.Smoothing, **change: Any) -> config.Smoothing:
    """The classifier of settings of the independent sampler, without their looks, pairs and sizes of programs."""
    sizes = dict.fromkeys(("lanes", "images_per_batch", "block"))
    statistics = dict.fromkeys(
        ("bound", "num_audit", "alpha_audit", "looks", "spending", "stop_radius", "stop_gain")
    )
    return dataclasses.replace(settings, **{**sizes, **statistics, **change})


def solves(classifier: sampler.Classifier) -> bool:
    """Whether a classifier has an equilibrium to solve for."""
    return isinstance(classifier, checkpoints.Checkpoint) and isinstance(classifier.model, types.Model)


def resolve(settings: config.Smoothing) -> config.Smoothing:
    """Settings with the numbers that depend on the devices filled in, and with how looks share alpha.

    Raises:
      ValueError: the block is `auto`, which `fit` resolves.
    """
    if settings.block == "auto":
        raise ValueError("block is 'auto'; how much fits depends on the classifier")
    lanes = settings.lanes or _DEFAULT_LANES
    block = settings.block or default_block()
    rows = block * devices.mesh().size
    if settings.refills:
        # At the end of a call lanes wait for the last solves: it should be far from the beginning.
        rows *= _ROWS_PER_LANE
    elif settings.sampler == "independent":
        # A call of short solves takes more samples, so that what surrounds it is small beside it.
        rows *= max(1, _EVALUATIONS_PER_ROW // settings.budget)
    images_per_batch = settings.images_per_batch or max(1, rows // lanes)
    spending = settings.spending or (looks.PROPORTIONAL if settings.looks else None)
    return dataclasses.replace(
        settings, lanes=lanes, block=block, images_per_batch=images_per_batch, spending=spending
    )
