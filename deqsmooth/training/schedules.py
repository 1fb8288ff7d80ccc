"""Schedules: takes the settings and the size of the training split, gives the task and weights of every update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from deqsmooth import config
from deqsmooth.training import loop


class Task(NamedTuple):
    """Static description of an update.

    Attributes:
      pretraining: whether the cell is unrolled instead of solved for its equilibrium.
      penalised: whether the Jacobian penalty is computed.
      budget: cell evaluations of the forward pass.
      adversarial: whether images are first perturbed.
    """

    pretraining: bool
    penalised: bool
    budget: int
    adversarial: bool = False


class Weights(NamedTuple):
    """Numbers that change from update to update.

    Attributes:
      penalty: weight of the Jacobian penalty.
      radius: L2 radius within which images are perturbed.
    """

    penalty: float
    radius: float


def tasks(settings: config.Training, num_images: int, first: int = 0) -> Iterator[tuple[Task, Weights]]:
    """Yields the task and the weights of every update.

    Args:
      settings: settings of the training.
      num_images: number of images in the training split.
      first: number of the first update to yield; tasks and weights do not depend on it.
    """
    settings = settings.resolved()
    total = loop.num_updates(settings, num_images)
    pretraining = loop.num_updates(settings, num_images, settings.pretraining_epochs)
    end = loop.num_updates(settings, num_images, settings.jacobian_epochs)
    growth = max(1, loop.num_updates(settings, num_images, settings.adversarial_epochs))
    rng = np.random.default_rng(settings.seed)
    chosen = rng.random(total) < settings.jacobian_frequency
    low, high = settings.jacobian_budget
    change = rng.integers(low, high, total, endpoint=True)
    for number in range(first, total):
        before = number < pretraining
        weight = _weight(settings, number, before) if chosen[number] and number < end else 0.0
        penalised = weight > 0
        budget = settings.pretraining_budget if before else settings.budget + int(change[number]) * penalised
        radius = 0.0 if before else settings.adversarial_radius * min(1.0, (number + 1 - pretraining) / growth)
        yield Task(before, penalised, budget, radius > 0), Weights(weight, radius)


def _weight(settings: config.Training, number: int, pretraining: bool) -> float:
    """Returns the weight of the Jacobian penalty in an update that has it."""
    if pretraining and settings.pretraining_jacobian_weight is not None:
        return settings.pretraining_jacobian_weight
    return settings.jacobian_weight + settings.jacobian_increment * (number // settings.jacobian_interval)
