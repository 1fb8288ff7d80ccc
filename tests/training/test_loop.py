"""The training loop: number of updates and learning rate."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

from deqsmooth import config, devices
from deqsmooth.training import loop

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


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_learning_rate_follows_schedule(warmup):
    """The learning rate follows from the steps of SGD with Nesterov momentum for a constant unit gradient."""
    settings = dataclasses.replace(
        SETTINGS, optimiser="sgd", learning_rate=0.5, final_learning_rate=0.01, warmup=warmup, weight_decay=0.0
    )
    transformation = loop.optimiser(settings, 100)
    params, gradient = jax.numpy.zeros(1), jax.numpy.ones(1)
    state, moved, velocity = transformation.init(params), [], 0.0
    for _ in range(101):
        step, state = transformation.update(gradient, state, params)
        velocity = 0.9 * velocity + 1.0
        moved.append(-float(step[0]) / (1.0 + 0.9 * velocity))
    rising = int(100 * warmup)
    expected = [
        0.5 * t / rising if t < rising else 0.01 + 0.49 * 0.5 * (1 + np.cos(np.pi * (t - rising) / (100 - rising)))
        for t in range(101)
    ]
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)


def test_gradient_norm_is_measured_before_clipping():
    class Metrics(NamedTuple):
        gradient_norm: jax.Array | None = None

    def gradient_fn(params, variables, images, labels, keys, shared, task):
        return {"a": 3.0 * jax.numpy.ones(4), "b": 8.0 * jax.numpy.ones(1)}, (variables, Metrics())

    transformation = loop.optimiser(dataclasses.replace(SETTINGS, clip_norm=0.5), 10)
    params = {"a": jax.numpy.zeros(4), "b": jax.numpy.zeros(1)}
    state = loop.State({"params": params}, transformation.init(params), jax.numpy.int32(0))
    images, labels = jax.numpy.zeros((8, 2, 2, 1)), jax.numpy.zeros(8, jax.numpy.int32)
    _, found = loop.update(
        state,
        images,
        labels,
        None,
        gradient_fn=gradient_fn,
        seed=0,
        transformation=transformation,
        mesh=devices.mesh_of_all(8),
        task=None,
    )
    assert found.gradient_norm == 10.0


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 0.05), (1, 1.0), (2, 1.0), (10, 1.0), (10, 0.05)])
def test_shortest_schedules_move(total, warmup):
    """However few updates there are, at least one has a learning rate."""
    settings = dataclasses.replace(SETTINGS, optimiser="sgd", learning_rate=0.5, warmup=warmup, weight_decay=0.0)
    transformation = loop.optimiser(settings, total)
    params = jax.numpy.zeros(1)
    state, steps = transformation.init(params), []
    for _ in range(total):
        step, state = transformation.update(jax.numpy.ones(1), state, params)
        steps.append(float(step[0]))
    assert np.isfinite(steps).all() and min(steps) < -0.4


def test_progress_is_shown_in_a_line():
    """Without the arrays of the state."""
    metrics = _Metrics(jax.numpy.float32(0.5), 0.0, None)
    state = loop.State({"w": np.zeros(1000)}, None, 3)
    assert (
        repr(loop.Progress(state, metrics, None, 0.0, 9)) == "update 3 of 9: loss 0.5, penalty 0; evaluation None"
    )
    assert str(loop.Progress(state, metrics, (1, 2), 0.0, 9)).endswith("evaluation (1, 2)")
