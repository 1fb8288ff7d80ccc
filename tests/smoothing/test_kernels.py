"""The scan against the same sampling written as a Python loop, and its lanes that are not finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from deqsmooth import solvers
from deqsmooth.models import base_classifier, starts
from deqsmooth.smoothing import kernels, noise

SIGMA, STEPS, LANES = 0.5, 5, 4


@pytest.fixture(params=["toy", pytest.param("conv", marks=pytest.mark.slow)])
def deq(request, small):
    if request.param == "conv":
        return small.model, small.variables
    model = toy.build()
    return model, model.init(jax.random.key(0))


@pytest.fixture
def setting():
    images = jax.random.uniform(jax.random.key(2), (LANES, 8, 8, 1))
    keys = jax.vmap(lambda image: noise.phase_key(0, image, noise.ESTIMATION))(jnp.arange(LANES))
    samples = jnp.arange(STEPS * LANES, dtype=jnp.int32).reshape(STEPS, LANES)
    noisy = [images + SIGMA * noise.gaussian(keys, index, (8, 8, 1)) for index in samples]
    return images, keys, samples, noisy


def kernel_of(deq, start, budget=2, warm_up=4):
    model, variables = deq

    def solve(images, budget, start):
        return base_classifier.classify(model, variables, solvers.build("anderson", budget), images, start)

    if start == "zero":
        return kernels.independent(lambda images: solve(images, budget, starts.zero(model)))
    return kernels.serial(
        lambda images: solve(images, warm_up, starts.zero(model)),
        lambda images, z: solve(images, budget, starts.state(z)),
        start,
    )


@pytest.mark.parametrize("start", ["zero", "previous", "first", "clean"])
def test_scan_equals_python_loop(deq, setting, start):
    images, keys, samples, noisy = setting
    kernel = kernel_of(deq, start)
    info, warm_up = jax.jit(functools.partial(kernels.run, kernel, sigma=SIGMA))(images, keys, samples)

    model, variables = deq
    params, cell = model.bind(variables), model.cell

    @functools.partial(jax.jit, static_argnums=2)
    def solve(x, z, budget):
        u, _ = model.inject(variables, x, None)
        z = model.initial_state(u) if z is None else z
        return solvers.build("anderson", budget).solve(lambda z: cell(params, z, u), z).value

    state = None
    for step, x in enumerate(noisy):
        if start != "zero" and step == 0:
            state = solve(images if start == "clean" else x, None, 4)
        found = solve(x, state, 2)
        votes = jnp.argmax(model.readout(variables, found, False)[0], -1)
        np.testing.assert_array_equal(info.votes[step], votes)
        state = found if start == "previous" else state
    assert (info.num_evaluations == 2).all()
    assert (warm_up == (0 if start == "zero" else 4)).all()
    assert info.votes.shape == (STEPS, LANES)


def test_bad_lane_never_votes(deq, setting):
    images, keys, samples, _ = setting
    for start in ("zero", "previous", "first", "clean"):
        run = jax.jit(functools.partial(kernels.run, kernel_of(deq, start), sigma=SIGMA))
        sound, _ = run(images, keys, samples)
        broken, _ = run(images.at[1, 0, 0, 0].set(jnp.nan), keys, samples)
        assert (broken.votes[:, 1] == 10).all()
        others = np.array([0, 2, 3])
        np.testing.assert_array_equal(broken.votes[:, others], sound.votes[:, others])


def test_chain_recovers_from_bad_draw():
    """A cell that overflows on one bright draw; the states after it are as good as before."""

    def classify(images, z):
        value = jnp.where(jnp.mean(images, (1, 2, 3)) > 0.4, jnp.inf, z + 1.0)
        nothing = jnp.zeros(len(images), jnp.int32)
        solution = solvers.loop.types.Solution(value, jnp.zeros(len(images)), nothing + 1, nothing)
        return base_classifier.Output(value[:, None] * jnp.asarray([1.0, 0.0]), solution)

    kernel = kernels.serial(
        lambda images: classify(jnp.zeros_like(images), jnp.zeros(len(images))), classify, "previous"
    )
    state, _ = kernel.init(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1)))
    state, _ = kernel.step(state, jnp.zeros((1, 2, 2, 1)))
    state, info = kernel.step(state, jnp.ones((1, 2, 2, 1)))
    assert info.votes.tolist() == [2] and state.tolist() == [2.0]
    state, info = kernel.step(state, jnp.zeros((1, 2, 2, 1)))
    assert info.votes.tolist() == [0] and state.tolist() == [3.0]


def test_infinite_logits_are_invalid_too():
    logits = jnp.asarray([[0.0, jnp.inf], [-jnp.inf, 0.0], [jnp.nan, 0.0], [0.0, 1.0]])
    kernel = kernels.independent(lambda images: base_classifier.explicit(lambda images: logits, images))
    _, info = kernel.step((), jnp.zeros((4, 2, 2, 1)))
    assert info.votes.tolist() == [2, 2, 2, 1]
    assert info.num_evaluations.tolist() == [1, 1, 1, 1]
    assert np.isnan(info.residual).all()


@pytest.mark.parametrize("start", ["zero", "previous"])
def test_no_promotion_is_needed(small, setting, start):
    images, keys, samples, _ = setting
    kernel = kernel_of((small.model, small.variables), start)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(functools.partial(kernels.run, kernel, sigma=SIGMA), images, keys, samples)
