"""Waves of rows whose votes are settled by proof: every row once, and one vote from every start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deqsmooth as ds
from deqsmooth import models
from deqsmooth.config import architecture
from deqsmooth.models import classifiers
from deqsmooth.smoothing import noise, proof, settling
from deqsmooth.solvers import loop, per_lane, picard, settled

NUM_CLASSES = 10


@pytest.fixture(scope="module")
def made():
    """An untrained contraction whose votes take from two to many evaluations."""
    size = architecture.ContractionModel(channels=(4, 6), width=8, factor=0.9)
    variables = jax.tree.map(np.asarray, ds.build(size).init(jax.random.key(2)))
    return classifiers.of_size(size, variables, None)


def solved(classifier, noisy, num_rows, num_lanes, start=None, budget=60, num_used=None):
    """Info of a queue; a start is (rows, injection, last states) -> states, zero by default."""
    model, variables = classifier.model, classifier.variables
    constants = proof.proof(classifier)

    def decide(u):
        return lambda z, fz: constants.verdict(z, fz, u, model.readout(variables, fz, False)[0])

    @jax.jit
    def run():
        solver = settled.Solver(picard.Picard(), budget)
        begin = start or (lambda rows, u, last: model.initial_state(u))
        return settling.run(model, variables, solver, decide, begin, noisy, num_rows, num_lanes, num_used)

    return run()


@pytest.mark.parametrize(("num_rows", "num_lanes"), [(103, 10), (40, 40), (7, 16)])
def test_every_row_has_its_own_vote(num_rows, num_lanes, made):
    """Whatever the waves are: against a solve of every row by itself to a small residual."""
    model, variables = made.model, made.variables
    images = jax.random.uniform(jax.random.key(3), (num_rows, *model.image_shape))
    found = solved(made, lambda rows: images[rows], num_rows, num_lanes)
    params, (u, _) = model.bind(variables), model.inject(variables, images, None)
    solution = loop.Solver(picard.Picard(), 300).solve(lambda z: model.cell(params, z, u), model.initial_state(u))
    votes = jnp.argmax(model.readout(variables, solution.value, False)[0], -1)
    has_vote = found.votes < NUM_CLASSES
    assert has_vote.mean() > 0.9
    np.testing.assert_array_equal(found.votes[has_vote], votes[has_vote])
    assert (found.num_evaluations >= 1).all()


@pytest.mark.parametrize("num_lanes", [1, 2, 3, 20, 32])
def test_solves_continue_where_they_were(num_lanes, made):
    """Whatever the waves are, a row has the solve, and so the evaluations, that it has by itself."""
    images = jax.random.uniform(jax.random.key(3), (101, *made.model.image_shape))
    alone = solved(made, lambda rows: images[rows], 101, 101)
    waves = solved(made, lambda rows: images[rows], 101, num_lanes)
    assert len(np.unique(alone.num_evaluations)) > 2
    np.testing.assert_array_equal(waves.num_evaluations, alone.num_evaluations)
    np.testing.assert_array_equal(waves.votes, alone.votes)


@pytest.mark.parametrize("num_used", [0, 33])
def test_only_the_first_rows_are_classified(num_used, made):
    images = jax.random.uniform(jax.random.key(3), (101, *made.model.image_shape))
    whole = solved(made, lambda rows: images[rows], 101, 10)
    found = solved(made, lambda rows: images[rows], 101, 10, num_used=jnp.int32(num_used))
    for some, every in zip(found, whole, strict=True):
        np.testing.assert_array_equal(some[:num_used], every[:num_used])
        assert not some[num_used:].any()


def test_lane_begins_where_it_ended(made):
    """The chain: from the second wave on, a lane is given the solution of its last row."""
    images = jnp.broadcast_to(jax.random.uniform(jax.random.key(3), made.model.image_shape), (40, 8, 8, 1))

    def previous(rows, u, last):
        return last

    chain = solved(made, lambda rows: images[rows], 40, 10, previous)
    zero = solved(made, lambda rows: images[rows], 40, 10)
    # The same image again: its equilibrium is nearly reached, so that one evaluation settles it.
    assert (chain.num_evaluations[:10] > 1).all() and (chain.num_evaluations[10:] == 1).all()
    np.testing.assert_array_equal(chain.votes, zero.votes)


def test_hopeless_rows_end_early(made):
    """Rows whose margin is below the rounding have no vote, and do not spend the budget."""
    flat = made.variables["params"]["readout"]["kernel"] * 0
    variables = {
        "params": {**made.variables["params"], "readout": {"kernel": flat, "bias": jnp.zeros(NUM_CLASSES)}}
    }
    tied = made._replace(variables=variables)
    images = jax.random.uniform(jax.random.key(3), (20, *made.model.image_shape))
    found = solved(tied, lambda rows: images[rows], 20, 20, budget=1000)
    assert (found.votes == NUM_CLASSES).all()
    assert (found.num_evaluations < 300).all()


@pytest.mark.slow
def test_votes_are_equal_from_every_start():
    """100,000 noisy digits, sample by sample, from six starts, with other lanes and in another order."""
    classifier, num = ds.load_checkpoint("digits", 0.5, "proof"), 100_000
    images = jnp.asarray(ds.load_dataset("digits").take(range(0, 360, 36))[0])
    network = models.build_start(classifier.start_training.network, classifier.model)
    start = classifier.variables["start"]
    order = jnp.asarray(np.random.default_rng(0).permutation(num))

    def noisy(rows):
        keys = jnp.broadcast_to(noise.phase_key(0, 0, noise.ESTIMATION), rows.shape)
        return images[rows % len(images)] + 0.5 * noise.gaussian(keys, rows, images.shape[1:])

    def previous(rows, u, last):
        return per_lane.select(per_lane.is_finite(last), last, classifier.model.initial_state(u))

    def learned(rows, u, last):
        return network.apply(start["network"], u)

    def constant(rows, u, last):
        return jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape), start["mean"], last)

    model, variables = classifier.model, classifier.variables
    params, (clean_u, _) = model.bind(variables), model.inject(variables, images, None)
    equilibria = model.initial_state(clean_u)
    for _ in range(20):
        equilibria = model.cell(params, equilibria, clean_u)

    def clean(rows, u, last):
        return jax.tree.map(lambda x: x[rows % len(images)], equilibria)

    zero = np.asarray(solved(classifier, noisy, num, 100).votes)
    others = {
        "previous": solved(classifier, noisy, num, 100, previous).votes,
        "learned": solved(classifier, noisy, num, 173, learned).votes,
        "constant": solved(classifier, noisy, num, 50, constant).votes,
        "clean": solved(classifier, noisy, num, 60, clean).votes,
    }
    shuffled = solved(classifier, lambda rows: noisy(order[rows]), num, 100, previous).votes
    others["previous, shuffled"] = np.empty_like(zero)
    others["previous, shuffled"][order] = shuffled
    for name, votes in others.items():
        has_both = (zero < NUM_CLASSES) & (np.asarray(votes) < NUM_CLASSES)
        assert has_both.mean() > 0.999, name
        np.testing.assert_array_equal(zero[has_both], np.asarray(votes)[has_both], err_msg=name)
