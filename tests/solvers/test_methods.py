"""Solvers against closed forms, and against the published algorithms in float64 numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deqsmooth import solvers
from deqsmooth.solvers import loop, picard

NAMES = ("plain", "anderson", "sketched-anderson", "broyden")


def tanh_problem(num_lanes=6, size=48, strength=0.9, seed=0):
    """A contraction z = tanh(A z) + b with different A and b in every lane, in numpy float64."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(num_lanes, size, size))
    a *= strength / np.linalg.norm(a, 2, axis=(1, 2))[:, None, None]
    return a, rng.normal(size=(num_lanes, size))


def as_function(a, b):
    """The problem as a function of a state with two leaves of different rank."""
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)

    def f(z):
        flat = jnp.concatenate([z[0].reshape(len(b), -1), z[1]], 1)
        return split(jnp.tanh(jnp.einsum("lij,lj->li", a, flat)) + b)

    return f


def split(flat):
    half = flat.shape[1] // 2
    return flat[:, :half].reshape(len(flat), 2, -1), flat[:, half:]


def join(z):
    return np.concatenate([np.reshape(z[0], (len(z[1]), -1)), z[1]], 1)


def reference_anderson(f, z, k, history=6, ridge=1e-4, rows=slice(None)):
    """The published Anderson(k) for one lane: bordered system, ring buffer, repeated first step; returns X_k.

    The weights are computed from the given rows of the residuals; the published algorithm uses all rows.
    """
    x = z
    xs, fs = np.zeros((history, len(z))), np.zeros((history, len(z)))
    xs[0], fs[0] = z, f(z)
    for j in range(1, k + 1):
        n = min(j, history)
        g = (fs[:n] - xs[:n])[:, rows]
        system = np.zeros((n + 1, n + 1))
        system[0, 1:] = system[1:, 0] = 1
        system[1:, 1:] = g @ g.T + ridge * np.eye(n)
        weights = np.linalg.solve(system, np.eye(n + 1)[0])[1:]
        x = weights @ fs[:n]
        xs[j % history], fs[j % history] = x, f(x)
    return x


def reference_broyden(f, z, k):
    """Good Broyden on f(z) - z for one lane, with the inverse Jacobian as a dense matrix."""
    inverse, g = -np.eye(len(z)), f(z) - z
    for _ in range(k):
        step = -inverse @ g
        z = z + step
        g, before = f(z) - z, g
        change = g - before
        inverse = inverse + np.outer(step - inverse @ change, step @ inverse) / (step @ inverse @ change)
    return z


def reference_plain(f, z, k):
    for _ in range(k):
        z = f(z)
    return z


def reference_sketched(f, z, k):
    """Weights from both rows of one leaf, and from every fourth entry of the other leaf."""
    half = len(z) // 2
    rows = np.r_[0:half, half : len(z) : 4]
    return reference_anderson(f, z, k, history=3, rows=rows)


REFERENCES = {
    "plain": reference_plain,
    "anderson": reference_anderson,
    "sketched-anderson": reference_sketched,
    "broyden": reference_broyden,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 2, 3, 7, 12])
def test_iterate_equals_published_algorithm(name, k):
    a, b = tanh_problem()
    solve = jax.jit(functools.partial(solvers.build(name, k).solve, as_function(a, b)))
    solution = solve(split(jnp.zeros(b.shape, jnp.float32)))
    for lane in range(len(b)):
        expected = REFERENCES[name](lambda z, i=lane: np.tanh(a[i] @ z) + b[i], np.zeros(len(b[lane])), k)
        # float32: a few hundred roundings of numbers of size 1, amplified by the condition number of the mixing
        # system.
        np.testing.assert_allclose(join(solution.value)[lane], expected, atol=2e-5)
    assert solution.num_evaluations.tolist() == [k] * len(b)
    assert solution.num_fallbacks.tolist() == [0] * len(b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("budget", "tolerance", "measure"), [(3, None, False), (12, None, True), (40, 1e-4, False)]
)
def test_evaluation_count_equals_number_of_calls(name, budget, tolerance, measure):
    a, b = tanh_problem()
    f, calls = as_function(a, b), []

    def counted(z):
        jax.debug.callback(lambda: calls.append(1))
        return f(z)

    start = split(jnp.zeros(b.shape, jnp.float32))
    solution = solvers.build(name, budget, tolerance).solve(counted, start, measure_residual=measure)
    jax.effects_barrier()
    assert len(calls) == solution.num_evaluations.max()
    if tolerance is None:
        assert len(calls) == budget + measure


