"""A warning where a training ends with a model that has learned nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from deqsmooth import config
from deqsmooth.training import loop

LARGEST = 1.5
"""Accuracy under noise up to which a training warns, as a multiple of that of guessing."""


def warned(run: Iterator[loop.Progress], settings: config.Training, num_classes: int) -> Iterator[loop.Progress]:
    """Passes on the progress of a training; warns after the last update if the model is no better than guessing.

    Warns:
      UserWarning: the last evaluation's accuracy under noise is at most `LARGEST / num_classes`.
    """
    for progress in run:
        yield progress
        is_last = int(progress.state.update) == progress.total
        if not is_last or progress.evaluation is None:
            continue
        found = progress.evaluation._asdict()
        if found["noisy_accuracy"] <= LARGEST / num_classes:
            warnings.warn(_describe(found, settings, num_classes), stacklevel=2)


def _describe(found: dict[str, float], settings: config.Training, num_classes: int) -> str:
    radius = found["spectral_radius"]
    advice = "train longer, or with another learning_rate"
    if radius is not None and settings.jacobian_weight:
        advice += (
            f"; the spectral radius is {radius:.2g}: if it is small, the penalty outweighs the loss, and a "
            f"jacobian_weight ten to a hundred times below {settings.jacobian_weight:g} is better"
        )
    return (
        f"the model is right about {100 * found['noisy_accuracy']:.0f} % of noisy images, no more than guessing "
        f"among {num_classes} classes: {advice}"
    )
