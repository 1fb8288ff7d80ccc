"""The Peaceman-Rachford step: against forward-backward steps, dense matrices, float64, and a wrong constant."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from deqsmooth import models
from deqsmooth.config import architecture
from deqsmooth.models import branches, classifiers, peaceman_rachford
from deqsmooth.smoothing import proof

COMMON = {"width": 8, "blocks": 0, "image_shape": (4, 4, 1), "num_classes": 4}
FORWARD = [
    architecture.MonotoneModel(channels=(3,), **COMMON),
    architecture.MonotoneModel(channels=(2, 3), modulus=0.2, **COMMON),
]


def resolvent(size):
    return dataclasses.replace(size, splitting="peaceman-rachford")


@functools.cache
def made(size, skew):
    """Variables of a model, with the kernels made more alike than at random and N made larger or smaller."""
    variables = jax.tree.map(np.asarray, models.build(size).init(jax.random.key(5)))
    cell = dict(variables["params"]["cell"])
    cell["kernels"] = jax.tree.map(lambda x: x + 3 * np.mean(np.abs(x)), cell["kernels"])
    cell["skew_weights"] = skew * cell["skew_weights"]
    return {"params": {**variables["params"], "cell": cell}}


def injection(size, num_lanes=1):
    keys = jax.random.split(jax.random.key(1), len(size.channels))
    return tuple(
        jax.random.normal(key, (num_lanes, *x)) for key, x in zip(keys, branches.shapes(size), strict=True)
    )


def iterated(model, params, u, num):
    step = jax.jit(lambda z: jax.lax.fori_loop(0, num, lambda _, z: model.cell(params, z, u), z))
    return step(model.initial_state(u))


def operator(size, variables):
    """I - W as a dense matrix, from the forward-backward step where relu is the identity."""
    model = models.build(size)
    params = jax.jit(model.bind)(variables)
    far = jax.tree.map(lambda x: 0 * x + 1e3, injection(size))
    zero, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, far))
    step = jax.jacobian(lambda z: ravel_pytree(model.cell(params, unravel(z), far))[0])(zero)
    return (np.eye(len(zero)) - np.asarray(step, np.float64)) / float(params["step"])


@pytest.mark.parametrize("size", FORWARD, ids=lambda size: str(size.channels))
@pytest.mark.parametrize("skew", [0.0, 4.0])
def test_equilibrium_is_that_of_forward_backward_steps(size, skew):
    variables, u = made(size, skew), injection(size, 3)
    forward, backward = models.build(size), models.build(resolvent(size))
    truth = iterated(forward, jax.jit(forward.bind)(variables), u, 5000)
    found = iterated(backward, jax.jit(backward.bind)(variables), u, 300)
    for x, w in zip(truth, found, strict=True):
        np.testing.assert_allclose(jax.nn.relu(w), x, atol=1e-4)
        assert 0.1 < (np.asarray(w) > 0).mean() < 0.9
    # The readout is that of the equilibrium.
    logits = [model.readout(variables, z)[0] for model, z in ((forward, truth), (backward, found))]
    np.testing.assert_allclose(*logits, atol=1e-4)


@pytest.mark.parametrize("size", FORWARD, ids=lambda size: str(size.channels))
@pytest.mark.parametrize("skew", [0.0, 4.0])
def test_factor_is_that_of_the_dense_operator(size, skew):
    variables, model = made(size, skew), models.build(resolvent(size))
    step = float(jax.jit(model.bind)(variables)["step"])
    matrix = operator(size, variables)
    identity = np.eye(len(matrix))
    truth = np.linalg.norm(2 * np.linalg.inv(identity + step * matrix) - identity, 2)
    factor = model.contraction.factor(variables)
    assert truth <= factor <= truth + 4e-3
    assert factor < 1 and factor < 0.95 * models.build(size).contraction.factor(variables)


@pytest.mark.parametrize(("square", "skew"), [(0.0, 0.0), (3.0, 0.0), (0.0, 5.0)])
def test_step_is_best_for_symmetric_and_for_normal_operators(square, skew):
    """The norm of the Cayley transform is the largest of the eigenvalues, those of m, m + p, or m + n i."""
    modulus = 0.5
    eigenvalues = np.array([modulus, modulus + square, modulus + 1j * skew])

    def norm(step):
        return np.abs((1 - step * eigenvalues) / (1 + step * eigenvalues)).max()

    best = norm(float(peaceman_rachford._step(modulus, jnp.float32(square), jnp.float32(skew))))
    assert best <= min(map(norm, np.geomspace(1e-2, 1e2, 2001))) + 1e-3
    if not skew:
        ratio = np.sqrt((modulus + square) / modulus)
        np.testing.assert_allclose(best, (ratio - 1) / (ratio + 1), atol=1e-6)


@pytest.mark.parametrize("magnitude", [1.0, 1e3])
def test_rounding_is_below_its_bound(magnitude):
    size = FORWARD[1]
    variables, model = made(size, 1.0), models.build(resolvent(size))
    params, u = jax.jit(model.bind)(variables), injection(size, 20)
    z = jax.tree.map(lambda x: magnitude * x[::-1], u)
    found = model.cell(params, z, u)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (params, z, u))
        truth = jax.tree.map(np.asarray, model.cell(*wide))

    def norms(x):
        return np.sqrt(sum((np.asarray(one, np.float64) ** 2).sum((1, 2, 3)) for one in x))

    error = norms([np.asarray(a, np.float64) - b for a, b in zip(found, truth, strict=True)])
    a, b = model.contraction.rounding(variables)
    assert (error > 0).all() and (error <= a * norms(z) + b * norms(u)).all()


def test_wrong_constant_is_found():
    """Where the state is positive the cell is affine, and the bound is reached along its slowest direction."""
    size = FORWARD[0]
    variables, model = made(size, 0.0), models.build(resolvent(size))
    constants = proof.proof(classifiers.of_size(resolvent(size), variables, None))
    params = jax.jit(model.bind)(variables)
    u = jax.tree.map(lambda x: 0 * x + 100.0, injection(size))
    exact = iterated(model, params, u, 500)
    cayley = 2 * np.asarray(params["resolvent"], np.float64) - np.eye(len(params["resolvent"]))
    values, vectors = np.linalg.eigh(cayley)
    # A positive eigenvalue approaches from one side, where the bound is reached.
    assert values[-1] > 0.99 * np.abs(values).max()
    slowest = ravel_pytree(exact)[1](jnp.asarray(vectors[:, -1], jnp.float32))
    z = jax.tree.map(lambda x, y: x + 10 * y, exact, slowest)
    fz = model.cell(params, z, u)
    truth = np.linalg.norm(ravel_pytree(fz)[0] - ravel_pytree(exact)[0])
    assert min(x.min() for x in jax.tree.leaves((z, fz))) > 0
    assert truth <= constants.distance(z, fz, u)[0] < 1.1 * truth
    wrong = constants._replace(factor=0.9 * constants.factor, modulus=1 - 0.9 * constants.factor)
    assert wrong.distance(z, fz, u)[0] < truth


@pytest.mark.parametrize("num", [1, 32, 45, 130])
def test_inverse_is_that_of_the_matrix(num):
    """Of a matrix with a positive definite symmetric part, of any size; in float64 to its precision."""
    rng = np.random.default_rng(num)
    turned, half = rng.normal(size=(2, num, num))
    matrix = np.eye(num) + half @ half.T / num + turned - turned.T
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(peaceman_rachford._inverse)(jnp.asarray(matrix)))
    np.testing.assert_allclose(found, np.linalg.inv(matrix), atol=1e-11)


def test_derivative_is_that_of_the_inverse():
    size = FORWARD[0]
    variables, model = made(size, 1.0), models.build(resolvent(size))
    step = jnp.float32(1e-2)

    def trace(skew):
        cell = {**variables["params"]["cell"], "skew_weights": skew * variables["params"]["cell"]["skew_weights"]}
        bound = model.bind({"params": {**variables["params"], "cell": cell}})
        return jnp.sum(bound["resolvent"] ** 2)

    numeric = (trace(1 + step) - trace(1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(trace)(jnp.float32(1.0)), numeric, rtol=2e-2)
    assert abs(numeric) > 0.01


def test_what_has_no_such_step_is_refused():
    with pytest.raises(ValueError, match=r"entries of the state .* is 3072; it must be at most 2,048"):
        architecture.MonotoneModel(channels=(48,), splitting="peaceman-rachford")
    with pytest.raises(ValueError, match=r"lipschitz .* is 2.0; it must be None"):
        architecture.MonotoneModel(lipschitz=2.0, splitting="peaceman-rachford", patch=2)
    with pytest.raises(ValueError, match="splitting is 'douglas'; it must be 'forward-backward' or 'peaceman"):
        architecture.MonotoneModel(splitting="douglas")
