"""The base classifier: takes images, a model, a solver and a start; gives logits and the solution of the solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from deqsmooth import solvers, types
from deqsmooth.solvers import per_lane

Start = Callable[[types.Injection], types.State]
"""injection -> initial state of the solve."""


class Output(NamedTuple):
    """Classification of a block of lanes.

    Attributes:
      logits: logits [lanes, classes]; NaN in lanes whose residual is not finite.
      solution: solution of the solve.
    """

    logits: types.Logits
    solution: types.Solution


def classify(
    model: types.Model,
    variables: types.Variables,
    solver: solvers.Solver,
    images: types.Images,
    start: Start,
    *,
    measure_residual: bool = False,
) -> Output:
    """Classifies images by solving for their equilibria.

    If `start` depends only on the injection, each image is classified independently of all others, as randomized
    smoothing requires of a base classifier.

    Args:
      model: the model.
      variables: variables of the model.
      solver: solver for the equilibrium, from `deqsmooth.solvers.build`.
      images: images [lanes, H, W, C].
      start: injection -> initial state of the solve, such as `model.initial_state`; see
        `deqsmooth.models.starts.build`.
      measure_residual: see `deqsmooth.solvers.loop.Solver.solve`.

    Returns:
      Logits and the solution of every lane.

    Example:
      >>> import deqsmooth as ds
      >>> import jax.numpy as jnp
      >>> import jax
      >>> from deqsmooth import solvers
      >>> made = ds.load_checkpoint("digits", 0.5)
      >>> images, labels = ds.load_dataset("digits").take(range(4))
      >>> @jax.jit
      ... def run(variables, images):
      ...     solver = solvers.build("anderson", 10)
      ...     start = made.model.initial_state
      ...     return classify(made.model, variables, solver, images, start)
      >>> output = run(made.variables, images)
      >>> labels.tolist(), jnp.argmax(output.logits, -1).tolist()
      ([2, 8, 2, 6], [2, 8, 2, 6])
      >>> output.solution.num_evaluations.tolist()
      [10, 10, 10, 10]
    """
    params = model.bind(variables)
    u, _ = model.inject(variables, images, None)
    solution = solver.solve(lambda z: model.cell(params, z, u), start(u), measure_residual=measure_residual)
    return read(model, variables, solution)


def read(model: types.Model, variables: types.Variables, solution: types.Solution) -> Output:
    """Returns the output of the model for a solution.

    Args:
      model: the model.
      variables: variables of the model.
      solution: of a solve for its equilibrium.
    """
    logits, _ = model.readout(variables, solution.value, False)
    is_finite = per_lane.align(jnp.isfinite(solution.residual), logits)
    return Output(jnp.where(is_finite, logits, jnp.nan), solution)


def explicit(fn: Callable[[types.Images], types.Logits], images: types.Images) -> Output:
    """Returns the output of a classifier without an equilibrium: one evaluation per lane, residual NaN.

    Args:
      fn: images [lanes, H, W, C] -> logits [lanes, classes]; lanes must not depend on each other.
      images: images [lanes, H, W, C].
    """
    nothing = jnp.zeros(len(images), jnp.int32)
    return Output(
        fn(images), types.Solution((), jnp.full(len(images), jnp.nan, jnp.float32), nothing + 1, nothing)
    )
