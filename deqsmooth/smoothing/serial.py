"""Certification by serial sampling: batches of images, each with its chains, its audit and its bound."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from deqsmooth import config
from deqsmooth.certificates import bound
from deqsmooth.smoothing import noise, sampler


def certify(
    programs: sampler.Programs, settings: config.Smoothing, images: Iterator[bound.Image]
) -> Iterator[bound.Found]:
    """Certifies images in order, batch by batch.

    Args:
      programs: compiled sampling.
      settings: of the certificates, complete.
      images: read as they are needed.

    Yields:
      What was found for each image.
    """
    while True:
        begun = time.perf_counter()
        batch = list(itertools.islice(images, settings.images_per_batch))
        if not batch:
            return
        pixels, indices = np.stack([image.pixels for image in batch]), np.array([image.index for image in batch])
        found = _certify_batch(programs, settings, pixels, indices)
        seconds = (time.perf_counter() - begun) / len(batch)
        for image, fields in zip(batch, found, strict=True):
            yield bound.Found(image, fields, seconds)


def _certify_batch(programs, settings, images, indices) -> list[dict[str, Any]]:
    """Fields of the certificates of a batch of images."""
    num_classes = programs.num_classes

    def sample(phase, num):
        samples = np.tile(np.arange(num), (len(images), 1))
        return programs(images, indices, np.full(len(images), phase), samples)

    def count(votes):
        return np.stack([np.bincount(row, minlength=num_classes + 1) for row in votes])

    selection = sample(noise.SELECTION, settings.num_selection)
    estimation = sample(noise.ESTIMATION, settings.num_estimation)
    counts_selection, counts = count(selection.votes), count(estimation.votes)
    selected = np.argmax(counts_selection[:, :num_classes], 1)
    audits, audit = _audit(programs, settings, images, indices, selected, estimation.votes)
    phases = (selection, estimation, audit)
    evaluations = sum(x.evaluations.sum(1, dtype=np.int64) + x.warm_up for x in phases)
    fallbacks = sum(x.fallbacks.sum(1, dtype=np.int64) for x in phases)
    return [
        bound.fields(
            settings,
            programs.solves,
            selected=int(selected[i]),
            counts_selection=counts_selection[i],
            counts=counts[i],
            residual=estimation.residual[i],
            evaluations=int(evaluations[i]),
            fallbacks=int(fallbacks[i]),
            audit=audits[i],
        )
        for i in range(len(images))
    ]


def _audit(programs, settings, images, indices, selected, votes):
    """Solves votes for the selected class again with the reference; see `bounds.audited_lower`."""
    tables, sizes = [], []
    for index, chosen, row in zip(indices, selected, votes, strict=True):
        order = np.asarray(noise.audit_order(noise.phase_key(settings.seed, int(index), noise.AUDIT), len(row)))
        drawn = order[row[order] == chosen][: settings.num_audit]
        sizes.append(len(drawn))
        tables.append(np.pad(drawn, (0, settings.num_audit - len(drawn))))
    phases = np.full(len(images), noise.ESTIMATION)
    found = programs(images, indices, phases, np.stack(tables), reference=True)
    audits = [
        {
            "audited": size,
            "mismatches": int(np.sum(found.votes[i, :size] != selected[i])),
            "residual": found.residual[i, :size],
        }
        for i, size in enumerate(sizes)
    ]
    return audits, found
