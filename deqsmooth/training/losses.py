"""Losses of training under noise: takes the logits of several noise draws of each image, gives a loss per image.

Each function is the loss of one paper. Adversarial perturbation of the images (SmoothAdv, Salman et al. 2019) is
separate; see `model_training`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.scipy import stats
from jaxtyping import Array, Float

from deqsmooth import config, types

DrawnLogits = Float[Array, "images draws classes"]
Loss = Callable[[DrawnLogits, types.Labels, types.Keys], types.PerLane]

_SMALLEST = 1e-6


def build(settings: config.Training) -> Loss:
    """Returns the loss of settings: (logits [images, draws, classes], labels, keys [images]) -> loss [images]."""
    weight = settings.loss_weight
    known: dict[str, Loss] = {
        "cross-entropy": cross_entropy,
        "consistency": functools.partial(consistency, weight=weight),
        "macer": functools.partial(macer, weight=weight, sigma=settings.sigma),
        "cat-rs": functools.partial(cat_rs, weight=weight),
    }
    return known[settings.loss]


def cross_entropy(logits: DrawnLogits, labels: types.Labels, keys: types.Keys) -> types.PerLane:
    """Mean cross-entropy of the draws (Cohen et al. 2019); does not use the keys."""
    return jnp.mean(_cross_entropies(logits, labels), -1)


def consistency(
    logits: DrawnLogits, labels: types.Labels, keys: types.Keys, *, weight: float, entropy_weight: float = 0.5
) -> types.PerLane:
    """Cross-entropy with consistency regularisation (Jeong & Shin 2020).

    Args:
      logits: logits of at least two draws.
      labels: classes.
      keys: not used.
      weight: weight lambda of the mean divergence KL(mean prediction || prediction) of the draws.
      entropy_weight: weight eta of the entropy of the mean prediction.
    """
    predictions = jax.nn.log_softmax(logits)
    mean = jnp.mean(jnp.exp(predictions), 1)
    log_mean = jnp.log(jnp.maximum(mean, _SMALLEST))
    divergence = jnp.mean(jnp.sum(mean[:, None] * (log_mean[:, None] - predictions), -1), -1)
    entropy = -jnp.sum(mean * log_mean, -1)
    return cross_entropy(logits, labels, keys) + weight * divergence + entropy_weight * entropy


def macer(
    logits: DrawnLogits,
    labels: types.Labels,
    keys: types.Keys,
    *,
    weight: float,
    sigma: float,
    margin: float = 8.0,
    temperature: float = 16.0,
) -> types.PerLane:
    """Cross-entropy of the mean prediction and a hinge loss of the certified radius: MACER (Zhai et al. 2020).

    The hinge loss is 0 for images that the mean prediction misclassifies.

    Args:
      logits: logits of the draws.
      labels: classes.
      keys: not used.
      weight: weight lambda of the hinge loss.
      sigma: standard deviation of the noise.
      margin: gamma; the hinge loss is 0 for a soft radius, in units of half of sigma, of at least this. The soft
        radius is the normal quantile of the label's mean probability minus that of the largest other one.
      temperature: beta; logits are multiplied by it before the mean prediction for the soft radius.
    """
    own = jax.nn.one_hot(labels, logits.shape[-1])
    sharp = jnp.mean(jax.nn.softmax(temperature * logits), 1)
    right = jnp.sum(sharp * own, -1)
    runner_up = jnp.max(jnp.where(own > 0, 0.0, sharp), -1)
    inside = functools.partial(jnp.clip, min=_SMALLEST, max=1 - _SMALLEST)
    soft_radius = stats.norm.ppf(inside(right)) - stats.norm.ppf(inside(runner_up))
    counted = (right > runner_up) & (soft_radius < margin)
    hinge = sigma / 2 * jnp.where(counted, margin - soft_radius, 0.0)
    of_mean = jnp.log(logits.shape[1]) - jax.nn.logsumexp(-_cross_entropies(logits, labels), -1)
    return of_mean + weight * hinge


def cat_rs(logits: DrawnLogits, labels: types.Labels, keys: types.Keys, *, weight: float) -> types.PerLane:
    """Confidence-aware training, CAT-RS (Jeong, Kim & Shin 2023).

    K is drawn from Binomial(M, fraction of correct draws); a K of 0 is replaced by 1. The loss is the sum of the K
    smallest cross-entropies of the M draws, divided by M. If K is M, the largest divergence of a perturbed draw
    from the mean prediction is added, times `weight`.

    Args:
      logits: logits of M draws, followed by those of the same draws, each perturbed to increase its divergence
        from the mean prediction.
      labels: classes.
      keys: one key per image, for K.
      weight: weight lambda of the largest divergence.
    """
    drawn, changed = jnp.split(logits, 2, axis=1)
    num_draws = drawn.shape[1]
    share = jnp.mean((jnp.argmax(drawn, -1) == labels[:, None]).astype(jnp.float32), -1)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (num_draws,)))(keys)
    num_counted = jnp.sum(uniform < share[:, None], -1)
    ordered = jnp.sort(_cross_entropies(drawn, labels), -1)
    counted = jnp.arange(num_draws) < jnp.maximum(num_counted, 1)[:, None]
    low = jnp.sum(jnp.where(counted, ordered, 0.0), -1) / num_draws
    high = jnp.max(divergence(changed, mean_prediction(drawn)[:, None]), -1)
    return low + weight * jnp.where(num_counted == num_draws, high, 0.0)


def mean_prediction(logits: DrawnLogits) -> Float[Array, "images classes"]:
    """Returns the mean probabilities of the draws, without a gradient."""
    return jax.lax.stop_gradient(jnp.mean(jax.nn.softmax(logits), 1))


def divergence(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Returns KL(target || softmax(logits)) [...] of logits and target probabilities [..., classes]."""
    return optax.kl_divergence(jax.nn.log_softmax(logits), target)


def _cross_entropies(logits: DrawnLogits, labels: types.Labels) -> Float[Array, "images draws"]:
    """Returns the cross-entropy of every draw."""
    labels = jnp.broadcast_to(labels[:, None], logits.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
