"""What compiled programs cost: bytes on a device, and seconds of an image."""

from __future__ import annotations

import time

import numpy as np

from deqsmooth import config
from deqsmooth.smoothing import sampler


def memory(programs: sampler.Programs) -> dict[str, int]:
    """Bytes that a device needs for each phase, besides the program's arguments."""
    return {
        phase: programs.compiled[key].memory_analysis().temp_size_in_bytes
        for phase, key in sampler.phases(programs.settings).items()
    }


def seconds(programs: sampler.Programs, image: np.ndarray) -> float:
    """Estimated seconds of an image [H, W, C] that needs every sample and evaluation, from one timed call."""
    settings = programs.settings
    batch = settings.images_per_batch
    num = settings.lanes if isinstance(settings, config.Independent) else settings.num_selection
    nothing = np.zeros(batch, np.uint32)
    begun = time.perf_counter()
    votes = programs(np.repeat(image[None], batch, 0), nothing, nothing, np.tile(np.arange(num), (batch, 1)))
    elapsed = time.perf_counter() - begun
    if isinstance(settings, config.Independent):
        return elapsed / (batch * num) * (settings.num_selection + settings.num_estimation)
    return elapsed / float(votes.evaluations.sum() + votes.warm_up.sum()) * settings.evaluations
