"""Gradients through an equilibrium.

Takes a cell and an equilibrium that some solver found, gives the equilibrium with gradients attached (see
`Attach`). The derivative of the solution of `z = cell(params, z, u)` with respect to params and u does not depend
on the solver that found it (Bai et al. 2019).

With a cotangent v the implicit rule solves w = J^T w + v, where J is the derivative of the cell in z, and pulls
w back through the cell. The solution w is itself an equilibrium, that of the adjoint cell w -> J^T w + v. The rule
therefore attaches gradients to w by itself, with the same method, and can be differentiated any number of times in
reverse mode: `jax.jacrev(jax.grad(loss))`, or the gradient of a function of a gradient. These second derivatives
are those of the exact rule, with every linear system solved by the method. If the method stops early, they have
errors like those of the gradient, and they are not the derivatives of that inexact gradient.

Forward mode (`jax.jvp`, `jax.jacfwd`, and `jax.hessian`, which uses it) raises `TypeError`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.config import checks
from deqsmooth.solvers import jaxopt_anderson, loop, per_lane

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
    from jaxopt import linear_solve

Cell = Callable[[types.Parameters, types.State, types.Injection], types.State]
"""(parameters, state, injection) -> state; lanes are independent."""


@runtime_checkable
class Attach(Protocol):
    """Function that attaches gradients to an equilibrium."""

    def __call__(
        self,
        params: types.Parameters,
        z: types.State,
        u: types.Injection,
        probe: types.PerLane | None = None,
    ) -> types.State:
        """Returns a state near or equal to the equilibrium `z`, with gradients in `params` and `u`.

        Args:
          params: parameters of the cell.
          z: an equilibrium. No gradient flows to it.
          u: injection.
          probe: zeros [lanes], whose gradient is the residual of the linear solve of the backward pass:
            `jax.grad(loss, argnums)` of `params` and `probe` returns it beside the gradient. It is
            |J^T w + v - w| / |v| [lanes], and not a derivative. `gmres` measures it at the w that it returns, with
            one more product with J^T. The other methods make no further product and measure it at the last w that
            was multiplied by J^T, the one before the result; `fixed_point` knows it relative to |J^T w + v| and
            takes the length of the result for that length.

        Raises:
          ValueError: the cell returns a state of another structure, shape or dtype than `z`; the probe does not
            fit the lanes; or the method is `one_step`, which solves no linear system, and there is a probe.
          TypeError: in forward mode.
        """
        ...


class _System(NamedTuple):
    """The linear system w = J^T w + v of a backward pass; J is the derivative of the cell at (params, z, u)."""

    cell: Cell
    params: types.Parameters
    z: types.State
    u: types.Injection
    v: types.State

    def adjoint(self) -> Callable[[types.State], types.State]:
        """Returns w -> J^T w + v; evaluates the cell once."""
        cell, params, z, u, v = self
        _, pull_back = jax.vjp(lambda z: per_lane.image(z, cell(params, z, u)), z)
        return lambda w: jax.tree.map(jnp.add, pull_back(w)[0], v)

    def relative(self, length: types.PerLane) -> types.PerLane:
        """Divides lengths by the norms of v [lanes]; a lane whose v is zero has 0."""
        return length / jnp.maximum(per_lane.norm(self.v), 1e-30)


_Solve = Callable[[_System, bool], tuple[types.State, types.PerLane | None]]
# (system, whether its residual is wanted) -> w, and the residual [lanes] that `Attach` describes, or None.


def one_step(cell: Cell) -> Attach:
    """Jacobian-free gradients: those of one cell evaluation at the equilibrium (Fung et al. 2022).

    The gradient is biased by design, because the state is taken as constant. Second derivatives are those of this
    evaluation with the constant state. They are not those of the equilibrium.

    Args:
      cell: the cell.
    """

    def attach(
        params: types.Parameters, z: types.State, u: types.Injection, probe: types.PerLane | None = None
    ) -> types.State:
        if probe is not None:
            raise ValueError("one_step solves no linear system, so there is no residual; probe must be None")
        return per_lane.image(z, cell(params, lax.stop_gradient(z), u))

    return attach


def neumann(cell: Cell, num_terms: int) -> Attach:
    """Implicit gradients with (I - J^T)^-1 replaced by the first terms of its Neumann series.

    One term gives the derivatives of `deqsmooth.solvers.gradients.one_step`, but needs one evaluation less in the
    forward pass.

    Args:
      cell: the cell.
      num_terms: number of terms, at least 1; a term after the first costs one product with J^T.

    Returns:
      A function (params, z, u) -> z with gradients; see `deqsmooth.solvers.gradients.Attach`.

    Raises:
      ValueError: the number of terms is below 1.

    Example:
      >>> cell = lambda a, z, u: a * z + u  # z = u / (1 - a), dz/du = 1 / (1 - a)
      >>> attach = neumann(cell, 20)
      >>> loss = lambda u: attach(jnp.float32(0.5), jnp.full((1, 1), 2.0), u).sum()
      >>> f"{jax.grad(loss)(jnp.ones((1, 1))).item():.4f}"
      '2.0000'
    """
    checks.holds(num_terms >= 1, "num_terms", num_terms, "at least 1")

    def solve(system: _System, measured: bool) -> tuple[types.State, types.PerLane | None]:
        adjoint = system.adjoint()
        pair = (system.v, jax.tree.map(jnp.zeros_like, system.v))
        (w, before), _ = lax.scan(lambda pair, _: ((adjoint(pair[0]), pair[0]), None), pair, length=num_terms - 1)
        if not measured:
            return w, None
        return w, system.relative(per_lane.norm(jax.tree.map(jnp.subtract, w, before)))

    return _implicit(cell, solve)


def fixed_point(cell: Cell, solver: loop.Solver | jaxopt_anderson.Converged) -> Attach:
    """Implicit gradients with the linear system solved by a fixed-point solver, as w = J^T w + v.

    Args:
      cell: the cell.
      solver: the solver, from `deqsmooth.solvers.build`; its budget counts products with J^T.

    Returns:
      A function (params, z, u) -> z with gradients; see `deqsmooth.solvers.gradients.Attach`.

    Raises:
      ValueError: it is no solver.
    """
    if not isinstance(solver, loop.Solver | jaxopt_anderson.Converged):
        raise ValueError(f"solver is {solver!r}; it must be a solver, such as solvers.build('anderson', 20)")

    def solve(system: _System, measured: bool) -> tuple[types.State, types.PerLane | None]:
        solution = solver.solve(system.adjoint(), jax.tree.map(jnp.zeros_like, system.v))
        if not measured:
            return solution.value, None
        length = per_lane.norm(solution.value) + per_lane.SMALLEST
        return solution.value, system.relative(solution.residual.astype(length.dtype) * length)

    return _implicit(cell, solve)


def gmres(cell: Cell, num_iterations: int, tolerance: float = 1e-5) -> Attach:
    """Implicit gradients with the linear system of every lane solved by jaxopt's GMRES.

    Args:
      cell: the cell.
      num_iterations: dimension of the Krylov space, at least 1; GMRES is not restarted.
      tolerance: residual relative to the right-hand side at which a lane stops.

    Returns:
      A function (params, z, u) -> z with gradients; see `deqsmooth.solvers.gradients.Attach`.

    Raises:
      ValueError: the number of iterations or the tolerance is out of range.
    """
    checks.holds(num_iterations >= 1, "num_iterations", num_iterations, "at least 1")
    checks.holds(tolerance > 0, "tolerance", tolerance, "positive")
    gmres_lane = functools.partial(linear_solve.solve_gmres, tol=tolerance, restart=num_iterations, maxiter=1)

    def solve(system: _System, measured: bool) -> tuple[types.State, types.PerLane | None]:
        cell, params, *lanes = system

        def solve_lane(z: types.State, u: types.Injection, v: types.State) -> types.State:
            pull_back = _pull_back_lane(cell, params, z, u)

            def transposed_defect(w: types.State) -> types.State:
                return jax.tree.map(jnp.subtract, pull_back(w), w)

            def defect(w: types.State) -> types.State:
                return jax.vjp(transposed_defect, v)[1](w)[0]

            # jax.scipy's GMRES transposes its operator, which JAX cannot do for a cell with a custom backward
            # pass. A custom linear solve with the identity declares the operator together with its transpose.
            def operator(w: types.State) -> types.State:
                return lax.custom_linear_solve(
                    lambda x: x,
                    w,
                    solve=lambda _, x: transposed_defect(x),
                    transpose_solve=lambda _, x: defect(x),
                )

            return gmres_lane(operator, jax.tree.map(jnp.negative, v))

        w = jax.vmap(solve_lane)(*lanes)
        if not measured:
            return w, None
        return w, system.relative(per_lane.norm(jax.tree.map(jnp.subtract, system.adjoint()(w), w)))

    return _implicit(cell, solve)


def _implicit(cell: Cell, solve: _Solve) -> Attach:
    """Attaches the gradients of the implicit function theorem, with a method for the linear system."""

    @jax.custom_vjp
    def attach(
        params: types.Parameters, z: types.State, u: types.Injection, probe: types.PerLane | None
    ) -> types.State:
        return z

    def forward(
        params: types.Parameters, z: types.State, u: types.Injection, probe: types.PerLane | None
    ) -> tuple[types.State, tuple[types.Parameters, types.State, types.Injection, types.PerLane | None]]:
        # Where the backward pass is differentiated in its turn, its state depends on params and u as well.
        z = attach(params, z, u, None)
        return z, (params, z, u, probe)

    def backward(
        residuals: tuple[types.Parameters, types.State, types.Injection, types.PerLane | None], v: types.State
    ) -> tuple[types.Parameters, types.State, types.Injection, types.PerLane | None]:
        params, z, u, probe = residuals
        w, residual = solve(_System(cell, *lax.stop_gradient((params, z, u, v))), probe is not None)
        w = _implicit(_adjoint(cell), solve)(params, w, (z, u, v))
        d_params, d_u = jax.vjp(lambda params, u: cell(params, z, u), params, u)[1](w)
        if probe is not None and residual is not None:
            residual = residual.astype(probe.dtype)
        return d_params, jax.tree.map(jnp.zeros_like, z), d_u, residual

    attach.defvjp(forward, backward)

    def checked(
        params: types.Parameters, z: types.State, u: types.Injection, probe: types.PerLane | None = None
    ) -> types.State:
        lanes = per_lane.num_lanes(z)
        if probe is not None and probe.shape != (lanes,):
            raise ValueError(f"probe has shape {probe.shape}; it must be ({lanes},), one number a lane")
        try:
            return attach(params, z, u, probe)
        except TypeError as error:
            if "forward-mode" not in str(error):
                raise
            raise TypeError(
                "an equilibrium has no forward mode, which jax.jvp, jax.jacfwd and jax.hessian use; for second "
                "derivatives take jax.jacrev(jax.grad(loss))"
            ) from None

    return checked


def _adjoint(cell: Cell) -> Cell:
    """Returns the cell w -> J^T w + v, whose injection is (z, u, v)."""

    def adjoint(params: types.Parameters, w: types.State, u: types.Injection) -> types.State:
        return _System(cell, params, *u).adjoint()(w)

    return adjoint


def _pull_back_lane(
    cell: Cell, params: types.Parameters, z: types.State, u: types.Injection
) -> Callable[[types.State], types.State]:
    """Returns v -> J^T v of a single lane; the leaves of z, u and v have no lane axis."""

    def lane(z: types.State) -> types.State:
        batched = jax.tree.map(lambda x: x[None], (z, u))
        return jax.tree.map(lambda x: x[0], per_lane.image(batched[0], cell(params, *batched)))

    return lambda v: jax.vjp(lane, z)[1](v)[0]