@pytest.mark.parametrize("name", NAMES)
def test_measured_residual_belongs_to_returned_state(name):
    a, b = tanh_problem()
    f = as_function(a, b)
    for budget, tolerance in ((4, None), (60, 1e-3)):
        solver = solvers.build(name, budget, tolerance)
        solve = jax.jit(functools.partial(solver.solve, f, measure_residual=True))
        solution = solve(split(jnp.zeros(b.shape, jnp.float32)))
        z, fz = join(solution.value), join(f(solution.value))
        expected = np.linalg.norm(fz - z, axis=1) / (np.linalg.norm(fz, axis=1) + 1e-8)
        # float32 rounding of fz - z, relative to |fz|.
        np.testing.assert_allclose(solution.residual, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_lane_stops_at_first_converged_iterate(name):
    a, b = tanh_problem()
    a *= np.linspace(0.05, 1, len(a))[:, None, None]
    start, tolerance = split(jnp.zeros(b.shape, jnp.float32)), 1e-4
    solution = solvers.build(name, 80, tolerance).solve(as_function(a, b), start)
    assert (solution.residual <= tolerance).all()
    assert len(set(solution.num_evaluations.tolist())) > 2
    for lane, count in enumerate(solution.num_evaluations.tolist()):

        def f(z, lane=lane):
            return np.tanh(a[lane] @ z) + b[lane]

        # The last evaluated iterate follows from count - 1 evaluations, and all earlier ones exceed the tolerance.
        iterates = [REFERENCES[name](f, np.zeros(b.shape[1]), k) for k in range(count)]
        residuals = [np.linalg.norm(f(z) - z) / np.linalg.norm(f(z)) for z in iterates]
        np.testing.assert_allclose(join(solution.value)[lane], iterates[-1], atol=2e-5)
        # float32 rounding of the returned iterate, relative to the tolerance.
        assert all(residual > 0.99 * tolerance for residual in residuals[:-1])
        assert residuals[-1] < 1.01 * tolerance


def hard_lanes(name, budget, tolerance):
    """Lanes that converge, diverge, start at the fixed point, and are not finite, as z -> c z + b."""
    c = jnp.array([0.5, 3.0, 0.5, 0.5, jnp.nan, 0.9])
    b = jnp.array([1.0, 1.0, 1.0, jnp.inf, 1.0, 1.0])
    start = jnp.array([0.0, 0.0, 2.0, 0.0, 0.0, 0.0])[:, None] * jnp.ones((6, 3))
    solver = solvers.build(name, budget, tolerance)

    @jax.jit
    def run(c, b, start):
        return solver.solve(lambda z: c[:, None] * z + b[:, None], start)

    def solve(order):
        return jax.tree.map(np.asarray, run(c[order], b[order], start[order]))

    return solve


@pytest.mark.parametrize("name", NAMES)
def test_diverging_lanes_do_not_affect_others(name):
    solution = hard_lanes(name, 30, 1e-5)(np.arange(6))
    np.testing.assert_allclose(solution.value[0], 2.0, rtol=2e-5)
    np.testing.assert_array_equal(solution.value[2], 2.0)
    assert solution.num_evaluations[2] == 1 and solution.residual[2] == 0
    assert not np.isfinite(solution.residual[[3, 4]]).any()
    assert solution.num_evaluations[[3, 4]].max() <= 2
    if name == "plain":
        assert solution.residual[1] > 0.5 and solution.num_evaluations[1] == 30
    else:
        # Anderson and Broyden solve a one-dimensional linear problem even if plain iteration diverges.
        np.testing.assert_allclose(solution.value[1], -0.5, rtol=1e-3)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("budget", "tolerance"), [(5, None), (30, 1e-5)])
def test_lanes_are_independent(name, budget, tolerance):
    solve = hard_lanes(name, budget, tolerance)
    whole, order = solve(np.arange(6)), np.array([4, 2, 0, 5, 3, 1])
    for x, permuted in zip(whole, solve(order), strict=True):
        np.testing.assert_array_equal(x[order], permuted)
    for lane in range(6):
        for x, alone in zip(whole, solve(np.array([lane])), strict=True):
            np.testing.assert_array_equal(x[lane : lane + 1], alone)


