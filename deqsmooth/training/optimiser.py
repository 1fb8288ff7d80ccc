"""The optimiser of every training: takes the settings, gives clipped steps with a scheduled rate, and an average.

The number of updates of the training, at which the learning rate ends, is an argument of each step and not a part
of the optimiser. Trainings of different lengths therefore have the same compiled program.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from deqsmooth import config, types

_MOMENTUM = 0.9


class _Average(NamedTuple):
    """State of the average.

    Attributes:
      num: number of finished updates, int32.
      value: exponentially weighted mean of the parameters after each of them.
    """

    num: jax.Array
    value: types.Parameters


def build(settings: config.Descent) -> optax.GradientTransformationExtraArgs:
    """Returns the optimiser, with gradient clipping and the schedule of the learning rate.

    Its `update` takes the number of updates of the whole training as `total`.
    """
    clip, decay = optax.clip_by_global_norm(settings.clip_norm), optax.add_decayed_weights(settings.weight_decay)
    if settings.optimiser == "adamw":
        parts = [clip, optax.chain(optax.scale_by_adam(), decay, _scheduled(settings))]
    else:
        parts = [clip, decay, optax.chain(optax.trace(_MOMENTUM, nesterov=True), _scheduled(settings))]
    return optax.chain(*parts, *([] if settings.ema is None else [_averaged(settings.ema)]))


def average(state: optax.OptState) -> types.Parameters | None:
    """Returns the average of the parameters that a state of the optimiser has; None if it keeps none."""
    last: Any = state[-1]
    return last.value if isinstance(last, _Average) else None


def learning_rate(settings: config.Descent, number: jax.Array, total: int | jax.Array) -> jax.Array:
    """Returns the learning rate of an update: a linear warm-up, then a half period of a cosine.

    Args:
      settings: of the training.
      number: number of updates before this one.
      total: number of updates of the whole training.
    """
    total = jnp.asarray(total, jnp.int32)
    # The cosine needs an update after the warm-up.
    rising = jnp.minimum(jnp.maximum((settings.warmup * total).astype(jnp.int32), 1), total - 1)
    warmup = rising if settings.warmup else jnp.int32(0)
    high, low = settings.learning_rate, settings.final_learning_rate
    progress = jnp.clip((number - warmup) / (total - warmup), 0.0, 1.0)
    falling = low + (high - low) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.where(number < warmup, high * number / jnp.maximum(warmup, 1), falling)


def _scheduled(settings: config.Descent) -> optax.GradientTransformationExtraArgs:
    """Multiplies a direction by minus the learning rate."""

    def update(
        updates: types.Parameters,
        state: optax.ScaleByScheduleState,
        params: types.Parameters,
        *,
        total: int | jax.Array,
        **_: Any,
    ) -> tuple[types.Parameters, optax.ScaleByScheduleState]:
        rate = learning_rate(settings, state.count, total)
        return jax.tree.map(lambda x: -rate * x, updates), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformationExtraArgs(lambda params: optax.ScaleByScheduleState(jnp.int32(0)), update)


def _averaged(decay: float) -> optax.GradientTransformation:
    """Changes no step, and keeps the mean of the parameters p after updates 1 to t, with weights decay^(t - i)."""

    def init(params: types.Parameters) -> _Average:
        return _Average(jnp.int32(0), jax.tree.map(jnp.array, params))

    def update(
        updates: types.Parameters, state: _Average, params: types.Parameters
    ) -> tuple[types.Parameters, _Average]:
        num = state.num + 1
        # The weight of the newest parameters: 1 after the first update, so that the initial ones do not count.
        share = (decay - 1.0) / jnp.expm1(num * math.log(decay))
        value = jax.tree.map(
            lambda mean, x: mean + share * (x - mean), state.value, optax.apply_updates(params, updates)
        )
        return updates, _Average(num, value)

    return optax.GradientTransformation(init, update)
