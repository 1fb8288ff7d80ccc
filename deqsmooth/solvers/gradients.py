"""Gradients through an equilibrium, and what is known of the cell's Jacobian there.

Takes a cell and the state that some solver found, gives the same state with gradients attached. How
the state was found does not matter: the derivative of `z = cell(params, z, u)` depends on z alone.
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
Attach = Callable[[types.Parameters, types.State, types.Injection], types.State]


def one_step(cell: Cell) -> Attach:
    """Jacobian-free gradients: those of one evaluation at the state (Fung et al. 2022)."""
    return lambda params, z, u: cell(params, lax.stop_gradient(z), u)


def neumann(cell: Cell, num_terms: int) -> Attach:
    """Implicit gradients with (I - J^T)^-1 replaced by the first terms of its Neumann series.

    With one term the derivatives are those of `one_step`, at one evaluation less in the forward pass.
    """

    def solve(matvec, b):
        # jaxopt asks for w with (J^T - I) w = b.
        def term(w, _):
            return jax.tree.map(lambda x, y, c: x + y - c, matvec(w), w, b), None

        return lax.scan(term, jax.tree.map(jnp.negative, b), length=num_terms - 1)[0]

    return _implicit(cell, lambda params, z, u: solve)


def fixed_point(cell: Cell, solver: loop.Solver | jaxopt_anderson.Converged) -> Attach:
    """Implicit gradients with the linear system solved as the fixed point w = J^T w + v, as the forward pass is.

    Args:
      cell: the cell.
      solver: its budget counts products with J^T.
    """

    def solve(matvec, b):
        # jaxopt asks for w with (J^T - I) w = b.
        def f(w):
            return jax.tree.map(lambda x, y, c: x + y - c, matvec(w), w, b)

        return solver.solve(f, jax.tree.map(jnp.zeros_like, b)).value

    return _implicit(cell, lambda params, z, u: solve)


def gmres(cell: Cell, num_iterations: int, tolerance: float = 1e-5) -> Attach:
    """Implicit gradients, the linear system of every lane solved by jaxopt's GMRES.

    Args:
      cell: the cell.
      num_iterations: dimension of the Krylov space; it is not restarted.
      tolerance: residual relative to the right-hand side at which a lane is done.
    """
    solve = functools.partial(linear_solve.solve_gmres, tol=tolerance, restart=num_iterations, maxiter=1)

    def solve_at(params, z, u):
        def solve_lane(z, u, b):
            def transposed_defect(v):
                return jax.tree.map(jnp.subtract, _pull_back(cell, params, z, u)(v), v)

            def defect(v):
                return jax.vjp(transposed_defect, b)[1](v)[0]

            # Krylov solvers transpose their operator, which a cell with its own backward pass does not
            # allow. A linear map declared with its transpose does.
            def operator(v):
                return lax.custom_linear_solve(
                    lambda x: x,
                    v,
                    solve=lambda _, x: transposed_defect(x),
                    transpose_solve=lambda _, x: defect(x),
                )

            return solve(operator, b)

        return lambda _, b: jax.vmap(solve_lane)(z, u, b)

    return _implicit(cell, solve_at)


def _implicit(cell: Cell, solve_at: Callable) -> Attach:
    """Attaches the implicit function theorem's gradients; `solve_at(params, z, u)` is a jaxopt solve."""

    def defect(z, params, u):
        return jax.tree.map(jnp.subtract, cell(params, z, u), z)

    @jax.custom_vjp
    def attach(params, z, u):
        return z

    def forward(params, z, u):
        return z, (params, z, u)

    def backward(residuals, cotangent):
        params, z, u = residuals
        d_params, d_u = implicit_diff.root_vjp(defect, z, (params, u), cotangent, solve_at(params, z, u))
        return d_params, jax.tree.map(jnp.zeros_like, z), d_u

    attach.defvjp(forward, backward)
    return attach


def _pull_back(cell, params, z, u):
    """Returns v -> J^T v of a single lane, whose leaves have no lane axis."""

    def lane(z):
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
      cell: the cell; J is its derivative by z.
      params: parameters of the cell; the estimate is differentiable in them, and in z and u.
      z: state at which J is taken.
      u: injection.
      keys: one key a lane, for its Gaussian vectors.
      num_vectors: vectors averaged over.
    """
    size = sum(x[0].size for x in jax.tree.leaves(z))
    _, pull_back = jax.vjp(lambda z: cell(params, z, u), z)

    def one(index):
        v = _gaussian(jax.vmap(jax.random.fold_in, (0, None))(keys, index), z)
        (row,) = pull_back(v)
        return per_lane.dot(row, row) / size

    return sum(one(index) for index in range(num_vectors)) / num_vectors


def spectral_radius(
    cell: Cell,
    params: types.Parameters,
    z: types.State,
    u: types.Injection,
    keys: types.Keys,
    num_steps: int = 40,
) -> types.PerLane:
    """Estimate of the largest |eigenvalue| of the cell's Jacobian by lane [lanes].

    Power iteration on J^T; the estimate is the mean growth of the norm over the second half of the
    steps, which also settles where the leading eigenvalues are a complex pair. An estimate, no bound.

    Args:
      cell: the cell.
      params: parameters of the cell.
      z: state at which J is taken.
      u: injection.
      keys: one key a lane, for the first vector.
      num_steps: evaluations of J^T.
    """
    _, pull_back = jax.vjp(lambda z: cell(params, z, u), z)

    def step(v, _):
        length = per_lane.norm(v)
        unit = jax.tree.map(lambda x: x / jnp.maximum(per_lane.align(length, x), 1e-30), v)
        (v,) = pull_back(unit)
        return v, per_lane.norm(v)

    _, growth = lax.scan(step, _gaussian(keys, z), length=num_steps)
    return jnp.exp(jnp.mean(jnp.log(growth[num_steps // 2 :]), 0))


def _gaussian(keys, like):
    """A standard normal state, each lane and leaf from its own key."""
    leaves, structure = jax.tree.flatten(like)

    def leaf(index, x):
        lane_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
        return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(lane_keys)

    return jax.tree.unflatten(structure, [leaf(index, x) for index, x in enumerate(leaves)])
