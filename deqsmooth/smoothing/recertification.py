"""Recertification: certificates of a classifier become those of another one that is near it.

The other classifier may be quantised, fine-tuned or solved with fewer evaluations. Both are evaluated on a few
samples of every image (pairs). The pairs bound the probability that only the first classifier gives the class, and
this bound is subtracted from the lower bound of the first (Ugare et al. 2024, Incremental Randomized Smoothing).
The nearer the two are, the less radius is lost. The only cost is that of the pairs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deqsmooth import config, data
from deqsmooth.certificates import bound, record
from deqsmooth.config import checks, stopping
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, independent, inputs, noise
from deqsmooth.statistics import bounds

_IMAGES = 16
_LAYOUT = ("lanes", "images_per_batch", "block")
_BOUND = ("bound", "alpha_upper")
_ESTIMATION = ("looks", "spending", *stopping.RULES, "only_correct")
# The votes were drawn with these.
_SAME = ("sigma", "noise", "grid", "num_selection", "num_estimation", "alpha", "seed", *_ESTIMATION)


def settings_after(before: config.Smoothing, **change: Any) -> config.Paired:
    """Settings of the certificates of another classifier, for `ds.recertify`.

    Args:
      before: settings of the certificates that there are, with `sampler="independent"`. If they were made without
        a sampler, these are `ds.recommended(classifier, settings)`.
      change: what is different: the other classifier's `solver`, `budget`, `tolerance`, `start` or `dtype`;
        `num_pairs` and `alpha_pairs`.

    Returns:
      The settings before with the change, without `lanes`, `images_per_batch` and `block`.

    Raises:
      ValueError: the certificates are not those of independent sampling, or a setting breaks its rule.

    Example:
      >>> import deqsmooth as ds
      >>> before = ds.Smoothing(sampler="independent", sigma=0.5, budget=30)
      >>> after = ds.paired(before, budget=8, num_pairs=500)
      >>> after.budget, after.sigma, after.num_pairs, after.alpha_pairs
      (8, 0.5, 500, 0.0001)
    """
    checks.kind("before", before, config.Smoothing, "settings of certificates, made by ds.Smoothing")
    rule = "None: the equilibrium is certified whatever the solve, and another model is certified anew"
    checks.holds(before.settle is None, "settle", before.settle, rule)
    rule = "'gaussian': the pairs would be votes of another program, which may round differently"
    checks.holds(before.noise == "gaussian", "noise", repr(before.noise), rule)
    if before.sampler is None:
        raise ValueError(
            "before has no sampler; give the settings that were certified, ds.recommended(classifier, settings)"
        )
    if before.sampler != "independent" or before.bound not in (None, bounds.TWO_SIDED):
        raise ValueError(
            f"the certificates are of sampler {before.sampler!r} and bound {before.bound!r}; "
            "only certificates of the 'independent' sampler without pairs can be recertified"
        )
    same = {name: value for name, value in vars(before).items() if name not in (*_LAYOUT, *_BOUND)}
    return config.Paired(**{**same, **change})


def base_settings(settings: config.Smoothing, **change: Any) -> config.Smoothing:
    """Settings of independent sampling of the same base classifier, with `change`; no looks, pairs or layout."""
    names = {field.name for field in dataclasses.fields(config.Smoothing)} - {*_LAYOUT, *_ESTIMATION, *_BOUND}
    return config.Smoothing(**{**{name: getattr(settings, name) for name in names}, **change})


def check(
    before: tuple[classifiers.Classifier, config.Smoothing],
    after: tuple[classifiers.Classifier, config.Paired],
    image: np.ndarray,
) -> None:
    """Checks that certificates of one classifier can become those of another.

    Args:
      before: (classifier, settings) of the certificates.
      after: (classifier, settings) to certify, the settings from `ds.paired`.
      image: one of the data set, float32 [H, W, C].

    Raises:
      ValueError: the two classifiers are one, do not have the same number of classes, or one of them fails
        `deqsmooth.smoothing.certification.check`.
    """
    if before[0].sha256 == after[0].sha256 and base_settings(before[1]) == base_settings(after[1]):
        raise ValueError(
            "the classifier to certify is the one that is certified already; it must have another model, solver, "
            "budget, tolerance, start or dtype"
        )
    old, new = (
        certification.check(classifier, base_settings(settings), image) for classifier, settings in (before, after)
    )
    if old != new:
        raise ValueError(f"the classifiers have {old} and {new} classes; they must have the same classes")


def recertify(
    found: Sequence[record.Certificate],
    before: tuple[classifiers.Classifier, config.Smoothing],
    after: tuple[classifiers.Classifier, config.Paired],
    dataset: data.Dataset,
    *,
    skip_check: bool = False,
) -> Iterator[record.Certificate]:
    """Certifies images for a classifier that is near one for which they are certified (Ugare et al. 2024).

    The other classifier may be quantised, fine-tuned or solved with fewer evaluations. Both are evaluated on a few
    samples of every image (pairs), drawn with noise of their own. The pairs bound the probability that only the
    first classifier gives the class, and this bound is subtracted from the lower bound of the first. The selected
    class stays the same. The only cost is that of the pairs.

    Args:
      found: certificates of the images.
      before: (classifier, settings) of these certificates, with `sampler="independent"`.
      after: (classifier, settings) to certify, the settings from `ds.paired`. Its classifier may be the same one.
      dataset: the images, by the indices of the certificates.
      skip_check: whether the classifiers are not checked, because a call before did it.

    Yields:
      A certificate for each of `found`. Its `evaluations` are those of both classifiers on the pairs alone.

    Raises:
      ValueError: the certificates are of other settings; the two classifiers are one, or do not have the same
        number of classes; or one of them is no function of one image.

    Example:
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> import jax.numpy as jnp
      >>> def brightness(variables, images):
      ...     score = images.mean((1, 2, 3)) - variables
      ...     return jnp.stack([score, -score], -1)
      >>> old = ds.classifier(brightness, jnp.float32(0.3))
      >>> new = ds.classifier(brightness, jnp.float32(0.31))
      >>> images = np.full((1, 8, 8, 1), 0.4)
      >>> before = ds.Smoothing(sampler="independent", sigma=0.25, num_estimation=500)
      >>> after = ds.paired(before, num_pairs=200)
      >>> found = list(ds.certify(old, images, before))
      >>> (one,) = ds.recertify(found, (old, before), (new, after), ds.arrays(images))
      >>> one.prediction, one.bound, 0 < one.radius < found[0].radius
      (0, 'paired', True)
    """
    for name, pair, kind in (("before", before, config.Smoothing), ("after", after, config.Paired)):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], kind):
            made = "ds.paired" if name == "after" else "ds.Smoothing"
            raise ValueError(f"{name} must be a tuple of a classifier and its settings, made by {made}")
    before = (classifiers.classifier(before[0]), before[1])
    after = (classifiers.classifier(after[0]), after[1])
    settings = after[1]
    inputs.given(dataset, settings)
    for name in _SAME:
        value, rule = getattr(settings, name), f"{getattr(before[1], name)!r}, as in the settings before"
        checks.holds(value == getattr(before[1], name), f"{name} of the settings after", value, rule)
    found = inputs.certificates(found, before[1])
    if not found:
        return
    image = dataset[found[0].index][0]
    if not skip_check:
        check(before, after, image)
    both = [
        certification.prepare(classifier, base_settings(one), image.shape, len(found))
        for classifier, one in (before, after)
    ]
    for begin in range(0, len(found), _IMAGES):
        chunk = found[begin : begin + _IMAGES]
        started = time.perf_counter()
        indices = np.array([certificate.index for certificate in chunk])
        images = dataset.images(indices)
        votes = [
            list(independent.votes(programs, images, indices, noise.AUDIT, settings.num_pairs))
            for programs in both
        ]
        seconds = (time.perf_counter() - started) / len(chunk)
        for certificate, (old, spent), (new, spent_too) in zip(chunk, *votes, strict=True):
            lost = int(np.sum((old == certificate.selected) & (new != certificate.selected)))
            proved = bound.of_votes(
                settings, certificate.counts_selection, certificate.counts, pairs=settings.pairs(lost)
            )
            yield record.certificate(
                certificate.index,
                certificate.label,
                proved,
                settings,
                solves=both[1].assembly.solves,
                lanes=both[1].settings.lanes,
                work=record.Work(spent + spent_too, 0, np.empty(0), np.empty(0), seconds),
            )
