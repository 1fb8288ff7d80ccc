"""Attacks: against a linear classifier, whose worst case is known, and on certificates that hold or do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deqsmooth import config, data, solvers
from deqsmooth.models import base_classifier, starts
from deqsmooth.smoothing import ascent, attacks, certification

HOW = config.Attack(steps=12, restarts=2, draws=4, num_estimation=200, alpha=0.01)
SETTINGS = config.Smoothing(
    sampler="independent",
    budget=4,
    num_selection=20,
    num_estimation=300,
    alpha=0.01,
    lanes=16,
    block=16,
    sigma=0.1,
)


def keys(num):
    return jax.random.split(jax.random.key(0), num)


def test_linear_worst_case_is_found():
    normal = jax.random.normal(jax.random.key(1), (6, 6, 1))
    images = 0.5 + 0.1 * jax.random.normal(jax.random.key(2), (3, 6, 6, 1))
    radii = jnp.array([0.05, 0.2, 0.3])
    found = ascent.ascend(lambda x: jnp.sum(x * normal, (1, 2, 3)), images, radii, keys(3), HOW)
    change = np.asarray(found - images)
    expected = radii[:, None, None, None] * normal / jnp.linalg.norm(normal)
    # No pixel comes near 0 or 1, so the maximum is the step along the normal.
    np.testing.assert_allclose(change, expected, atol=2e-3)
    assert (np.linalg.norm(change.reshape(3, -1).astype(float), axis=1) <= radii).all()


def test_pixels_stay_pixels():
    images = jnp.concatenate([jnp.zeros((1, 4, 4, 1)), jnp.ones((1, 4, 4, 1))])
    found = ascent.ascend(lambda x: jnp.sum(x, (1, 2, 3)), images, jnp.array([0.5, 0.5]), keys(2), HOW)
    assert found.min() >= 0 and found.max() <= 1
    assert np.linalg.norm(found[0]) == pytest.approx(0.5, rel=1e-4) and (found[1] == 1).all()


def test_the_strongest_place_counts():
    """A loss that is largest where the ascent passes, not where it ends."""

    def loss(x):
        return -jnp.abs(jnp.sum(x, (1, 2, 3)) - 1.0)

    images = jnp.full((1, 2, 2, 1), 0.2)
    far = ascent.ascend(loss, images, jnp.array([0.6]), keys(1), dataclasses.replace(HOW, restarts=1))
    assert loss(far)[0] > -0.11
    least = ascent.ascend(lambda x: -jnp.sum((x - images) ** 2, (1, 2, 3)), images, jnp.array([0.6]), keys(1), HOW)
    assert (least == images).all()


def test_smoothed_loss_uses_mean_probabilities():
    def classify(x):
        return jnp.stack([jnp.sum(x, (1, 2, 3)), jnp.sum(x**2, (1, 2, 3)), jnp.zeros(len(x))], -1)

    images = jax.random.uniform(jax.random.key(3), (2, 3, 3, 1))
    draws = 0.5 * jax.random.normal(jax.random.key(4), (2, 5, 3, 3, 1))
    found = ascent.smoothed_loss(classify, jnp.array([1, 0]), draws)(images)
    for place, label in enumerate([1, 0]):
        probabilities = jax.nn.softmax(classify(images[place] + draws[place]))[:, label]
        assert found[place] == pytest.approx(-np.log(np.mean(probabilities)), rel=1e-5)


def test_classifier_and_gradient_equal_unrolling(small):
    settings = dataclasses.replace(SETTINGS, budget=60, solver="plain")
    images = jax.random.uniform(jax.random.key(5), (3, 8, 8, 1))
    classify = attacks.classify_fn(small, settings, gradient_budget=60)
    expected = base_classifier.classify(
        small.model, small.variables, solvers.build("plain", 60), images, starts.zero(small.model)
    )
    np.testing.assert_allclose(jax.jit(classify)(small.variables, images), expected.logits, atol=1e-6)

    def unrolled(images):
        u, _ = small.model.inject(small.variables, images, None)
        params = small.model.bind(small.variables)

        def step(z, _):
            return small.model.cell(params, z, u), None

        z, _ = jax.lax.scan(step, small.model.initial_state(u), length=60)
        return jnp.sum(small.model.readout(small.variables, z, False)[0][:, 3])

    gradient = jax.jit(jax.grad(lambda x: jnp.sum(classify(small.variables, x)[:, 3])))(images)
    reference = jax.jit(jax.grad(unrolled))(images)
    # Both series are cut after 60 terms of a contraction.
    np.testing.assert_allclose(gradient, reference, atol=1e-3 * float(jnp.abs(reference).max()))


@pytest.fixture(scope="module")
def found(small):
    """Certificates of images that are labelled as they are classified."""
    chosen = certification.certify_dataset(small, data.load("digits"), range(0, 200, 8), SETTINGS)
    own = [dataclasses.replace(c, label=c.selected, correct=c.prediction is not None) for c in chosen]
    return [c for c in own if c.prediction is not None][:6]


@pytest.mark.parametrize("target", ["smoothed", pytest.param("base", marks=pytest.mark.slow)])
def test_wide_attacks_succeed_without_refuting(small, found, target):
    assert len(found) >= 3
    how = dataclasses.replace(HOW, target=target)
    outcome = list(attacks.attack(small, found, SETTINGS, data.load("digits"), [0.02, 4.0], how))
    assert sorted((x.index, x.budget) for x in outcome) == [(c.index, r) for c in found for r in (0.02, 4.0)]
    assert all(x.distance <= x.budget for x in outcome) and not any(x.refutes for x in outcome)
    wide = [x for x in outcome if x.budget == 4.0]
    assert sum(x.prediction not in (None, x.certified) for x in wide) >= len(wide) / 2
    assert all(x.distance > 0.02 for x in wide)


@pytest.mark.slow
def test_success_counts_for_larger_radii(small, found):
    """And only then is there no other: the others are those that are made at their radius alone."""
    digits, radii = data.load("digits"), [4.0, 3.0, 0.02]
    outcome = list(attacks.attack(small, found, SETTINGS, digits, radii, HOW))
    alone = {r: {x.index: x for x in attacks.attack(small, found, SETTINGS, digits, [r], HOW)} for r in radii}
    stood_for = 0
    for certificate in found:
        own = [x for x in outcome if x.index == certificate.index]
        assert [x.budget for x in own] == sorted(radii)
        for place, one in enumerate(own):
            changed = [x for x in own[:place] if x.prediction not in (None, x.label)]
            stood_for += bool(changed)
            expected = changed[0] if changed else alone[one.budget][one.index]
            assert dataclasses.replace(one, budget=expected.budget) == expected
    assert 0 < stood_for < len(outcome) / 2


def test_a_false_certificate_is_refuted(small, found):
    false = [dataclasses.replace(c, radius=5.0) for c in found]
    outcome = list(attacks.attack(small, false, SETTINGS, data.load("digits"), [4.0], HOW))
    refuted = [x for x in outcome if x.refutes]
    assert refuted and all(x.prediction not in (None, x.certified) and x.distance < 5.0 for x in refuted)


def test_attack_takes_the_settings_that_certify_took(small, found):
    """Without a sampler they are the recommended ones, there as here."""
    settings = config.Smoothing(sigma=SETTINGS.sigma, num_selection=20, num_estimation=200, budget=2, lanes=20)
    digits = data.load("digits")
    certificates = list(certification.certify_dataset(small, digits, [found[0].index], settings))
    (attempt,) = attacks.attack(small, certificates, settings, digits, [0.02], HOW)
    assert attempt.index == found[0].index and not attempt.refutes


def test_what_cannot_be_attacked_is_refused(small, found):
    digits = data.load("digits")
    serial = config.Smoothing(num_estimation=300, num_audit=100)
    with pytest.raises(ValueError, match="sampler is 'serial'"):
        next(attacks.attack(small, found, serial, digits, [0.5], HOW))
    unknown = [dataclasses.replace(found[0], label=None, correct=None)]
    with pytest.raises(ValueError, match="has no label"):
        next(attacks.attack(small, unknown, SETTINGS, digits, [0.5], HOW))
    with pytest.raises(ValueError, match=r"unknown target 'bas'; .*did you mean 'base'"):
        config.Attack(target="bas")
    with pytest.raises(ValueError, match="steps is 0"):
        config.Attack(steps=0)
