"""Serial sampling: batches of images, each with its chains and its audit, become tallies."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np

from deqsmooth import arithmetic, config
from deqsmooth.certificates import bound, record
from deqsmooth.smoothing import noise, sampler
from deqsmooth.smoothing.tally import Image, Tally


def tallies(programs: sampler.Programs, settings: config.Serial, images: Iterator[Image]) -> Iterator[Tally]:
    """Counts the votes of images in order, batch by batch.

    Args:
      programs: compiled sampling.
      settings: those of the programs.
      images: read as they are needed.

    Yields:
      The tally of each image.
    """
    while batch := list(itertools.islice(images, settings.images_per_batch)):
        yield from _batch(programs, settings, batch)


def _batch(programs: sampler.Programs, settings: config.Serial, batch: list[Image]) -> Iterator[Tally]:
    """Selection, estimation and audit of a batch."""
    begun = time.perf_counter()
    pixels, indices = np.stack([image.pixels for image in batch]), np.array([image.index for image in batch])

    def sample(phase: int, num: int) -> sampler.Votes:
        return programs(pixels, indices, np.full(len(batch), phase), np.tile(np.arange(num), (len(batch), 1)))

    def count(votes: sampler.Votes) -> list[tuple[int, ...]]:
        size = programs.assembly.num_classes + 1
        return [tuple(np.bincount(row, minlength=size).tolist()) for row in votes.votes]

    selection = sample(noise.SELECTION, settings.num_selection)
    estimation = sample(noise.ESTIMATION, settings.num_estimation)
    counts_selection, counts = count(selection), count(estimation)
    selected = [bound.selected_class(one) for one in counts_selection]

    tables = [
        _draw(settings, image.index, votes == chosen)
        for image, votes, chosen in zip(batch, estimation.votes, selected, strict=True)
    ]
    padded = np.stack([np.pad(drawn, (0, settings.num_audit - len(drawn))) for drawn in tables])
    again = programs(pixels, indices, np.full(len(batch), noise.ESTIMATION), padded, reference=True)

    calls = (selection, estimation, again)
    evaluations = sum(x.evaluations.sum(1, dtype=np.int64) + x.warm_up for x in calls)
    fallbacks = sum(x.fallbacks.sum(1, dtype=np.int64) for x in calls)
    seconds = (time.perf_counter() - begun) / len(batch)
    for i, image in enumerate(batch):
        size = len(tables[i])
        yield Tally(
            image,
            counts_selection[i],
            counts[i],
            settings.audit(size, int(np.sum(again.votes[i, :size] != selected[i]))),
            record.Work(
                int(evaluations[i]), int(fallbacks[i]), estimation.residual[i], again.residual[i, :size], seconds
            ),
        )


@arithmetic.standard()
def _draw(settings: config.Serial, index: int, is_for_class: np.ndarray) -> np.ndarray:
    """Samples that the audit solves again: a random subset of the votes for the class [at most num_audit].

    The key of the draw has its own phase, so that it is independent of the noise; see `bounds.exact_lower`.
    """
    key = noise.phase_key(settings.seed, index, noise.AUDIT)
    order = np.asarray(noise.audit_order(key, len(is_for_class)))
    return order[is_for_class[order]][: settings.num_audit]
