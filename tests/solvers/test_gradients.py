"""Gradients through equilibria against closed forms, unrolled iteration and finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import flatten_util

from deqsmooth import solvers
from deqsmooth.models import layers
from deqsmooth.solvers import gradients, jacobian

METHODS = {
    "neumann": lambda cell: gradients.neumann(cell, 80),
    "gmres": lambda cell: gradients.gmres(cell, 12, 1e-13),
    "plain": lambda cell: gradients.fixed_point(cell, solvers.build("plain", 80)),
    "anderson": lambda cell: gradients.fixed_point(cell, solvers.build("anderson", 60, 1e-13)),
    "sketched-anderson": lambda cell: gradients.fixed_point(cell, solvers.build("sketched-anderson", 60)),
    "broyden": lambda cell: gradients.fixed_point(cell, solvers.build("broyden", 25)),
    "jaxopt": lambda cell: gradients.fixed_point(cell, solvers.build("jaxopt", 80, 1e-13)),
}
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
    found = gradients_of(gradients.fixed_point(cell, solvers.build(solver, budget)), params, u)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # Anderson's ridge is not small beside residuals this small, and slows the last digits.
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
    estimates = jax.lax.map(lambda keys: jacobian.penalty(cell, params, z, u, keys), keys)
    # Four standard errors; the relative standard deviation of each of the 4000 vectors is below sqrt(2).
    np.testing.assert_allclose(jnp.mean(estimates, 0), exact, rtol=4 * np.sqrt(2 / 4000))

    def penalty(scale):
        scaled = {**params, "kernel": params["kernel"] * scale}
        return jnp.sum(jacobian.penalty(cell, scaled, z, u, keys[0]))

    difference = (penalty(1 + 1e-6) - penalty(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(penalty)(1.0), difference, rtol=1e-6)


def test_spectral_radius_equals_largest_eigenvalue():
    params, u = problem()
    z = unrolled(params, u)
    exact = [np.abs(np.linalg.eigvals(np.asarray(j))).max() for j in jacobians(params, z, u)]
    keys = jax.random.split(jax.random.key(3), 3)
    # The error of power iteration decreases geometrically, at the ratio of the two largest eigenvalues.
    found = jacobian.spectral_radius(cell, params, z, u, keys, 400)
    np.testing.assert_allclose(found, exact, rtol=0.02)


def test_spectral_radius_of_rotation():
    def rotate(angle, z, u):
        turn = jnp.asarray([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        return 0.8 * z @ turn.T

    z = jnp.zeros((4, 2), jnp.float64)
    keys = jax.random.split(jax.random.key(0), 4)
    np.testing.assert_allclose(jacobian.spectral_radius(rotate, 1.0, z, z, keys), 0.8, rtol=1e-9)


def dense(params, z, u):
    return jnp.tanh(z @ params["w"] + u @ params["v"] + params["b"])


def dense_problem():
    """Parameters and injection of two lanes as one vector, and the inverse of that."""
    keys = jax.random.split(jax.random.key(4), 4)
    w = jax.random.normal(keys[0], (4, 4), jnp.float64)
    params = {
        "w": 0.45 * w / jnp.linalg.norm(w, 2),
        "v": jax.random.normal(keys[1], (3, 4), jnp.float64),
        "b": jax.random.normal(keys[2], (4,), jnp.float64),
    }
    return flatten_util.ravel_pytree((params, jax.random.normal(keys[3], (2, 3), jnp.float64)))


def dense_loss(z):
    return jnp.sum(jnp.sin(z) * jnp.arange(1.0, 5.0)) + jnp.sum(z**3)


def dense_equilibrium(params, u):
    step = lambda z, _: (dense(params, z, u), None)  # noqa: E731
    return jax.lax.scan(step, jnp.zeros((2, 4)), length=300)[0]


def through(attach, unravel):
    """The loss of an equilibrium as a function of the vector."""

    def fn(x):
        params, u = unravel(x)
        return dense_loss(attach(params, jax.lax.stop_gradient(dense_equilibrium(params, u)), u))

    return fn


@pytest.fixture(scope="module")
def derivatives():
    """The first three derivatives of the unrolled iteration; the second and third along a direction."""
    with jax.enable_x64(True):
        x, unravel = dense_problem()

        def fn(x):
            return dense_loss(dense_equilibrium(*unravel(x)))

        return jax.jit(lambda x: (jax.grad(fn)(x), jax.jacrev(jax.grad(fn))(x), third(fn)(x)))(x)


def third(fn):
    """A gradient of a function of a Hessian-vector product."""

    def product(x):
        return jax.grad(lambda x: jnp.sum(jnp.cos(jax.grad(fn)(x))))(x)

    return jax.grad(lambda x: jnp.sum(product(x) ** 2))


@pytest.mark.parametrize("name", METHODS)
def test_hessian_equals_unrolled_hessian(name, derivatives):
    x, unravel = dense_problem()
    fn = through(METHODS[name](dense), unravel)
    first, second = jax.jit(lambda x: (jax.grad(fn)(x), jax.jacrev(jax.grad(fn))(x)))(x)
    assert np.abs(derivatives[1]).max() > 1
    # The iteration has converged in float64; the error is that of two linear solves.
    np.testing.assert_allclose(first, derivatives[0], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(second, derivatives[1], rtol=1e-9, atol=1e-9)


def test_third_derivatives_equal_unrolled_ones(derivatives):
    x, unravel = dense_problem()
    found = jax.jit(third(through(gradients.neumann(dense, 80), unravel)))(x)
    np.testing.assert_allclose(found, derivatives[2], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["neumann", "gmres"])
def test_gradient_of_gradient_norm(name):
    """Reverse over reverse through a convolution, which has no forward mode."""
    params, u = problem(1)

    def length(equilibrium):
        def of(params):
            gradient = jax.grad(lambda params: loss(equilibrium(params)))(params)
            return sum(jnp.sum(x**2) for x in jax.tree.leaves(gradient))

        return jax.jit(jax.grad(of))(params)

    def attached(params):
        return ATTACHMENTS[name](cell)(params, jax.lax.stop_gradient(unrolled(params, u, 80)), u)

    found, expected = length(attached), length(lambda params: unrolled(params, u, 80))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8), found, expected)


def test_second_derivatives_of_linear_cell():
    """Z = u / (1 - a)."""
    attach = gradients.gmres(lambda a, z, u: a * z + u, 1, 1e-14)

    def fn(x):
        a, u = x[0], x[1] * jnp.ones((1, 1))
        return jnp.sum(attach(a, jax.lax.stop_gradient(u / (1 - a)), u))

    a, u = 0.6, 1.5
    expected = [[2 * u / (1 - a) ** 3, 1 / (1 - a) ** 2], [1 / (1 - a) ** 2, 0]]
    np.testing.assert_allclose(jax.jacrev(jax.grad(fn))(jnp.array([a, u])), expected, rtol=1e-12, atol=1e-12)


def test_one_step_hessian_has_constant_state():
    x, unravel = dense_problem()
    z = dense_equilibrium(*unravel(x))

    def fn(x):
        params, u = unravel(x)
        return dense_loss(dense(params, z, u))

    found = jax.jacrev(jax.grad(through(gradients.one_step(dense), unravel)))(x)
    np.testing.assert_allclose(found, jax.hessian(fn)(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_forward_mode_raises(name):
    x, unravel = dense_problem()
    fn = through(METHODS[name](dense), unravel)
    for derivative in (lambda: jax.hessian(fn)(x), lambda: jax.jvp(fn, (x,), (x,))):
        with pytest.raises(TypeError, match=r"jax\.jacrev\(jax\.grad\(loss\)\)"):
            derivative()


@pytest.mark.parametrize("name", METHODS)
def test_gradients_can_be_vectorised(name):
    x, unravel = dense_problem()
    gradient = jax.grad(through(METHODS[name](dense), unravel))
    points = jnp.stack([x, 0.7 * x])
    expected = [gradient(point) for point in points]
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(points), expected, rtol=1e-9, atol=1e-11)


SHORT = {
    "neumann": lambda cell: gradients.neumann(cell, 8),
    "plain": lambda cell: gradients.fixed_point(cell, solvers.build("plain", 8)),
    "jaxopt": lambda cell: gradients.fixed_point(cell, solvers.build("jaxopt", 8, 1e-30)),
    "broyden": lambda cell: gradients.fixed_point(cell, solvers.build("broyden", 8)),
    "anderson": lambda cell: gradients.fixed_point(cell, solvers.build("anderson", 8)),
    "gmres": lambda cell: gradients.gmres(cell, 3),
}


def linear_backward(attach, a):
    """Gradient [lanes] in u of the sum of a linear cell z = a z + u with a factor a lane, and the residuals."""
    a = jnp.asarray(a)[:, None]
    z = jnp.zeros((len(a), 1))
    return jax.grad(lambda x, probe: jnp.sum(attach(None, z, (a, x), probe)), (0, 1))(
        z, jnp.zeros(len(a), jnp.float32)
    )


def linear(params, z, u):
    return u[0] * z + u[1]


@pytest.mark.parametrize("name", ["neumann", "plain"])
def test_short_series_has_its_residual(name):
    factors = np.array([0.999, 0.5, -3.0, 0.0])
    found, residual = linear_backward(SHORT[name](linear), factors)
    terms = factors[:, None] ** np.arange(8)
    np.testing.assert_allclose(found[:, 0], terms.sum(1), rtol=1e-12)
    # The result has a hundredth of the length of the gradient, which the residual shows.
    assert found[0, 0] < 0.009 / (1 - 0.999)
    assert residual.dtype == jnp.float32
    np.testing.assert_allclose(residual, np.abs(terms[:, -1]), rtol=1e-6, atol=1e-12)


def rotation(params, z, u):
    """J is a rotation by 90 degrees, scaled by a factor a lane."""
    return u[0] * jnp.stack([-z[:, 1], z[:, 0]], 1) + u[1]


@pytest.mark.parametrize("name", SHORT)
def test_residual_is_small_only_if_solved(name):
    x = jnp.zeros((2, 6, 2))
    spread = jnp.linspace(0.9, 0.99, 6)[:, None]
    factor = jnp.array([0.01, 1.0])[:, None, None] * spread * jnp.ones((2, 6, 2))
    attach = SHORT[name](linear)
    weights = jnp.cos(jnp.arange(12.0)).reshape(6, 2)

    def fn(x, probe):
        return jnp.sum(weights * attach(None, x, (factor, x), probe))

    solved, unsolved = jax.grad(fn, (0, 1))(x, jnp.zeros(2, jnp.float32))[1]
    assert solved < 1e-4
    assert unsolved > (0.4 if name in ("neumann", "plain") else 100 * solved)


def test_gmres_residual_belongs_to_result():
    a, v = jnp.array([0.9, 0.2]), np.array([1.0, 2.0])
    attach = gradients.gmres(rotation, 1)

    def fn(x, probe):
        return jnp.sum(attach(None, x, (a[:, None], x), probe) * v)

    found, residual = jax.grad(fn, (0, 1))(jnp.zeros((2, 2)), jnp.zeros(2, jnp.float32))
    transposed = np.array([[0.0, 1.0], [-1.0, 0.0]])
    defects = [a[lane] * transposed @ found[lane] + v - found[lane] for lane in range(2)]
    np.testing.assert_allclose(residual, np.linalg.norm(defects, axis=1) / np.linalg.norm(v), rtol=1e-6)
    assert residual[0] > 0.1


def test_lane_without_cotangent_has_residual_zero():
    attach = SHORT["neumann"](lambda a, z, u: a * z + u)
    z = jnp.zeros((2, 1))
    residual = jax.grad(lambda probe: jnp.sum(attach(0.9, z, z, probe)[:1]))(jnp.zeros(2, jnp.float32))
    np.testing.assert_allclose(residual, [0.9**7, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "products", "further"), [("neumann", 8, 0), ("broyden", 9, 0), ("plain", 9, 0), ("gmres", None, 1)]
)
def test_probe_adds_no_products(name, products, further):
    """Pull-backs through the cell, counted as they run; the last is that to params and u."""
    counts = []

    @jax.custom_vjp
    def counted(x):
        return x

    def backward(_, cotangent):
        jax.debug.callback(lambda: counts.append(1))
        return (cotangent,)

    counted.defvjp(lambda x: (x, None), backward)
    attach = SHORT[name](lambda a, z, u: counted(jnp.tanh(a * z + u)))
    z = jnp.ones((1, 3))
    found = []
    for probe in (None, jnp.zeros(1, jnp.float32)):
        counts.clear()
        gradient = jax.jit(jax.grad(lambda a, u, probe=probe: jnp.sum(attach(a, z, u, probe)), (0, 1)))(0.5, z)
        jax.block_until_ready(gradient)
        jax.effects_barrier()
        found.append((len(counts), gradient))
    (plain, expected), (probed, gradient) = found
    assert probed == plain + further
    assert products is None or plain == products
    jax.tree.map(np.testing.assert_array_equal, gradient, expected)


@pytest.mark.parametrize("name", ["one_step", *SHORT])
def test_cell_is_evaluated_no_more_than_needed(name):
    calls = []

    def counted(a, z, u):
        calls.append(1)
        return jnp.tanh(a * z + u)

    attach = gradients.one_step(counted) if name == "one_step" else SHORT[name](counted)
    z = jnp.ones((1, 3))
    jax.make_jaxpr(jax.grad(lambda a: jnp.sum(attach(a, z, z))))(0.5)
    # Once for J^T, and once for the derivatives in params and u; GMRES has both its operator and the transpose of
    # it in its program, several times.
    assert len(calls) <= {"one_step": 1, "gmres": 12}.get(name, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gradients.neumann(dense, 0), "num_terms is 0; it must be at least 1"),
        (lambda: gradients.gmres(dense, 0), "num_iterations is 0; it must be at least 1"),
        (lambda: gradients.gmres(dense, 3, 0.0), r"tolerance is 0\.0; it must be positive"),
        (lambda: gradients.one_step(dense)({}, jnp.ones((2, 4)), None, jnp.zeros(2)), "one_step solves no linear"),
        (lambda: gradients.neumann(dense, 2)({}, jnp.ones((2, 4)), None, jnp.zeros(3)), r"shape \(3,\).*\(2,\)"),
        (lambda: gradients.neumann(dense, 2)({}, {}, None), "state has no arrays"),
    ],
)
def test_bad_arguments_raise_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["one_step", *SHORT])
def test_cell_with_another_state_raises(name):
    def wide(a, z, u):
        return (a * z + u).astype(jnp.float32)

    attach = gradients.one_step(wide) if name == "one_step" else SHORT[name](wide)
    z = jnp.ones((1, 3))
    with pytest.raises(ValueError, match=r"f\(z\) is float32\[1, 3\] and z is float64\[1, 3\]"):
        jax.grad(lambda a: jnp.sum(attach(a, z, z)))(0.5)


@pytest.mark.parametrize("name", ["one_step", *SHORT])
def test_no_promotion_is_needed(name):
    params, z, u = 0.3 * jnp.eye(3), jnp.ones((2, 3)), jnp.full((2, 3), 0.5)

    def inner(params, z, u):
        return jnp.tanh(z @ params) + u

    attach = gradients.one_step(inner) if name == "one_step" else SHORT[name](inner)
    probe = None if name == "one_step" else jnp.zeros(2, jnp.float32)
    gradient = jax.grad(lambda params, u, probe: jnp.sum(attach(params, z, u, probe)), (0, 1, 2))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(gradient, params, u, probe)
        jax.eval_shape(jax.jacrev(lambda params: gradient(params, u, probe)[0]), params)
