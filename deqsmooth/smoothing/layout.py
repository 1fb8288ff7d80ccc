"""The layout of a run: how many lanes, rows and images are computed side by side.

Takes settings, fills in the numbers that depend on the devices, gives resolved settings.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax

from deqsmooth import config, devices
from deqsmooth.statistics import looks

_LANES = 100
# On a CPU the activations of so few rows stay in its caches.
_BLOCK = {"cpu": 25}
_BLOCK_ELSEWHERE = 400
# A call has about so many rows on a device, in several blocks if they are smaller, so that its overhead is small.
_LEAST_ROWS = 100
# For the same reason a call of short solves has more rows: about as many evaluations as one of long solves.
_EVALUATIONS_PER_ROW = 32
# At the end of a call of continuous batching lanes are idle; many rows a lane make that a small share.
_ROWS_PER_LANE = 32

_NAMES = [field.name for field in dataclasses.fields(config.Smoothing)]
AnySettings = TypeVar("AnySettings", bound=config.Smoothing)


def default_block() -> int:
    """Rows in one compiled evaluation by default, for the devices of this process."""
    return _BLOCK.get(jax.default_backend(), _BLOCK_ELSEWHERE)


def fill(settings: AnySettings) -> AnySettings:
    """Settings with lanes, block, images_per_batch and spending filled in.

    Raises:
      ValueError: the block is `auto`, which `certification.fit` resolves.
    """
    if settings.block == "auto":
        raise ValueError("block is 'auto'; how much fits depends on the classifier")
    lanes = settings.lanes or _LANES
    block = settings.block or default_block()
    images_per_batch = settings.images_per_batch or max(1, _rows(settings, block) // lanes)
    spending = settings.spending or (looks.PROPORTIONAL if settings.looks else None)
    return dataclasses.replace(
        settings, lanes=lanes, block=block, images_per_batch=images_per_batch, spending=spending
    )


def resolve(settings: config.Smoothing, num_images: int | None = None) -> config.Serial | config.Independent:
    """Resolved settings of a sampler.

    Args:
      settings: of the run.
      num_images: of the run; a serial batch holds no more.

    Raises:
      ValueError: see `fill`.
    """
    filled = vars(fill(settings))
    if settings.sampler == "independent":
        return config.Independent(**{name: filled[name] for name in _NAMES})
    resolved = config.Serial(**{name: filled[name] for name in _NAMES})
    if num_images is None:
        return resolved
    return dataclasses.replace(resolved, images_per_batch=min(resolved.images_per_batch, num_images))


def _rows(settings: config.Smoothing, block: int) -> int:
    """Rows of one call."""
    rows = block * max(1, _LEAST_ROWS // block) * devices.mesh().size
    if settings.sampler == "serial":
        return rows
    if settings.continuous:
        return rows * _ROWS_PER_LANE
    return rows * max(1, _EVALUATIONS_PER_ROW // (settings.budget or 1))
