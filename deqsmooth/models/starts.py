"""Starts: functions from the injection to the initial state of a solve.

If a start depends only on the noisy input, the solve is a function of that input, and standard certification
applies. If a start is taken from another sample, it is not, and certification needs the audit.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.models import base_classifier


def zero(model: types.Model) -> base_classifier.Start:
    """The zero state."""
    return model.initial_state


def constant(model: types.Model, z: types.State) -> base_classifier.Start:
    """The same stored state, leaves [1, ...], for every input."""
    return lambda u: jax.tree.map(lambda x, y: jnp.broadcast_to(y, x.shape), model.initial_state(u), z)


def learned(network: types.StartNetwork, params: types.Parameters) -> base_classifier.Start:
    """The prediction of a start network from the injection of the input."""
    return functools.partial(network.apply, params)


def state(z: types.State) -> base_classifier.Start:
    """A given state of the same lanes, such as the solution of another sample."""
    return lambda u: z
