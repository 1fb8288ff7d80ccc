"""Refilled lanes: every row is solved as if it were alone, and no lane waits for the longest solve."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from deqsmooth import solvers
from deqsmooth.models import base_classifier, starts
from deqsmooth.smoothing import continuous_batching, kernels

NUM_ROWS = 37


@pytest.fixture(scope="module")
def case():
    """A model and as many images as rows, of contrasts that make short and long solves."""
    model = toy.build()
    images = jax.random.normal(jax.random.key(1), (NUM_ROWS, 4, 4, 1))
    contrast = jnp.logspace(-1, 1, NUM_ROWS)[jax.random.permutation(jax.random.key(2), NUM_ROWS)]
    return types.SimpleNamespace(
        model=model, variables=model.init(jax.random.key(0)), images=images * contrast[:, None, None, None]
    )


def refilled(case, solver, images, num_lanes, model=None, num_used=None):
    model = model or case.model

    @jax.jit
    def run(images):
        noisy, num = lambda rows: images[rows], len(images)
        return continuous_batching.run(
            model, case.variables, solver, starts.zero(model), noisy, num, num_lanes, num_used
        )

    return run(images)


@pytest.mark.parametrize("num_used", [0, 20])
def test_only_the_first_rows_are_classified(case, num_used):
    solver = solvers.build("anderson", 25, 1e-4)
    whole = refilled(case, solver, case.images, 5)
    found = refilled(case, solver, case.images, 5, num_used=jnp.int32(num_used))
    for some, every in zip(found, whole, strict=True):
        np.testing.assert_array_equal(some[:num_used], every[:num_used])
        assert not some[num_used:].any()


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("name", ["plain", "anderson", "broyden"])
@pytest.mark.parametrize("num_lanes", [1, 5, pytest.param(16, marks=pytest.mark.slow), 64])
def test_row_is_solved_as_if_alone(case, name, num_lanes):
    solver = solvers.build(name, 25, 1e-4)
    found = refilled(case, solver, case.images, num_lanes)
    alone = jax.jit(
        lambda images: kernels.info(
            base_classifier.classify(case.model, case.variables, solver, images, starts.zero(case.model))
        )
    )(case.images)
    assert len(set(alone.num_evaluations.tolist())) > 3
    np.testing.assert_array_equal(found.votes, alone.votes)
    np.testing.assert_array_equal(found.num_evaluations, alone.num_evaluations)
    np.testing.assert_array_equal(found.num_fallbacks, alone.num_fallbacks)
    # Other block sizes round differently; the residual is a small difference of numbers of order 1.
    np.testing.assert_allclose(found.residual, alone.residual, atol=1e-6)


@pytest.mark.usefixtures("optimised")
def test_row_ignores_earlier_rows(case):
    solver = solvers.build("anderson", 25, 1e-4)
    order = np.random.default_rng(0).permutation(NUM_ROWS)
    one, other = (refilled(case, solver, images, 8) for images in (case.images, case.images[order]))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x)[order], y), one, other)


@pytest.mark.parametrize("name", ["plain", "anderson", "broyden"])
def test_bad_row_spoils_no_later_row(case, name):
    solver = solvers.build(name, 25, 1e-4)
    bad = np.arange(NUM_ROWS) % 5 == 0
    spoilt = jnp.where(bad[:, None, None, None], jnp.nan, case.images)
    one, other = refilled(case, solver, case.images, 4), refilled(case, solver, spoilt, 4)
    assert (np.asarray(other.votes)[bad] == case.model.num_classes).all()
    assert (np.asarray(other.num_evaluations)[bad] == 1).all()
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x)[~bad], np.asarray(y)[~bad]), one, other)


def test_lanes_stay_busy_until_end(case):
    """The loop makes about as many evaluations as the mean solve asks for, not as the longest."""
    calls = []

    def cell(params, z, u):
        jax.debug.callback(lambda: calls.append(1))
        return case.model.cell(params, z, u)

    solver = solvers.build("plain", 60, 1e-6)
    images = jnp.tile(case.images, (8, 1, 1, 1))
    found = refilled(case, solver, images, 8, case.model._replace(cell=cell))
    jax.effects_barrier()
    asked = int(found.num_evaluations.sum()) / 8
    longest = int(found.num_evaluations.max())
    # One lane turns over at a time here; what is beyond the mean is the end of the queue.
    assert asked <= len(calls) <= asked + longest
    in_blocks = np.asarray(found.num_evaluations).reshape(-1, 8).max(1).sum()
    assert len(calls) < in_blocks


def test_no_promotion_is_needed(small):
    images = jnp.zeros((NUM_ROWS, 8, 8, 1))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = jax.eval_shape(
            lambda: continuous_batching.run(
                small.model,
                small.variables,
                solvers.build("anderson", 5, 1e-2),
                starts.zero(small.model),
                lambda rows: images[rows],
                NUM_ROWS,
                16,
            )
        )
    assert found.votes.shape == (NUM_ROWS,)
