"""Projected gradient ascent: takes images and a loss of images, gives images near them with a larger loss.

Attacks use it on a certified classifier, and adversarial training on the model that is trained.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import config, types
from deqsmooth.solvers import per_lane

_INSIDE = 1 - 1e-5

Loss = Callable[[types.Images], types.PerLane]
"""images [lanes, H, W, C] -> loss [lanes]; lanes do not depend on each other."""
_Best = tuple[jax.Array, jax.Array]
_Carry = tuple[jax.Array, jax.Array, jax.Array]


def ascend(
    loss: Loss, images: types.Images, radii: types.PerLane, keys: types.Keys, settings: config.Attack
) -> types.Images:
    """Images in [0, 1] within L2 balls around given images, with a large loss.

    Args:
      loss: images [lanes, H, W, C] -> loss [lanes], lanes independent.
      images: centres of the balls, in [0, 1] [lanes, H, W, C].
      radii: of the balls [lanes].
      keys: of the random first points of the restarts [lanes].
      settings: of the attack.

    Returns:
      The images of the largest loss over all steps and restarts; the given image if no loss was larger.
    """

    def project(changed: jax.Array) -> jax.Array:
        change = jnp.clip(changed, 0, 1) - images
        # Clipping to [0, 1] shortens the change, and scaling it down stays in [0, 1].
        scale = jnp.minimum(1.0, _INSIDE * radii / jnp.maximum(per_lane.norm(change), 1e-12))
        return images + per_lane.align(scale, change) * change

    def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
        now, best, highest = carry
        value, pull_back = jax.vjp(loss, now)
        (gradient,) = pull_back(jnp.ones_like(value))
        better = value > highest
        best, highest = per_lane.select(better, now, best), jnp.where(better, value, highest)
        length = jnp.maximum(per_lane.norm(gradient), 1e-12)
        now = project(now + per_lane.align(settings.relative_step * radii / length, gradient) * gradient)
        return (now, best, highest), None

    def ascent(so_far: _Best, restart: jax.Array) -> tuple[_Best, None]:
        draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, restart), images.shape[1:]))(keys)
        away = per_lane.align(radii / per_lane.norm(draw), draw) * draw
        begin = project(images + jnp.where(restart == 0, 0.0, 1.0) * away)
        (now, best, highest), _ = lax.scan(step, (begin, *so_far), length=settings.steps)
        value = loss(now)
        return (per_lane.select(value > highest, now, best), jnp.maximum(value, highest)), None

    restarts = jnp.arange(settings.restarts)
    (best, _), _ = lax.scan(ascent, (images, loss(images)), restarts)
    return best


def smoothed_loss(
    classify: Callable[[types.Images], types.Logits], labels: types.Labels, draws: jax.Array
) -> Loss:
    """The loss of a smoothed classifier: minus the logarithm of the label's mean probability over noise draws.

    Args:
      classify: images [rows, H, W, C] -> logits [rows, classes].
      labels: classes [lanes].
      draws: noise that is added to each image [lanes, draws, H, W, C].
    """

    def loss(images: types.Images) -> types.PerLane:
        noisy = images[:, None] + draws
        logits = classify(noisy.reshape(-1, *images.shape[1:]))
        own = jnp.take_along_axis(
            jax.nn.log_softmax(logits).reshape(*draws.shape[:2], -1), labels[:, None, None], -1
        )[..., 0]
        return jnp.log(draws.shape[1]) - jax.nn.logsumexp(own, 1)

    return loss
