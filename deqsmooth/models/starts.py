"""Where a solve begins: functions from the injection to the first state.

A start that depends on nothing but the noisy input makes the solve a function of that input, which
standard certification covers. A state taken from another sample does not, and calls for the audit.
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
    """One stored state [1, ...] for every input."""
    return lambda u: jax.tree.map(lambda x, y: jnp.broadcast_to(y, x.shape), model.initial_state(u), z)


def learned(network: types.StartNetwork, params: types.Parameters) -> base_classifier.Start:
    """What a network predicts from the input's own injection."""
    return functools.partial(network.apply, params)


def state(z: types.State) -> base_classifier.Start:
    """A state that was found before, lane by lane."""
    return lambda u: z