def test_unconverged_lane_returns_best_iterate():
    def f(z):
        # A scaled rotation by 90 degrees, on which plain iteration does not converge.
        turned = jnp.stack([-z[:, 1], z[:, 0]], 1)
        return turned * jnp.where(jnp.linalg.norm(z, axis=1, keepdims=True) < 1.05, 0.9, 1.2)

    start = jnp.array([[3.0, 0.0], [1.0, 0.0]])
    solution = loop.Solver(picard.Picard(), 10, 1e-6).solve(f, start)
    residuals, z = [], start
    for _ in range(10):
        residuals.append(np.linalg.norm(f(z) - z, axis=1) / np.linalg.norm(f(z), axis=1))
        z = f(z)
    np.testing.assert_allclose(solution.residual, np.min(residuals, 0), rtol=1e-5)
    assert solution.num_evaluations.tolist() == [10, 10]


def test_singular_steps_fall_back_to_iteration():
    # The residual of lane 0 is constant, so that its change is zero and Broyden's update singular.
    def f(z):
        return jnp.stack([z[0] + 1.0, 0.5 * z[1] + 1.0])

    solution = solvers.build("broyden", 4).solve(f, jnp.zeros((2, 3)))
    assert solution.num_fallbacks.tolist() == [3, 0]
    np.testing.assert_array_equal(solution.value[0], 4.0)
    # With residuals this large the ridge is lost in float32, and equal rows make Anderson's system singular.
    solution = solvers.build("anderson", 4).solve(lambda z: z + jnp.array([[1e6], [1e-3]]), jnp.zeros((2, 3)))
    assert solution.num_fallbacks.tolist() == [3, 0]
    np.testing.assert_allclose(solution.value[0], 4e6)


def test_broyden_restarts_after_singular_steps():
    (a,), (b,) = tanh_problem(1, 6)
    b[0] = 5.0

    def f(z, xp=np):
        # The residual is constant while z[0] < 2.5; above that f is the contraction.
        return xp.where(z[0] < 2.5, z + 1, xp.tanh(a @ z) + b)

    solution = solvers.build("broyden", 9).solve(lambda z: f(z[0], jnp)[None], jnp.zeros((1, 6)))
    assert solution.num_fallbacks.tolist() == [2]
    expected = reference_broyden(f, np.full(6, 2.0), 7)
    # Rounding as in `test_iterate_equals_published_algorithm`.
    np.testing.assert_allclose(solution.value[0], expected, atol=2e-5)


@pytest.mark.usefixtures("optimised")
def test_broyden_stores_one_state_per_evaluation():
    z = jnp.zeros((8, 64, 64))

    def reserved(budget):
        solve = jax.jit(lambda z: solvers.build("broyden", budget).solve(lambda z: jnp.tanh(z) + 1, z).value)
        return solve.lower(z).compile().memory_analysis().temp_size_in_bytes

    # The remainder is for the small matrices of inner products; a copy of the steps would double the memory.
    assert reserved(30) - reserved(10) < 1.1 * 20 * z.nbytes


def test_solvers_agree_with_jaxopt():
    a, b = tanh_problem()
    a *= np.linspace(0.05, 1, len(a))[:, None, None]
    f, start = as_function(a, b), split(jnp.zeros(b.shape, jnp.float32))
    converged = jax.jit(functools.partial(solvers.build("jaxopt", 200, 1e-5).solve, f, measure_residual=True))(
        start
    )
    assert converged.residual.max() < 1e-5
    assert len(set(converged.num_evaluations.tolist())) > 2
    for name in NAMES:
        ours = jax.jit(functools.partial(solvers.build(name, 200, 1e-6).solve, f))(start)
        # |z - z*| <= |f(z) - z| / (1 - 0.9), with residuals of 1e-5 on both sides.
        np.testing.assert_allclose(join(ours.value), join(converged.value), atol=2e-4)


def test_short_jaxopt_solve_is_plain_iteration():
    a, b = tanh_problem()
    f, start = as_function(a, b), split(jnp.zeros(b.shape, jnp.float32))
    ours, theirs = solvers.build("plain", 4).solve(f, start), solvers.build("jaxopt", 4).solve(f, start)
    np.testing.assert_allclose(join(ours.value), join(theirs.value), rtol=1e-6)
    assert theirs.num_evaluations.tolist() == [4] * len(b)


@pytest.mark.parametrize("name", NAMES)
def test_program_size_is_independent_of_budget(name):
    jaxpr = jax.make_jaxpr(lambda z: solvers.build(name, 30).solve(jnp.tanh, z))(jnp.ones((2, 3)))
    assert str(jaxpr).count(" tanh ") == 1


