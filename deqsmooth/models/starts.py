"""Starts: functions from the injection to the initial state of a solve.

If a start depends only on the noisy input, the solve is a function of that input, and standard certification
applies. If a start is taken from another sample, it is not, and certification needs the audit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from deqsmooth import config, types
from deqsmooth.models import base_classifier, start_network

TRAINED = ("constant", "learned")
"""Names of the starts that come from a training."""


def build(
    name: str, model: types.Model, training: config.StartTraining | None
) -> Callable[[types.Variables], base_classifier.Start]:
    """A start that is a function of the noisy input, by its name: the function variables -> start.

    Args:
      name: `zero`, `constant` or `learned`.
      model: the model.
      training: settings of the training of the model's start; None if it has none.

    Raises:
      ValueError: the start has to be trained, and the model has none.
    """
    check_trained(name, training)
    if name == "zero" or training is None:
        return lambda variables: zero(model)
    if name == "constant":
        return lambda variables: constant(model, variables["start"]["mean"])
    network = start_network.start(training.network, model)
    return lambda variables: learned(network, variables["start"]["network"])


def check_trained(name: str | None, training: config.StartTraining | None) -> None:
    """Raises `ValueError` if a start has to be trained and the settings of its training are None."""
    if name in TRAINED and training is None:
        raise ValueError(
            f"start is {name!r}; the classifier has no trained start: ds.train_start or deqsmooth-train --phase "
            "start makes one"
        )


def zero(model: types.Model) -> base_classifier.Start:
    """The zero state, `initial_state` of the model.

    Args:
      model: the model.
    """
    return model.initial_state


def constant(model: types.Model, z: types.State) -> base_classifier.Start:
    """The same stored state for every input.

    Args:
      model: the model.
      z: the state of one lane, leaves [1, ...].
    """
    return lambda u: jax.tree.map(lambda x, y: jnp.broadcast_to(y, x.shape), model.initial_state(u), z)


def learned(network: types.StartNetwork, params: types.Parameters) -> base_classifier.Start:
    """The prediction of a start network from the injection of the input.

    Args:
      network: the network, from `deqsmooth.models.start_network.start`.
      params: its parameters.
    """
    return functools.partial(network.apply, params)


def state(z: types.State) -> base_classifier.Start:
    """Given states, one for each lane, whatever the input: for example the solutions of other samples.

    Args:
      z: the states, leaves [lanes, ...].
    """
    return lambda u: z
