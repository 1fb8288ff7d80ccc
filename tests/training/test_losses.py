"""Losses against the formulas of their papers, computed with NumPy and scipy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from deqsmooth import config
from deqsmooth.training import losses

SETTINGS = config.Training(sigma=0.25)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4, 5)).astype(np.float32)
LABELS = np.arange(6, dtype=np.int32) % 5
KEYS = jax.random.split(jax.random.key(0), 6)
PROBABILITIES = special.softmax(LOGITS.astype(float), -1)
OWN = PROBABILITIES[np.arange(6), :, LABELS]


def build(loss, **change):
    change = {"loss_weight": 3.0, "adversarial_radius": 0.5, **change}
    fn = losses.build(dataclasses.replace(SETTINGS, loss=loss, draws=4, **change))
    return lambda logits, labels, keys: fn(jnp.asarray(logits), jnp.asarray(labels), keys)


def test_cross_entropy_is_mean_over_draws():
    np.testing.assert_allclose(build("cross-entropy")(LOGITS, LABELS, KEYS), -np.log(OWN).mean(-1), rtol=1e-5)


def test_consistency_adds_divergence_and_entropy():
    mean = PROBABILITIES.mean(1)
    divergence = stats.entropy(np.repeat(mean[:, None], 4, 1), PROBABILITIES, axis=-1).mean(-1)
    expected = -np.log(OWN).mean(-1) + 3 * divergence + 0.5 * stats.entropy(mean, axis=-1)
    np.testing.assert_allclose(build("consistency")(LOGITS, LABELS, KEYS), expected, rtol=1e-5)
    # For equal draws the divergence is zero, and its weight has no effect.
    same = np.repeat(LOGITS[:, :1], 4, 1)
    weights = [build("consistency", loss_weight=weight)(same, LABELS, KEYS) for weight in (0.0, 100.0)]
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-4)


def test_macer_adds_hinge_of_soft_radius():
    sharp = special.softmax(16.0 * LOGITS.astype(float), -1).mean(1)
    expected = []
    for image, label in enumerate(LABELS):
        right, other = sharp[image, label], np.delete(sharp[image], label).max()
        soft = stats.norm.ppf(right) - stats.norm.ppf(other)
        hinge = 0.25 / 2 * (8 - soft) if right > other and soft < 8 else 0.0
        expected.append(-np.log(OWN[image].mean()) + 3 * hinge)
    found = build("macer")(LOGITS, LABELS, KEYS)
    # Rounding of the normal quantile of float32 probabilities.
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    plain = build("macer", loss_weight=0.0)(LOGITS, LABELS, KEYS)
    assert 0 < np.sum(found > plain) < 6


@pytest.mark.parametrize("loss", config.LOSSES)
def test_gradients_of_certain_predictions_are_finite(loss):
    certain = 200.0 * jax.nn.one_hot(jnp.array([[0] * 4, [1] * 4, [0, 1, 0, 1]]), 5)
    gradient = jax.grad(lambda x: jnp.sum(build(loss)(x, jnp.zeros(3, jnp.int32), KEYS[:3])))(certain)
    assert np.isfinite(gradient).all() and np.any(gradient != 0)


def test_cat_rs_has_the_expected_mean():
    """The mean over many keys equals the expectation over the binomial number of counted draws."""
    drawn, changed = LOGITS[:, :2], LOGITS[:, 2:]
    logits = np.concatenate([drawn, changed], 1)
    num_keys = 20_000
    loss = jax.jit(jax.vmap(lambda keys: build("cat-rs")(logits, LABELS, keys)))
    keys = jax.random.split(jax.random.key(1), (num_keys, 6))
    found = np.asarray(loss(keys)).astype(float)
    errors = np.sort(-np.log(OWN[:, :2]), -1)
    target = PROBABILITIES[:, :2].mean(1)
    high = stats.entropy(np.repeat(target[:, None], 2, 1), PROBABILITIES[:, 2:], axis=-1).max(-1)
    share = (drawn.argmax(-1) == LABELS[:, None]).mean(-1)
    assert len(set(share)) > 1
    for image, p in enumerate(share):
        values = [errors[image, : max(k, 1)].sum() / 2 + 3 * high[image] * (k == 2) for k in range(3)]
        weights = stats.binom.pmf(range(3), 2, p)
        expected = weights @ values
        error = np.sqrt(weights @ np.square(values) - expected**2) / np.sqrt(num_keys)
        # Five standard errors, plus float32 rounding.
        assert abs(found[:, image].mean() - expected) < 5 * error + 1e-4


def test_missing_settings_of_losses_raise():
    for loss in config.LOSSES[1:]:
        with pytest.raises(ValueError, match=f"draws is 1; it must be at least 2 with loss '{loss}'"):
            config.Training(loss=loss, adversarial_radius=1.0)
    with pytest.raises(ValueError, match=r"adversarial_radius is 0\.0; it must be positive with loss 'cat-rs'"):
        config.Training(loss="cat-rs", draws=2)
    with pytest.raises(ValueError, match=r"unknown loss 'macre'.*did you mean 'macer'"):
        config.Training(loss="macre")