@pytest.mark.parametrize(("budget", "tolerance"), [(0, None), (3, 0.0), (3, -1.0)])
def test_invalid_budget_or_tolerance_raises(budget, tolerance):
    with pytest.raises(ValueError, match=r"budget is 0|tolerance is"):
        loop.Solver(picard.Picard(), budget, tolerance)


@pytest.mark.parametrize("name", [*NAMES, "jaxopt"])
@pytest.mark.parametrize("tolerance", [None, 1e-10])
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float32", "float32"), ("float32", "float64")])
def test_states_keep_their_dtypes(name, tolerance, dtypes):
    a, b = tanh_problem(3, 8, 0.4)
    z = np.zeros(b.shape)
    for _ in range(60):
        z = np.tanh(np.einsum("lij,lj->li", a, z)) + b
    with jax.enable_x64(True):
        start = tuple(x.astype(dtype) for x, dtype in zip(split(jnp.zeros(b.shape)), dtypes, strict=True))

        def f(z):
            flat = jnp.concatenate([z[0].reshape(3, -1).astype(jnp.float64), z[1].astype(jnp.float64)], 1)
            after = split(jnp.tanh(jnp.einsum("lij,lj->li", a, flat)) + b)
            return tuple(x.astype(dtype) for x, dtype in zip(after, dtypes, strict=True))

        # jaxopt's solver always has a tolerance.
        solver = solvers.build(name, 60, 1e-10 if name == "jaxopt" else tolerance)
        solution = jax.jit(functools.partial(solver.solve, f, measure_residual=True))(start)
    assert tuple(x.dtype.name for x in solution.value) == dtypes
    assert [x.dtype.name for x in solution[1:]] == ["float32", "int32", "int32"]
    # A float64 state is solved to more digits than float32 has.
    np.testing.assert_allclose(join(solution.value), z, atol=1e-8 if "float32" not in dtypes else 1e-5)


@pytest.mark.parametrize("name", [*NAMES, "jaxopt"])
@pytest.mark.parametrize("tolerance", [None, 1e-3])
@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda z: {"a": z["a"]}, "f\\(z\\) has structure .* and z has .*; they must be equal"),
        (lambda z: {**z, "b": z["b"][:, :2]}, r"f\(z\)\['b'\] is float32\[2, 2\] and z\['b'\] is float32\[2, 3\]"),
        (lambda z: {**z, "b": z["b"].astype("bfloat16")}, r"f\(z\)\['b'\] is bfloat16\[2, 3\] and z"),
    ],
)
def test_function_to_another_state_raises(name, tolerance, f, message):
    with pytest.raises(ValueError, match=message):
        solvers.build(name, 3, tolerance).solve(f, {"a": jnp.zeros((2, 4, 1)), "b": jnp.zeros((2, 3))})


@pytest.mark.parametrize(
    ("z", "message"),
    [
        ((), "the state has no arrays"),
        (jnp.zeros(()), r"shapes \(\); all must have the same leading axis"),
        ((jnp.zeros((2, 3)), jnp.zeros((3, 3))), r"shapes \(2, 3\), \(3, 3\); all must have the same leading"),
        ({"a": jnp.zeros((2, 3), jnp.int32)}, r"dtype of the state\['a'\] is int32; it must be floating point"),
    ],
)
@pytest.mark.parametrize("name", ["plain", "jaxopt"])
def test_impossible_state_raises(name, z, message):
    with pytest.raises(ValueError, match=message):
        solvers.build(name, 3).solve(lambda z: z, z)


@pytest.mark.parametrize("name", [*NAMES, "jaxopt"])
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_no_promotion_is_needed(name, tolerance):
    a, b = tanh_problem(3, 8)
    start = split(jnp.zeros(b.shape, jnp.float32))
    solve = functools.partial(solvers.build(name, 9, tolerance).solve, as_function(a, b), measure_residual=True)
    expected = jax.jit(solve)(start)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.tree.map(np.testing.assert_array_equal, jax.jit(solve)(start), expected)


@pytest.mark.parametrize(
    ("name", "budget", "tolerance", "message"),
    [
        ("jaxopt", 0, None, "budget is 0; it must be at least 1"),
        ("jaxopt", 3, -1.0, r"tolerance is -1\.0; it must be positive"),
        ("broyden", 0, None, "budget is 0; it must be at least 1"),
        ("andersen", 3, None, "unknown solver 'andersen'.*did you mean 'anderson'"),
    ],
)
def test_bad_arguments_of_build_raise(name, budget, tolerance, message):
    with pytest.raises(ValueError, match=message):
        solvers.build(name, budget, tolerance)
