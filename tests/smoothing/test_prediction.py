"""Predictions: the votes that one would count by hand, and a test that errs as rarely as it says."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deqsmooth import config, data
from deqsmooth.smoothing import noise, prediction
from deqsmooth.statistics import significance

SETTINGS = config.Smoothing(sampler="independent", budget=2, num_estimation=90, alpha=0.05, sigma=0.5)


def brightness(images):
    """Three classes by mean brightness."""
    mean = images.mean((1, 2, 3))
    return -jnp.abs(mean[:, None] - jnp.array([0.2, 0.3, 0.4]))


def test_votes_use_the_images_own_noise():
    images = data.load("digits").take(range(3))[0]
    for index, found in enumerate(prediction.predict(brightness, images, SETTINGS)):
        key = noise.phase_key(0, index, noise.PREDICTION)
        draws = noise.gaussian(jnp.stack([key] * 90), jnp.arange(90, dtype=jnp.int32), images.shape[1:])
        votes = np.argmax(brightness(images[index] + 0.5 * draws), -1)
        assert found.counts == tuple(np.bincount(votes, minlength=4))
        assert found.label == significance.smoothed_class(found.counts[:-1], 0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"images_per_batch": 7},
        {"lanes": 96},
        *(pytest.param(change, marks=pytest.mark.slow) for change in ({"images_per_batch": 1}, {"lanes": 16})),
    ],
)
def test_predictions_ignore_lanes_and_devices(small, change):
    images = data.load("digits").take(range(5))[0]
    whole = list(prediction.predict(small, images, SETTINGS))
    assert len({found.label for found in whole}) > 1 and all(sum(found.counts) == 90 for found in whole)
    settings = dataclasses.replace(SETTINGS, **change)
    assert list(prediction.predict(small, images, settings)) == whole
    assert list(prediction.predict(small, images[3:], settings, indices=[3, 4])) == whole[3:]


def test_wrong_class_is_rarer_than_alpha():
    """All outcomes of 24 votes for three classes, of which the first is ahead by nothing."""
    for shares in ((0.4, 0.4, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.45, 0.44, 0.11)):
        wrong = 0.0
        for a in range(25):
            for b in range(25 - a):
                counts = (a, b, 24 - a - b)
                if significance.smoothed_class(counts, 0.05) in (1, 2):
                    wrong += stats.multinomial.pmf(counts, 24, shares)
        assert 0 < wrong <= 0.05


def test_prediction_is_two_sided_binomial_test():
    # 2 P(X >= 15) for 20 tosses is 0.0414.
    assert (
        significance.smoothed_class([15, 5], 0.0415) == 0 and significance.smoothed_class([15, 5], 0.0413) is None
    )
    assert significance.smoothed_class([0, 0], 0.5) is None


@pytest.mark.parametrize("change", [{"sampler": "serial", "budget": 3, "num_audit": 20}, {"looks": (20, 90)}])
def test_other_samplers_are_refused(small, change):
    images = data.load("digits").take(range(1))[0]
    settings = config.Smoothing(**{"sampler": "independent", "num_estimation": 90, "alpha": 0.4, **change})
    with pytest.raises(ValueError, match="a prediction takes 'independent' votes, all at once"):
        next(prediction.predict(small, images, settings))


def test_unknown_votes_cannot_change_a_prediction():
    """Whatever classes the unknown votes are for, as many tests as there are ways to divide them."""
    seen = set()
    for counts, unknown in itertools.product([(30, 3, 1), (12, 10, 3), (2, 25, 4), (0, 9, 0)], (0, 3, 6, 12)):
        found = significance.smoothed_class(counts, 0.01, unknown)
        seen.add(found)
        for given in itertools.product(range(unknown + 1), repeat=3):
            if sum(given) == unknown and found is not None:
                votes = [a + b for a, b in zip(counts, given, strict=True)]
                assert significance.smoothed_class(votes, 0.01) == found
    assert seen == {0, 1, None}
