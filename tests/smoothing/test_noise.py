"""Noise: the right distribution, from nothing but its key path, and equal to a second implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import threefry
from scipy import stats

from deqsmooth.smoothing import inversion, noise
from deqsmooth.statistics import rounded_normal


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


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 4, 3), (7,)])
def test_draw_is_that_of_jax(shape):
    """Kept records are drawn again by it."""
    key = noise.phase_key(1, 2, noise.SELECTION)
    expected = [jax.random.normal(jax.random.fold_in(key, sample), shape) for sample in (7, 0)]
    np.testing.assert_array_equal(draws(1, 2, noise.SELECTION, [7, 0], shape), expected)


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


def test_first_draws_are_known():
    """Whatever JAX is told outside, records of other versions must have had the same noise."""
    expected = [[-0.843614, -1.0275878, 1.1545808], [-1.560246, -0.220403, -0.22547835]]
    np.testing.assert_allclose(draws(5, 7, noise.ESTIMATION, [0, 9])[:, 0, :3, 0], expected, rtol=2e-7)
    keys = noise.phase_key(5, 7, noise.ESTIMATION)[None]
    found = noise.rounded(keys, jnp.array([9], jnp.int32), (6,), 0.5, 255)
    assert found.tolist() == [[240, 104, -105, -193, 31, 65]]


@pytest.mark.parametrize(("sigma", "grid"), [(0.5, 255), (0.12, 255), (1.0, 256), (0.02, 10)])
def test_rounded_draws_equal_numpy_integers(sigma, grid):
    keys = jnp.stack([noise.phase_key(3, image, noise.SELECTION) for image in range(4)])
    samples = jnp.arange(4, dtype=jnp.int32) * 1000
    found = np.asarray(noise.rounded(keys, samples, (5, 5, 3), sigma, grid))
    for image in range(4):
        expected = threefry.rounded(3, image, noise.SELECTION, 1000 * image, (5, 5, 3), sigma, grid)
        np.testing.assert_array_equal(found[image], expected)


@pytest.mark.parametrize(("sigma", "grid"), [(0.5, 255), (0.12, 255), (1.0, 256), (0.02, 10)])
def test_magnitudes_count_thresholds_above(sigma, grid):
    """Random numbers of every size, and those at and beside each threshold, which no draw would meet."""
    limits, rng = rounded_normal.thresholds(sigma, grid), np.random.default_rng(0)
    one = np.uint64(1)
    spread = [rng.integers(0, 2**63, 500, dtype=np.uint64) >> np.uint64(bits) for bits in range(63)]
    numbers = np.concatenate([*spread, limits, limits - one, limits + one, np.arange(600, dtype=np.uint64)])
    expected = len(limits) - np.searchsorted(limits[::-1], numbers, side="right")
    found = inversion.magnitude(inversion.table(sigma, grid), *map(jnp.asarray, threefry.halves(2 * numbers)))
    np.testing.assert_array_equal(found, expected)


def test_rounded_draws_have_their_distribution():
    keys = jnp.stack([noise.phase_key(0, 1, noise.ESTIMATION)] * 500)
    found = np.asarray(noise.rounded(keys, jnp.arange(500, dtype=jnp.int32), (200,), 0.5, 8)).ravel()
    ends = np.arange(-9.5, 10)
    cells = np.diff(stats.norm.cdf(np.array([-np.inf, *ends, np.inf]) / 4))
    counts = np.bincount(np.clip(found, -10, 10) + 10, minlength=21)
    assert stats.chisquare(counts, cells * found.size).pvalue > 1e-3


def test_noisy_images_lie_on_the_grid():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1)), jnp.float32) / 255
    keys = jnp.stack([noise.phase_key(0, 1, noise.ESTIMATION)] * 3)
    samples = jnp.arange(3, dtype=jnp.int32)
    found = noise.noisy(images, keys, samples, 0.5, 255)
    drawn = noise.rounded(keys, samples, (4, 4, 1), 0.5, 255)
    expected = (np.round(np.asarray(images, np.float64) * 255) + np.asarray(drawn)) / 255
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(
        noise.noisy(images, keys, samples, 0.5), images + 0.5 * noise.gaussian(keys, samples, (4, 4, 1))
    )
