"""One update of a training."""

import dataclasses
from typing import NamedTuple

import jax

from deqsmooth import config, devices
from deqsmooth.training import optimiser, updates

SETTINGS = config.Training(epochs=4, pretraining_epochs=1.0)


def test_gradient_norm_is_measured_before_clipping():
    class Metrics(NamedTuple):
        gradient_norm: jax.Array | None = None

    def gradient_fn(params, variables, images, labels, keys, shared, task):
        return {"a": 3.0 * jax.numpy.ones(4), "b": 8.0 * jax.numpy.ones(1)}, (variables, Metrics())

    transformation = optimiser.build(dataclasses.replace(SETTINGS, clip_norm=0.5))
    params = {"a": jax.numpy.zeros(4), "b": jax.numpy.zeros(1)}
    state = updates.State({"params": params}, transformation.init(params), jax.numpy.int32(0))
    images, labels = jax.numpy.zeros((8, 2, 2, 1)), jax.numpy.zeros(8, jax.numpy.int32)
    _, found = updates.update(
        state,
        images,
        labels,
        None,
        10,
        gradient_fn=gradient_fn,
        seed=0,
        transformation=transformation,
        mesh=devices.mesh_of_all(8),
        task=None,
    )
    assert found.gradient_norm == 10.0
