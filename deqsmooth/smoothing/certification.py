"""Certification: from a classifier and images to their certificates, step by step.

`prepare` resolves the settings, sizes the blocks and compiles the programs. Then every image goes one way: a
sampler counts its votes (selection, estimation, audit), the counts become a bound, and the bound becomes a
certificate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from deqsmooth import arithmetic, config, data, devices
from deqsmooth.certificates import bound, jsonl, plan, record, writing
from deqsmooth.config import checks
from deqsmooth.models import classifiers
from deqsmooth.smoothing import assembly, contract, cost, independent, inputs, layout, provenance, sampler, serial
from deqsmooth.smoothing.tally import Image


def certify(
    classifier: classifiers.Classifiable,
    images: npt.ArrayLike,
    settings: config.Smoothing,
    *,
    labels: npt.ArrayLike | None = None,
    indices: npt.ArrayLike | None = None,
    out: jsonl.Path | None = None,
    programs: sampler.Programs | None = None,
    skip_soundness_check: bool = False,
) -> Iterator[record.Certificate]:
    """Certifies images in order: for each a class, and an L2 radius within which the class cannot change.

    The smoothed classifier gives an image the class that the base classifier gives most often under Gaussian noise
    of standard deviation `settings.sigma`. The certificate follows from counts of noisy samples (Cohen et al.
    2019, CERTIFY). With the serial sampler, solves start from each other's equilibria and an audit corrects the
    count (Gao et al. 2024).

    This is a generator: everything is checked and compiled when the first certificate is asked for, before any
    sample. With `looks`, certificates come in the order in which sampling stops.

    Args:
      classifier: from `ds.classifier`, `ds.load`, `ds.load_checkpoint` or `ds.train`; or a function from images
        [lanes, H, W, C] to logits [lanes, classes] that treats every image by itself. A classifier without an
        equilibrium takes only the independent sampler.
      images: uint8, or floating point in [0, 1] [images, H, W, C].
      settings: of the certificates. Without a `sampler` the recommended method is used.
      labels: true classes, integers from 0 [images]; None if they are not known.
      indices: numbers of the images, on which their noise depends, different integers from 0 [images]; by default
        0, 1, ...
      out: file of the certificates, which is written or continued; see `ds.certify_dataset`.
      programs: what `deqsmooth.smoothing.certification.prepare` gave for this classifier and these settings; by
        default they are compiled here.
      skip_soundness_check: see `ds.certify_dataset`.

    Yields:
      A `ds.Certificate` for each image.

    Raises:
      ValueError: images, labels or indices break a rule; the settings do not fit the classifier; the classifier is
        no function of one image; `out` holds another run or cannot be written; or no block fits into a device's
        memory.

    Example:
      >>> import deqsmooth as ds
      >>> images, labels = ds.load_dataset("digits").take(range(2))
      >>> model = ds.load_checkpoint("digits", 0.5)
      >>> settings = ds.Smoothing(sigma=0.5, num_estimation=200)
      >>> for one in ds.certify(model, images, settings, labels=labels):
      ...     print(one.index, one.prediction, one.correct, one.radius > 0)
      0 2 True True
      1 8 True True
    """
    classifier = classifiers.classifier(classifier)
    checks.kind("settings", settings, config.Smoothing, "settings of certificates, made by ds.Smoothing")
    data.check_images(images, classifier.image_shape)
    dataset = data.of_arrays(images, labels, indices)
    yield from certify_dataset(
        classifier,
        dataset,
        range(len(dataset)) if indices is None else indices,
        settings,
        out=out,
        programs=programs,
        skip_soundness_check=skip_soundness_check,
    )


def certify_dataset(
    classifier: classifiers.Classifiable,
    dataset: data.Dataset,
    indices: npt.ArrayLike,
    settings: config.Smoothing,
    *,
    out: jsonl.Path | None = None,
    selection: config.Selection | None = None,
    programs: sampler.Programs | None = None,
    on_unreadable: Callable[[record.Unreadable], None] | None = None,
    skip_soundness_check: bool = False,
) -> Iterator[record.Certificate]:
    """Certifies images of a data set as `ds.certify` does, but reads each when its turn comes.

    Args:
      classifier: see `ds.certify`.
      dataset: the images and labels, from `ds.arrays` or `ds.load_dataset`.
      indices: of the images in the data set, integers [images].
      settings: of the certificates.
      out: file of the certificates (`.jsonl`), as `deqsmooth-certify` writes it; `indices` must then increase. If
        it exists, the run goes on: the certificates that it holds come first, and only the other images are
        sampled.
      selection: what the file says of the choice of the images; by default that they are images of arrays. Give
        the name and the split of a named data set, so that others can verify the file.
      programs: see `ds.certify`.
      on_unreadable: called with a `deqsmooth.certificates.record.Unreadable` for an image that cannot be read or
        that the classifier does not take; the others are certified. By default such an image raises.
      skip_soundness_check: whether the classifier is not checked to be a function of one image:
        certificates of one that is none are false. The file says so.

    Yields:
      A `ds.Certificate` for each image.

    Raises:
      ValueError: see `ds.certify`; or an index is none of the data set.

    Example:
      >>> import tempfile
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> def brightness(images):
      ...     return images.mean((1, 2)) @ np.array([[1, -1]]) + np.array([-0.3, 0.3])
      >>> dataset = ds.arrays(np.linspace(0, 1, 640).reshape(10, 8, 8, 1))
      >>> settings = ds.Smoothing(sigma=0.25, num_estimation=200)
      >>> out = tempfile.mkdtemp() + "/run.jsonl"
      >>> found = ds.certify_dataset(brightness, dataset, range(0, 10, 3), settings, out=out)
      >>> [one.prediction for one in found]
      [1, 0, 0, 0]
      >>> header, certificates = ds.read(out)
      >>> [one.index for one in certificates]
      [0, 3, 6, 9]
    """
    classifier = classifiers.classifier(classifier)
    inputs.given(dataset, settings)
    settings = recommended(classifier, settings)
    places = inputs.places(dataset, indices)
    if programs is not None:
        programs.check(classifier, settings)
    if programs is not None and skip_soundness_check and out is None:
        # Nothing is left to check, and a resumed run may have only images that cannot be read.
        yield from _certify(programs, inputs.read(classifier, dataset, places, settings, on_unreadable))
        return
    image = inputs.first_usable(classifier, dataset, places, settings)
    dataset.check_classes(check(classifier, settings, image, skip_soundness_check=skip_soundness_check))

    def run(
        left: Sequence[int], report: Callable[[record.Unreadable], None] | None
    ) -> Iterator[record.Certificate]:
        ready = programs or prepare(classifier, settings, image.shape, len(left))
        if not skip_soundness_check:
            ready.check_bits(image)
        return _certify(ready, inputs.read(classifier, dataset, left, settings, report))

    if out is None:
        yield from run(places, on_unreadable)
        return
    settings = fit(classifier, settings, image.shape, len(places))
    header = provenance.header(
        classifier,
        selection or config.Selection(dataset="arrays"),
        settings,
        dataset,
        image.shape,
        skip_soundness_check=skip_soundness_check,
    )
    with writing.Writer(out, header, plan.Plan(places)) as writer:

        def report(entry: record.Unreadable) -> None:
            writer.write(entry)
            if on_unreadable is not None:
                on_unreadable(entry)

        chosen = set(places)
        yield from [certificate for certificate in writer.done if certificate.index in chosen]
        left = writer.left()
        for certificate in run(left, report) if left else ():
            writer.write(certificate)
            yield certificate


def recommended(classifier: classifiers.Classifier, settings: config.Smoothing) -> config.Smoothing:
    """Settings with the method that is recommended for a classifier, unless they have a sampler.

    `ds.certify` takes these: independent sampling with looks and two-sided bounds, from the learned start if the
    classifier has one, else from zero. The budget from a learned start is 2, or that for which model and start
    were trained together.
    """
    start = classifier.start_training
    if start is not None and start.fine_tune is not None:
        return settings.recommended(True, start.budget)
    return settings.recommended(start is not None)


@arithmetic.standard()
def check(
    classifier: classifiers.Classifier,
    settings: config.Smoothing,
    image: np.ndarray,
    *,
    skip_soundness_check: bool = False,
) -> int:
    """Checks that the base classifier that settings certify is a function of one image; see `contract`.

    Args:
      classifier: from `ds.classifier`, `ds.load` or `ds.train`.
      settings: of the certificates, with a sampler.
      image: one that the classifier takes, float32 [H, W, C].
      skip_soundness_check: whether only shapes are checked.

    Returns:
      The number of classes.

    Raises:
      ValueError: it is no function of one image, gives the same logits to every image, or gives no logits of two
        classes.
    """
    resolved = layout.resolve(dataclasses.replace(settings, block=1))
    parts = assembly.assemble(classifier, resolved, image.shape)
    if not skip_soundness_check:
        contract.check(parts.logits, parts.parameters, image, own=classifier.size is None)
    return parts.num_classes


def prepare(
    classifier: classifiers.Classifier, settings: config.Smoothing, image_shape: tuple[int, ...], num_images: int
) -> sampler.Programs:
    """Compiles what the certification of some images needs.

    Args:
      classifier: from `ds.classifier`, `ds.load` or `ds.train`.
      settings: of the certificates.
      image_shape: (height, width, channels).
      num_images: of the largest run; the programs can certify any number.

    Returns:
      The programs, for the argument `programs` of `ds.certify`, `ds.certify_dataset` and `ds.predict`.

    Raises:
      ValueError: no block fits into the memory of a device, or the classifier gives no logits.

    Example:
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> classifier = ds.classifier(lambda images: images.mean((1, 2)) @ np.array([[1, -1]]) - 0.1)
      >>> settings = ds.Smoothing(sigma=0.25, num_estimation=200)
      >>> programs = prepare(classifier, settings, (8, 8, 1), 1)
      >>> for image in np.linspace(0.4, 0.6, 128).reshape(2, 8, 8, 1):
      ...     (one,) = ds.certify(classifier, image[None], settings, programs=programs)
    """
    fitting = fit(classifier, settings, image_shape, num_images)
    resolved = layout.resolve(fitting, num_images)
    return sampler.compile_programs(classifier, resolved, image_shape, devices.mesh())


def fit(
    classifier: classifiers.Classifier, settings: config.Smoothing, image_shape: tuple[int, ...], num_images: int
) -> config.Smoothing:
    """Settings with a sampler and a block.

    A block `auto` is the largest, of the default and its halves, that fits into a device's memory.

    Raises:
      ValueError: not even one row fits.
    """
    settings = recommended(classifier, settings)
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
        proved = bound.of_votes(
            settings,
            tally.counts_selection,
            tally.counts,
            noise_error=settings.noise_error(tally.image.pixels.shape),
            audit=tally.audit,
        )
        yield record.certificate(
            tally.image.index,
            tally.image.label,
            proved,
            settings,
            solves=programs.assembly.solves,
            lanes=settings.lanes,
            work=tally.work,
        )
