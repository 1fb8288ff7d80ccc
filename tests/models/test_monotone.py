"""The monotone operator DEQ: its constants against dense matrices, non-negative least squares and float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from deqsmooth import models
from deqsmooth.config import architecture
from deqsmooth.models import branches, classifiers
from deqsmooth.models import monotone as family
from deqsmooth.smoothing import proof

COMMON = {"width": 8, "blocks": 0, "image_shape": (4, 4, 1), "num_classes": 4}
SIZES = [
    architecture.MonotoneModel(channels=(3,), **COMMON),
    architecture.MonotoneModel(channels=(2, 3), modulus=0.2, **COMMON),
    architecture.MonotoneModel(channels=(2, 3, 5), pooled=1, modulus=1.0, **COMMON),
    architecture.MonotoneModel(channels=(2, 3), lipschitz=0.5, **COMMON),
]


def names(size):
    return f"{size.channels}{'' if size.lipschitz is None else ', LBEN'}"


@functools.cache
def fresh(size):
    model = models.build(size)
    return model, jax.tree.map(np.asarray, model.init(jax.random.key(5)))


def made(size, scale=1.0, skew=1.0):
    """A model and its variables, with the kernels made more alike than at random and N made larger or smaller."""
    model, variables = fresh(size)
    cell = dict(variables["params"]["cell"])
    cell["kernels"] = jax.tree.map(lambda x: x + scale * np.mean(np.abs(x)), cell["kernels"])
    cell["skew_weights"] = skew * cell["skew_weights"]
    return model, {"params": {**variables["params"], "cell": cell}}


def state_of(size, num_lanes=1):
    height, width, _ = size.image_shape
    return tuple(jnp.zeros((num_lanes, height >> i, width >> i, c)) for i, c in enumerate(size.channels))


def basis(size):
    """A state in every lane, of which one entry is 1."""
    flat, _ = ravel_pytree(state_of(size))
    ends = np.cumsum([x.size for x in state_of(size)])[:-1]
    rows = np.split(np.eye(len(flat)), ends, axis=1)
    return tuple(
        jnp.asarray(x).reshape(len(flat), *y.shape[1:]) for x, y in zip(rows, state_of(size), strict=True)
    )


def columns(z):
    """A state as a dense matrix, whose columns are the lanes."""
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in z], 1).T


@functools.cache
def images_of_basis(size):
    """Parameters -> A, N and the cell at every state of the basis; relu is the identity there."""
    model, _ = fresh(size)

    def of(params):
        z = basis(size)
        far = jax.tree.map(lambda x: jnp.full_like(x, 1e3), z)
        cell, zero = (model.cell(params, one, far) for one in (z, jax.tree.map(jnp.zeros_like, z)))
        return branches.mapped(params["root"], z), branches.mapped(params["skew"], z), cell, zero

    return jax.jit(of)


def bound(variables, size):
    """Parameters of the cell, from a compiled program."""
    return compiled(size)(variables)


@functools.cache
def compiled(size):
    return jax.jit(fresh(size)[0].bind)


@functools.cache
def solved(size):
    """(parameters, injection) -> state after 500 plain evaluations."""
    model, _ = fresh(size)
    return jax.jit(
        lambda params, u: jax.lax.fori_loop(0, 500, lambda _, z: model.cell(params, z, u), model.initial_state(u))
    )


def parts(variables, size):
    """The dense matrices of A, N and of the linear part M of the cell, and the step a, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), bound(variables, size))
    with jax.enable_x64(True):
        root, skew, cell, zero = map(columns, images_of_basis(size)(params))
    return root / np.sqrt(params["step"]), skew / params["step"], cell - zero, float(params["step"])


def injection_and_readout(variables, size):
    """Derivatives of injections in the image [state, pixels] and of logits in the state [state, classes]."""
    model, image = fresh(size)[0], jnp.zeros((1, *size.image_shape))
    zero, unravel = ravel_pytree(state_of(size))
    injection = jax.jacobian(lambda x: ravel_pytree(model.inject(variables, x, None)[0])[0])(image)
    readout = jax.jacobian(lambda z: model.readout(variables, unravel(z))[0][0])(zero)
    return np.asarray(injection, np.float64).reshape(len(zero), -1), np.asarray(readout, np.float64).T


@pytest.mark.parametrize("size", SIZES, ids=names)
@pytest.mark.parametrize(("scale", "skew"), [(0.0, 1.0), (3.0, 0.0), (3.0, 4.0)])
def test_constants_bound_dense_matrices(size, scale, skew):
    model, variables = made(size, scale, skew)
    root, rotation, linear, step = parts(variables, size)
    # The cell is the step that the paper defines, and I - W is m-strongly monotone.
    np.testing.assert_allclose(rotation, -rotation.T, atol=1e-12)
    operator = size.modulus * np.eye(len(root)) + root.T @ root - rotation
    if size.lipschitz is not None:
        for matrix in injection_and_readout(variables, size):
            operator += matrix @ matrix.T / (2 * size.lipschitz)
    np.testing.assert_allclose(linear, np.eye(len(root)) - step * operator, atol=1e-6)
    assert np.linalg.eigvalsh((operator + operator.T) / 2).min() >= size.modulus * (1 - 1e-9)
    # The constants hold, and strong monotonicity is not wasted.
    factor, modulus = model.contraction.factor(variables), model.contraction.modulus(variables)
    assert np.linalg.norm(linear, 2) <= factor < 1
    assert step * size.modulus * (1 - 1e-3) < modulus <= 1 - np.linalg.eigvalsh((linear + linear.T) / 2).max()
    assert modulus >= (1 - factor) * (1 - 1e-3)
    if skew:
        assert modulus > 1.05 * (1 - factor)
    if scale:
        assert np.linalg.norm(linear, 2) > 0.75 * factor


