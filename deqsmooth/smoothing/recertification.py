"""Certificates of a network from those of another: the old votes, and a few samples on which both are evaluated.

For a quantised, fine-tuned or shorter solved copy of a network that is certified already. What the copy may have
lost of a class's votes is bounded from the pairs (Ugare et al. 2024, Incremental Randomized Smoothing); the nearer
it is to the original, the less is lost, and the cost is that of the pairs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from deqsmooth import config, data
from deqsmooth.certificates import bound, record
from deqsmooth.models import checkpoints
from deqsmooth.smoothing import certification, independent, noise

_IMAGES = 16


def settings_after(before: config.Smoothing, **change: object) -> config.Smoothing:
    """Settings of the certificates of another classifier.

    Args:
      before: settings of the certificates that there are.
      change: what is different: the other classifier's solver, budget, start or dtype; `num_audit` and
        `alpha_audit`, the number of pairs and their part of alpha.

    Raises:
      ValueError: the certificates are not those of independent sampling, or a setting breaks its rule.
    """
    if before.sampler != "independent" or before.bound is not None:
        raise ValueError(
            f"the certificates are of sampler {before.sampler!r} and bound {before.bound!r}; "
            "others can be made of 'independent' ones with a bound of their own"
        )
    common = {"bound": "paired", "lanes": None, "images_per_batch": None, "block": None}
    return dataclasses.replace(before, **{**common, **change})  # type: ignore[arg-type]


def recertify(
    found: Sequence[record.Certificate],
    before: tuple[checkpoints.Checkpoint, config.Smoothing],
    after: tuple[checkpoints.Checkpoint, config.Smoothing],
    dataset: data.Dataset,
) -> Iterator[record.Certificate]:
    """Certifies images for another classifier.

    The class stays the one that was selected; the pairs have noise of their own.

    Args:
      found: certificates of the images.
      before: the classifier that they are about, and their settings.
      after: the classifier to certify, and its settings, from `settings_after`.
      dataset: the images.

    Yields:
      A certificate for each that there was, with the pairs in `num_audit`, those in which only the old classifier
      gives the class in `mismatches`, and the cell evaluations of both in `evaluations`.

    Raises:
      ValueError: the two classifiers do not tell the same classes apart.
    """
    if not found:
        return
    settings = certification.resolve(after[1])
    shape = dataset.take([found[0].index])[0].shape[1:]
    both = [
        certification.prepare(checkpoint, certification.plain(one), shape, len(found))
        for checkpoint, one in (before, after)
    ]
    if both[0].num_classes != both[1].num_classes:
        raise ValueError(
            f"one classifier tells {both[0].num_classes} classes apart, the other {both[1].num_classes}"
        )
    for begin in range(0, len(found), _IMAGES):
        chunk = found[begin : begin + _IMAGES]
        started = time.perf_counter()
        indices = np.array([certificate.index for certificate in chunk])
        images = dataset.take(indices.tolist())[0]
        votes = [
            list(independent.votes(programs, images, indices, noise.AUDIT, settings.num_audit))
            for programs in both
        ]
        seconds = (time.perf_counter() - started) / len(chunk)
        for certificate, (old, spent), (new, spent_too) in zip(chunk, *votes, strict=True):
            lost = (old == certificate.selected) & (new != certificate.selected)
            fields = bound.fields(
                settings,
                both[1].solves,
                selected=certificate.selected,
                counts_selection=np.array(certificate.counts_selection),
                counts=np.array(certificate.counts),
                residual=np.empty(0),
                evaluations=spent + spent_too,
                fallbacks=0,
                audit={"audited": settings.num_audit, "mismatches": int(lost.sum())},
            )
            yield certification.certificate(certificate.index, certificate.label, fields, seconds)
