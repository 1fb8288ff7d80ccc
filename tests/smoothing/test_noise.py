"""Noise: the right distribution, from nothing but its key path."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from deqsmooth.smoothing import noise


def draws(seed, image, phase, samples, shape=(8, 8, 1)):
    keys = jnp.stack([noise.phase_key(seed, image, phase)] * len(samples))
    return np.asarray(noise.gaussian(keys, jnp.asarray(samples, jnp.int32), shape))


def test_draws_are_standard_normal_and_uncorrelated():
    found = draws(0, 3, noise.ESTIMATION, range(2000)).reshape(2000, -1)
    # One test of 128,000 draws with a fixed key: a p-value below 0.001 would be a defect.
    assert stats.kstest(found.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(found.T)[np.triu_indices(64, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
    between = np.corrcoef(found[:50])[np.triu_indices(50, 1)]
    assert np.abs(between).max() < 5 / np.sqrt(64)


def test_draw_depends_on_key_path_only():
    samples = [7, 0, 3]
    whole = draws(1, 2, noise.SELECTION, samples)
    for sample, expected in zip(samples, whole, strict=True):
        np.testing.assert_array_equal(draws(1, 2, noise.SELECTION, [sample])[0], expected)
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(draws(1, 2, noise.SELECTION, samples), whole)


def test_every_key_part_matters():
    base = draws(1, 2, noise.SELECTION, [3])
    for other in ((2, 2, noise.SELECTION, [3]), (1, 3, noise.SELECTION, [3]), (1, 2, noise.ESTIMATION, [3])):
        assert np.abs(base - draws(*other)).max() > 0.5
    # Paths with the same numbers in other places do not meet.
    assert np.abs(draws(0, 1, 2, [1]) - draws(1, 0, 2, [1])).max() > 0.5


def test_the_audit_draws_uniformly_without_replacement():
    keys = [noise.phase_key(0, image, noise.AUDIT) for image in range(400)]
    orders = np.stack([noise.audit_order(key, 12) for key in keys])
    assert (np.sort(orders, 1) == np.arange(12)).all()
    for place in (0, 5, 11):
        counts = np.bincount(orders[:, place], minlength=12)
        assert stats.chisquare(counts).pvalue > 1e-3
