"""Gradients through an equilibrium, and estimates of the cell's Jacobian there.

Takes a cell and an equilibrium that some solver found, gives the equilibrium with gradients attached (see
`Attach`). The derivative of the solution of `z = cell(params, z, u)` with respect to params and u does not depend
on the solver that found it (Bai et al. 2019).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.solvers import jaxopt_anderson, loop, per_lane

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
    from jaxopt import implicit_diff, linear_solve

Cell = Callable[[types.Parameters, types.State, types.Injection], types.State]
"""(parameters, state, injection) -> state; lanes are independent."""
Attach = Callable[[types.Parameters, types.State, types.Injection], types.State]
"""(parameters, equilibrium, injection) -> a state near or equal to the equilibrium, with gradients attached."""

_LinearMap = Callable[[types.State], types.State]
# (w -> (J^T - I) w, b) -> w with (J^T - I) w = b, the linear system of jaxopt's `implicit_diff.root_vjp`.
_LinearSolve = Callable[[_LinearMap, types.State], types.State]


def one_step(cell: Cell) -> Attach:
    """Jacobian-free gradients: those of one cell evaluation at the equilibrium (Fung et al. 2022)."""
    return lambda params, z, u: cell(params, lax.stop_gradient(z), u)


def neumann(cell: Cell, num_terms: int) -> Attach:
    """Implicit gradients with (I - J^T)^-1 replaced by the first terms of its Neumann series.

    One term gives the derivatives of `one_step`, but needs one evaluation less in the forward pass.
    """

    def solve(matvec: _LinearMap, b: types.State) -> types.State:
        def step(w: types.State, _: None) -> tuple[types.State, None]:
            return jax.tree.map(lambda x, y, c: x + y - c, matvec(w), w, b), None

        return lax.scan(step, jax.tree.map(jnp.negative, b), length=num_terms - 1)[0]

    return _implicit(cell, lambda params, z, u: solve)


def fixed_point(cell: Cell, solver: loop.Solver | jaxopt_anderson.Converged) -> Attach:
    """Implicit gradients with the linear system solved by a fixed-point solver, as w = J^T w + v.

    Args:
      cell: the cell.
      solver: the solver; its budget counts products with J^T.
    """

    def solve(matvec: _LinearMap, b: types.State) -> types.State:
        def f(w: types.State) -> types.State:
            return jax.tree.map(lambda x, y, c: x + y - c, matvec(w), w, b)

        return solver.solve(f, jax.tree.map(jnp.zeros_like, b)).value

    return _implicit(cell, lambda params, z, u: solve)


def gmres(cell: Cell, num_iterations: int, tolerance: float = 1e-5) -> Attach:
    """Implicit gradients with the linear system of every lane solved by jaxopt's GMRES.

    Args:
      cell: the cell.
      num_iterations: dimension of the Krylov space; GMRES is not restarted.
      tolerance: residual relative to the right-hand side at which a lane stops.
    """
    solve = functools.partial(linear_solve.solve_gmres, tol=tolerance, restart=num_iterations, maxiter=1)

    def solve_at(params: types.Parameters, z: types.State, u: types.Injection) -> _LinearSolve:
        def solve_lane(z: types.State, u: types.Injection, b: types.State) -> types.State:
            pull_back = _pull_back_lane(cell, params, z, u)

            def transposed_defect(v: types.State) -> types.State:
                return jax.tree.map(jnp.subtract, pull_back(v), v)

            def defect(v: types.State) -> types.State:
                return jax.vjp(transposed_defect, b)[1](v)[0]

            # jax.scipy's GMRES transposes its operator, which JAX cannot do for a cell with a custom backward
            # pass. A custom linear solve with the identity declares the operator together with its transpose.
            def operator(v: types.State) -> types.State:
                return lax.custom_linear_solve(
                    lambda x: x,
                    v,
                    solve=lambda _, x: transposed_defect(x),
                    transpose_solve=lambda _, x: defect(x),
                )

            return solve(operator, b)

        return lambda _, b: jax.vmap(solve_lane)(z, u, b)

    return _implicit(cell, solve_at)


def _implicit(
    cell: Cell, solve_at: Callable[[types.Parameters, types.State, types.Injection], _LinearSolve]
) -> Attach:
    """Attaches the gradients of the implicit function theorem; `solve_at` returns the linear solve to use."""

    def defect(z: types.State, params: types.Parameters, u: types.Injection) -> types.State:
        return jax.tree.map(jnp.subtract, cell(params, z, u), z)

    @jax.custom_vjp
    def attach(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        return z

    def forward(
        params: types.Parameters, z: types.State, u: types.Injection
    ) -> tuple[types.State, tuple[types.Parameters, types.State, types.Injection]]:
        return z, (params, z, u)

    def backward(
        residuals: tuple[types.Parameters, types.State, types.Injection], cotangent: types.State
    ) -> tuple[types.Parameters, types.State, types.Injection]:
        params, z, u = residuals
        d_params, d_u = implicit_diff.root_vjp(defect, z, (params, u), cotangent, solve_at(params, z, u))
        return d_params, jax.tree.map(jnp.zeros_like, z), d_u

    attach.defvjp(forward, backward)
    return attach


def _pull_back_lane(cell: Cell, params: types.Parameters, z: types.State, u: types.Injection) -> _LinearMap:
    """Returns v -> J^T v of a single lane; the leaves of z, u and v have no lane axis."""

    def lane(z: types.State) -> types.State:
        batched = jax.tree.map(lambda x: x[None], (z, u))
        return jax.tree.map(lambda x: x[0], cell(params, *batched))

    return lambda v: jax.vjp(lane, z)[1](v)[0]


def jacobian_penalty(
    cell: Cell,
    params: types.Parameters,
    z: types.State,
    u: types.Injection,
    keys: types.Keys,
    num_vectors: int = 2,
) -> types.PerLane:
    """Hutchinson's estimate of |J|_F^2 / dim(z) by lane [lanes] (Bai et al. 2021, equation 4).

    Args:
      cell: the cell; J is its derivative with respect to z.
      params: parameters of the cell. The estimate is differentiable in them, in z and in u.
      z: state at which J is evaluated.
      u: injection.
      keys: one key a lane, for its Gaussian vectors.
      num_vectors: number of vectors that are averaged over.
    """
    size = sum(x[0].size for x in jax.tree.leaves(z))
    _, pull_back = jax.vjp(lambda z: cell(params, z, u), z)

    def estimate(index: int) -> types.PerLane:
        v = _gaussian(jax.vmap(jax.random.fold_in, (0, None))(keys, index), z)
        (row,) = pull_back(v)
        return per_lane.dot(row, row) / size

    return functools.reduce(jnp.add, [estimate(index) for index in range(num_vectors)]) / num_vectors


def spectral_radius(
    cell: Cell,
    params: types.Parameters,
    z: types.State,
    u: types.Injection,
    keys: types.Keys,
    num_steps: int = 40,
) -> types.PerLane:
    """Estimate of the largest |eigenvalue| of the cell's Jacobian by lane [lanes].

    Power iteration on J^T. The result is the geometric mean of the growth of the norm over the second half of the
    steps, which also converges if the leading eigenvalues are a complex pair. It is an estimate and not a bound.

    Args:
      cell: the cell.
      params: parameters of the cell.
      z: state at which J is evaluated.
      u: injection.
      keys: one key a lane, for the first vector.
      num_steps: number of products with J^T.
    """
    _, pull_back = jax.vjp(lambda z: cell(params, z, u), z)

    def step(v: types.State, _: None) -> tuple[types.State, types.PerLane]:
        length = per_lane.norm(v)
        unit = jax.tree.map(lambda x: x / jnp.maximum(per_lane.align(length, x), 1e-30), v)
        (v,) = pull_back(unit)
        return v, per_lane.norm(v)

    _, growth = lax.scan(step, _gaussian(keys, z), length=num_steps)
    return jnp.exp(jnp.mean(jnp.log(growth[num_steps // 2 :]), 0))


def _gaussian(keys: types.Keys, like: types.State) -> types.State:
    """Returns a standard normal state; every lane and leaf has its own key."""
    leaves, structure = jax.tree.flatten(like)

    def leaf(index: int, x: jax.Array) -> jax.Array:
        lane_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
        return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(lane_keys)

    return jax.tree.unflatten(structure, [leaf(index, x) for index, x in enumerate(leaves)])
