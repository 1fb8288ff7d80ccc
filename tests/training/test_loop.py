"""The training loop: number of updates and learning rate."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from deqsmooth import config
from deqsmooth.training import loop, updates

SETTINGS = config.Training(epochs=4, pretraining_epochs=1.0)


class _Metrics(NamedTuple):
    loss: jax.Array
    penalty: float
    absent: None


def test_num_updates_is_rounded_up():
    # 30.72 epochs of 50,000 images are 16,000 updates of 96 images, and slightly more in floating point.
    settings = dataclasses.replace(SETTINGS, epochs=120, batch_size=96)
    assert loop.num_updates(settings, 50_000) == 62_500
    assert loop.num_updates(settings, 50_000, 30.72) == 16_000
    assert loop.num_updates(dataclasses.replace(SETTINGS, epochs=3, batch_size=50), 1437) == 87


def test_progress_is_shown_in_a_line():
    """Without the arrays of the state."""
    metrics = _Metrics(jax.numpy.float32(0.5), 0.0, None)
    state = updates.State({"w": np.zeros(1000)}, None, 3)
    assert (
        repr(loop.Progress(state, metrics, None, 0.0, 9)) == "update 3 of 9: loss 0.5, penalty 0; evaluation None"
    )
    assert str(loop.Progress(state, metrics, (1, 2), 0.0, 9)).endswith("evaluation (1, 2)")
