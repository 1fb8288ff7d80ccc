"""The optimiser: schedule of the learning rate, and average of the parameters."""

import dataclasses

import jax
import numpy as np
import pytest

from deqsmooth import config
from deqsmooth.training import optimiser

SETTINGS = config.Training(epochs=4, pretraining_epochs=1.0)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_learning_rate_follows_schedule(warmup):
    """The learning rate follows from the steps of SGD with Nesterov momentum for a constant unit gradient."""
    settings = dataclasses.replace(
        SETTINGS, optimiser="sgd", learning_rate=0.5, final_learning_rate=0.01, warmup=warmup, weight_decay=0.0
    )
    transformation = optimiser.build(settings)
    params, gradient = jax.numpy.zeros(1), jax.numpy.ones(1)
    state, moved, velocity = transformation.init(params), [], 0.0
    for _ in range(101):
        step, state = transformation.update(gradient, state, params, total=100)
        velocity = 0.9 * velocity + 1.0
        moved.append(-float(step[0]) / (1.0 + 0.9 * velocity))
    rising = int(100 * warmup)
    expected = [
        0.5 * t / rising if t < rising else 0.01 + 0.49 * 0.5 * (1 + np.cos(np.pi * (t - rising) / (100 - rising)))
        for t in range(101)
    ]
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 0.05), (1, 1.0), (2, 1.0), (10, 1.0), (10, 0.05)])
def test_shortest_schedules_move(total, warmup):
    """However few updates there are, at least one has a learning rate."""
    settings = dataclasses.replace(SETTINGS, optimiser="sgd", learning_rate=0.5, warmup=warmup, weight_decay=0.0)
    transformation = optimiser.build(settings)
    params = jax.numpy.zeros(1)
    state, steps = transformation.init(params), []
    for _ in range(total):
        step, state = transformation.update(jax.numpy.ones(1), state, params, total=total)
        steps.append(float(step[0]))
    assert np.isfinite(steps).all() and min(steps) < -0.4


def averages(decay, num):
    """Parameters after each of some steps of a unit gradient, and the average after each."""
    settings = dataclasses.replace(
        SETTINGS, optimiser="sgd", learning_rate=0.5, warmup=0.0, weight_decay=0.0, ema=decay, clip_norm=9.0
    )
    transformation = optimiser.build(settings)
    params = {"w": jax.numpy.array([7.0, -3.0])}
    state, passed, found = transformation.init(params), [], []
    for _ in range(num):
        step, state = transformation.update({"w": jax.numpy.array([1.0, -2.0])}, state, params, total=num)
        params = jax.tree.map(jax.numpy.add, params, step)
        passed.append(params["w"])
        found.append(optimiser.average(state)["w"])
    return np.stack(passed), np.stack(found)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_average_has_exponential_weights(decay):
    """Of the parameters after the updates alone: the initial ones have no weight."""
    passed, found = averages(decay, 30)
    for t in range(1, 31):
        weights = decay ** np.arange(t - 1, -1, -1.0)
        np.testing.assert_allclose(found[t - 1], weights @ passed[:t] / weights.sum(), rtol=1e-5)


def test_average_changes_no_step():
    settings = dataclasses.replace(SETTINGS, ema=None)
    params, gradient = jax.numpy.ones(3), jax.numpy.arange(3.0)
    without, averaged = (optimiser.build(x) for x in (settings, dataclasses.replace(settings, ema=0.9)))
    states = without.init(params), averaged.init(params)
    assert optimiser.average(states[0]) is None
    found = [
        transformation.update(gradient, state, params, total=10)[0]
        for transformation, state in zip((without, averaged), states, strict=True)
    ]
    np.testing.assert_array_equal(*found)
