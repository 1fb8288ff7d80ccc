"""Images changed within an L2 ball so that a loss grows: projected gradient ascent.

Takes a loss of images, gives the images; what the loss is of, a classifier that is attacked or one that is trained
against attacks, is not known here.
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


def ascend(
    loss: Loss, images: types.Images, radii: types.PerLane, keys: types.Keys, settings: config.Attack
) -> types.Images:
    """Images in [0, 1] near others, with a large loss.

    Args:
      loss: images [lanes, H, W, C] -> loss [lanes], lanes independent.
      images: where to start [lanes, H, W, C].
      radii: L2 distance from them that is allowed [lanes].
      keys: of where ascents begin [lanes].
      settings: of the attack.

    Returns:
      The images of the largest loss that any step of any ascent came to; the image itself if none was larger.
    """

    def project(changed):
        change = jnp.clip(changed, 0, 1) - images
        # Clipping to [0, 1] only shortens a change, and scaling it down stays there.
        scale = jnp.minimum(1.0, _INSIDE * radii / jnp.maximum(per_lane.norm(change), 1e-12))
        return images + per_lane.align(scale, change) * change

    def step(carry, _):
        now, best, highest = carry
        value, pull_back = jax.vjp(loss, now)
        (gradient,) = pull_back(jnp.ones_like(value))
        better = value > highest
        best, highest = per_lane.select(better, now, best), jnp.where(better, value, highest)
        length = jnp.maximum(per_lane.norm(gradient), 1e-12)
        now = project(now + per_lane.align(settings.relative_step * radii / length, gradient) * gradient)
        return (now, best, highest), None

    def ascent(carry, restart):
        draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, restart), images.shape[1:]))(keys)
        away = per_lane.align(radii / per_lane.norm(draw), draw) * draw
        begin = project(images + jnp.where(restart == 0, 0.0, 1.0) * away)
        carry, _ = lax.scan(step, (begin, *carry), length=settings.steps)
        now, best, highest = carry
        value = loss(now)
        return (per_lane.select(value > highest, now, best), jnp.maximum(value, highest)), None

    restarts = jnp.arange(settings.restarts)
    (best, _), _ = lax.scan(ascent, (images, loss(images)), restarts)
    return best


def smoothed_loss(
    classify: Callable[[types.Images], types.Logits], labels: types.Labels, draws: jax.Array
) -> Loss:
    """The negative logarithm of a class's mean probability over noise draws.

    Args:
      classify: images [rows, H, W, C] -> logits [rows, classes].
      labels: classes [lanes].
      draws: what is added to each image [lanes, draws, H, W, C].
    """

    def loss(images):
        noisy = images[:, None] + draws
        logits = classify(noisy.reshape(-1, *images.shape[1:]))
        own = jnp.take_along_axis(
            jax.nn.log_softmax(logits).reshape(*draws.shape[:2], -1), labels[:, None, None], -1
        )[..., 0]
        return jnp.log(draws.shape[1]) - jax.nn.logsumexp(own, 1)

    return loss