@pytest.mark.parametrize(("square", "skew"), [(1.0, 0.0), (0.0, 2.0), (1.0, 0.5), (30.0, 7.0)])
def test_step_has_the_least_constant(square, skew):
    """In the plane the constant is reached; the step against a grid, and the constant against its closed form."""
    modulus = 0.5
    steps = np.linspace(1e-3, 2 / modulus, 40_001)
    found = [family._lipschitz(1 - a * modulus, a * square, a * skew) for a in steps]
    best = float(family._step(modulus, jnp.float32(square), jnp.float32(skew)))
    constant = family._lipschitz(1 - best * modulus, best * square, best * skew)
    assert min(found) - 1e-4 < constant <= min(found) + 1e-6 < 1
    radius = np.hypot(modulus + square / 2, skew)
    closed = np.sin(np.arcsin(square / 2 / radius) + np.arcsin(skew / radius))
    np.testing.assert_allclose(constant, closed, atol=1e-6)
    plane = np.array([[1 - best * (modulus + square), best * skew], [-best * skew, 1 - best * modulus]])
    np.testing.assert_allclose(np.linalg.norm(plane, 2), constant, atol=1e-6)


def test_transposed_map_is_the_adjoint():
    size = SIZES[2]
    kernels = branches.kernels(jax.random.key(0), size)
    there, back = (columns(branches.mapped(k, basis(size))) for k in (kernels, branches.transposed(kernels)))
    np.testing.assert_allclose(back, there.T, atol=1e-6)
    assert np.linalg.norm(there) > 1


@pytest.mark.parametrize("skew", [0.0, 2.0])
def test_equilibrium_solves_the_operator(skew):
    """Without N it is the solution of non-negative least squares; with N it is where W maps it to itself."""
    size = SIZES[1]
    _, variables = made(size, 1.0, skew)
    root, rotation, _, _ = parts(variables, size)
    operator = size.modulus * np.eye(len(root)) + root.T @ root - rotation
    u = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), state_of(size))
    params, flat = bound(variables, size), np.asarray(ravel_pytree(u)[0], np.float64)
    z = np.asarray(ravel_pytree(solved(size)(params, u))[0], np.float64)
    assert 0.2 < (z > 0).mean() < 0.8
    np.testing.assert_allclose(z, np.maximum(z - operator @ z + flat, 0), atol=1e-5)
    if not skew:
        lower = np.linalg.cholesky(operator)
        truth, _ = scipy.optimize.nnls(lower.T, np.linalg.solve(lower, flat))
        np.testing.assert_allclose(z, truth, atol=1e-5)


@pytest.mark.parametrize("size", SIZES[2:], ids=names)
@pytest.mark.parametrize("magnitude", [1.0, 1e3])
def test_rounding_is_below_its_bound(size, magnitude):
    model, variables = made(size)
    params = bound(variables, size)
    rng = np.random.default_rng(3)
    z, u = (
        tuple(jnp.float32(magnitude * rng.normal(size=(20, *x.shape[1:]))) for x in state_of(size)) for _ in "zu"
    )
    found = model.cell(params, z, u)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (params, z, u))
        truth = jax.tree.map(np.asarray, model.cell(*wide))
    norms = [np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum((1, 2, 3)) for x in one)) for one in (z, u)]
    gaps = (((np.asarray(a, np.float64) - b) ** 2).sum((1, 2, 3)) for a, b in zip(found, truth, strict=True))
    error = np.sqrt(sum(gaps))
    a, b = model.contraction.rounding(variables)
    assert (error > 0).all() and (error <= a * norms[0] + b * norms[1]).all()


def test_wrong_constant_is_found():
    """Without N, and where relu changes nothing, the bound on the distance is nearly reached."""
    size = SIZES[0]
    model, variables = made(size, 3.0, 0.0)
    _, _, linear, _ = parts(variables, size)
    constants = proof.proof(classifiers.of_size(size, variables, None))
    params = bound(variables, size)
    u = jax.tree.map(lambda x: x + 100.0, state_of(size))
    exact = solved(size)(params, u)
    slowest = ravel_pytree(state_of(size))[1](jnp.asarray(np.linalg.eigh(linear)[1][:, -1], jnp.float32))
    z = jax.tree.map(lambda x, y: x + 20 * y, exact, slowest)
    fz = model.cell(params, z, u)
    truth = np.linalg.norm(ravel_pytree(fz)[0] - ravel_pytree(exact)[0])
    assert min(x.min() for x in jax.tree.leaves((z, fz))) > 0
    assert truth <= constants.distance(z, fz, u)[0] < 1.1 * truth
    for wrong in ({"factor": 0.9 * constants.factor}, {"modulus": 1.1 * constants.modulus}):
        assert constants._replace(**wrong).distance(z, fz, u)[0] < truth
