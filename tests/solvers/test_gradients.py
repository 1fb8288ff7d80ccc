"""Gradients through equilibria against closed forms, unrolled iteration and finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deqsmooth import solvers
from deqsmooth.models import layers
from deqsmooth.solvers import gradients

ATTACHMENTS = {
    "neumann": lambda cell: gradients.neumann(cell, 200),
    "gmres": lambda cell: gradients.gmres(cell, 40, 1e-12),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def cell(params, z, u):
    """A convolutional contraction on a state of two coupled leaves."""
    a, b = z
    mixed = layers.convolve(jnp.concatenate([a, b], -1), params["kernel"], 1, ((1, 1), (1, 1)))
    new = jnp.tanh(mixed + params["bias"]) + u
    return new[..., :2], new[..., 2:]


def problem(num_lanes=3):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "kernel": 0.12 * jax.random.normal(keys[0], (3, 3, 5, 5), jnp.float64),
        "bias": 0.1 * jax.random.normal(keys[1], (5,), jnp.float64),
    }
    return params, jax.random.normal(keys[2], (num_lanes, 3, 3, 5), jnp.float64)


def start(u):
    return jnp.zeros_like(u[..., :2]), jnp.zeros_like(u[..., 2:])


def unrolled(params, u, num_steps=200):
    return jax.lax.scan(lambda z, _: (cell(params, z, u), None), start(u), length=num_steps)[0]


def loss(z):
    return jnp.sum(jnp.sin(z[0])) + jnp.sum(z[1] ** 2)


def gradients_of(attach, params, u):
    z = jax.lax.stop_gradient(unrolled(params, u))
    return jax.jit(jax.grad(lambda params, u: loss(attach(params, z, u)), argnums=(0, 1)))(params, u)


@pytest.mark.parametrize("name", ATTACHMENTS)
def test_gradient_equals_unrolled_gradient(name):
    params, u = problem()
    expected = jax.grad(lambda params, u: loss(unrolled(params, u)), argnums=(0, 1))(params, u)
    for x, y in zip(
        jax.tree.leaves(gradients_of(ATTACHMENTS[name](cell), params, u)), jax.tree.leaves(expected), strict=True
    ):
        # The iteration has converged in float64; the error is that of the linear solve.
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("solver", "budget"), [("anderson", 40), ("broyden", 25)])
def test_fixed_point_gradient_equals_gmres_gradient(solver, budget):
    params, u = problem()
    expected = gradients_of(ATTACHMENTS["gmres"](cell), params, u)
    # The solvers work in float32.
    with jax.enable_x64(False):
        params, u = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), (params, u))
        found = gradients_of(gradients.fixed_point(cell, solvers.build(solver, budget)), params, u)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_gradient_equals_finite_differences():
    params, u = problem()
    gradient = gradients_of(ATTACHMENTS["gmres"](cell), params, u)[0]["kernel"]
    direction = jax.random.normal(jax.random.key(5), gradient.shape, jnp.float64)
    step = 1e-5

    def at(scale):
        return loss(unrolled({**params, "kernel": params["kernel"] + scale * direction}, u))

    # The error of a central difference is step^2 times the third derivative, plus rounding / step.
    expected = (at(step) - at(-step)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(gradient * direction), expected, rtol=1e-6)


def test_gradient_of_linear_cell_is_exact():
    a = jnp.asarray([[0.5, 0.2], [-0.1, 0.3]], jnp.float64)
    u = jnp.asarray([[1.0, 2.0]], jnp.float64)
    z = jnp.linalg.solve(jnp.eye(2) - a, u.T).T
    attach = gradients.gmres(lambda a, z, u: z @ a.T + u, 2, 1e-14)
    d_a, d_u = jax.grad(lambda a, u: jnp.sum(attach(a, z, u)), argnums=(0, 1))(a, u)
    adjoint = jnp.linalg.solve(jnp.eye(2) - a.T, jnp.ones(2))
    np.testing.assert_allclose(d_u[0], adjoint, rtol=1e-12)
    np.testing.assert_allclose(d_a, jnp.outer(adjoint, z[0]), rtol=1e-12)


def test_one_step_equals_one_neumann_term():
    params, u = problem()
    z = unrolled(params, u)
    expected = jax.grad(lambda params, u: loss(cell(params, z, u)), argnums=(0, 1))(params, u)
    for attach in (gradients.one_step(cell), gradients.neumann(cell, 1)):
        for x, y in zip(jax.tree.leaves(gradients_of(attach, params, u)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


def test_linear_systems_of_lanes_are_independent():
    """The gradient of a lane does not change if another lane has a much harder system."""
    params, u = problem(2)
    u = u * jnp.asarray([0.01, 3.0])[:, None, None, None]
    both = gradients_of(ATTACHMENTS["gmres"](cell), params, u)[1]
    for lane in range(2):
        alone = gradients_of(ATTACHMENTS["gmres"](cell), params, u[lane : lane + 1])[1]
        np.testing.assert_allclose(both[lane : lane + 1], alone, rtol=1e-9, atol=1e-12)


def jacobians(params, z, u):
    """The dense Jacobian of every lane."""
    sizes = [x[0].size for x in z]

    def flat(vector, lane):
        parts = jnp.split(vector, [sizes[0]])
        state = tuple(p.reshape(1, *x.shape[1:]) for p, x in zip(parts, z, strict=True))
        return jnp.concatenate([x.ravel() for x in cell(params, state, u[lane : lane + 1])])

    points = [jnp.concatenate([x[lane].ravel() for x in z]) for lane in range(len(u))]
    # Reverse mode: the convolution has no forward mode.
    return [jax.jacrev(flat)(point, lane) for lane, point in enumerate(points)]


def test_penalty_estimates_jacobian_norm():
    params, u = problem()
    z = unrolled(params, u)
    exact = np.array([jnp.sum(j**2) / len(j) for j in jacobians(params, z, u)])
    keys = jax.random.split(jax.random.key(2), (2000, 3))
    estimates = jax.lax.map(lambda keys: gradients.jacobian_penalty(cell, params, z, u, keys), keys)
    # Four standard errors; the relative standard deviation of each of the 4000 vectors is below sqrt(2).
    np.testing.assert_allclose(jnp.mean(estimates, 0), exact, rtol=4 * np.sqrt(2 / 4000))

    def penalty(scale):
        scaled = {**params, "kernel": params["kernel"] * scale}
        return jnp.sum(gradients.jacobian_penalty(cell, scaled, z, u, keys[0]))

    difference = (penalty(1 + 1e-6) - penalty(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(penalty)(1.0), difference, rtol=1e-6)


def test_spectral_radius_equals_largest_eigenvalue():
    params, u = problem()
    z = unrolled(params, u)
    exact = [np.abs(np.linalg.eigvals(np.asarray(j))).max() for j in jacobians(params, z, u)]
    keys = jax.random.split(jax.random.key(3), 3)
    # The error of power iteration decreases geometrically, at the ratio of the two largest eigenvalues.
    found = gradients.spectral_radius(cell, params, z, u, keys, 400)
    np.testing.assert_allclose(found, exact, rtol=0.02)


def test_spectral_radius_of_rotation():
    def rotate(angle, z, u):
        turn = jnp.asarray([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        return 0.8 * z @ turn.T

    z = jnp.zeros((4, 2), jnp.float64)
    keys = jax.random.split(jax.random.key(0), 4)
    np.testing.assert_allclose(gradients.spectral_radius(rotate, 1.0, z, z, keys), 0.8, rtol=1e-9)
