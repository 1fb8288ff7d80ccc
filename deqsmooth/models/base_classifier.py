"""A model, a solver and a start make a classifier: takes images, gives logits and solves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from deqsmooth import solvers, types
from deqsmooth.solvers import per_lane

Start = Callable[[types.Injection], types.State]


class Output(NamedTuple):
    """Classification of a block of lanes.

    Attributes:
      logits: [lanes, classes]; NaN in lanes whose solve was not finite.
      solution: the solve.
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
    """Solves for the equilibria of images and reads them out.

    With a `start` that depends on nothing but the injection this is a function of each image alone,
    which is what randomized smoothing asks of a base classifier.

    Args:
      model: the model.
      variables: its variables.
      solver: how the equilibrium is solved for.
      images: [lanes, H, W, C].
      start: injection -> state from which the solve begins; see `starts`.
      measure_residual: see `loop.Solver.solve`.
    """
    params = model.bind(variables)
    u, _ = model.inject(variables, images, None)
    solution = solver.solve(lambda z: model.cell(params, z, u), start(u), measure_residual=measure_residual)
    return read(model, variables, solution)


def read(model: types.Model, variables: types.Variables, solution: types.Solution) -> Output:
    """Reads solves out."""
    logits, _ = model.readout(variables, solution.value, False)
    settled = per_lane.align(jnp.isfinite(solution.residual), logits)
    return Output(jnp.where(settled, logits, jnp.nan), solution)


def explicit(fn: Callable[[types.Images], types.Logits], images: types.Images) -> Output:
    """The output of a classifier that solves nothing: one evaluation a lane, residual NaN.

    Args:
      fn: images [lanes, H, W, C] -> logits [lanes, classes], lanes independent.
      images: [lanes, H, W, C].
    """
    nothing = jnp.zeros(len(images), jnp.int32)
    return Output(fn(images), types.Solution((), nothing + jnp.nan, nothing + 1, nothing))
