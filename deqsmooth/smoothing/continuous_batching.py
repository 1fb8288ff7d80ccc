"""Continuous batching: a lane whose solve has stopped takes the next sample at once.

Takes a queue of rows, one sample each; gives what is recorded of every row. The lanes stay busy, so that a sample
costs as many evaluations as its own solve makes, not as many as the longest solve beside it. A row's solve depends
neither on its lane nor on the time at which it entered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.models import base_classifier
from deqsmooth.smoothing import kernels
from deqsmooth.solvers import loop

# Lanes are refilled an eighth of the block at a time: reading out and injecting a few rows costs as much as many.
_GROUPS = 8


class _Block(NamedTuple):
    """The state of a block of lanes.

    Attributes:
      row: number of the row that a lane solves, or a larger number than all rows have if it has none [lanes].
      u: injection of the rows.
      progress: of their solves.
      next_row: number of the next row to enter.
      found: what is recorded of the rows that have left, leaves [rows].
    """

    row: jax.Array
    u: types.Injection
    progress: loop.Progress
    next_row: jax.Array
    found: kernels.Info


def run(
    model: types.Model,
    variables: types.Variables,
    solver: loop.Solver,
    start: base_classifier.Start,
    noisy: Callable[[jax.Array], types.Images],
    num_rows: int,
    num_lanes: int,
    num_used: jax.Array | None = None,
) -> kernels.Info:
    """Classifies the rows of a queue.

    When an eighth of the lanes has stopped, these lanes are read out in one piece and receive the next rows.

    Args:
      model: the model.
      variables: its variables.
      solver: has a tolerance.
      start: injection -> state from which a solve begins.
      noisy: numbers of rows [num] -> their noisy images [num, H, W, C].
      num_rows: length of the queue.
      num_lanes: rows that are solved side by side.
      num_used: how many of the first rows are classified, int32; by default all.

    Returns:
      Info with leaves [rows]; 0 in rows that are not classified.
    """
    params = model.bind(variables)
    num_used = jnp.int32(num_rows) if num_used is None else num_used
    group = max(1, num_lanes // _GROUPS)

    def enter(rows: jax.Array) -> tuple[jax.Array, types.Injection, loop.Progress]:
        u, _ = model.inject(variables, noisy(jnp.minimum(rows, num_rows - 1)), None)
        progress = solver.begin(start(u))
        return rows, u, progress._replace(active=rows < num_used)

    def leave(solution: types.Solution) -> kernels.Info:
        return kernels.info(base_classifier.read(model, variables, solution))

    def is_waiting(block: _Block) -> jax.Array:
        return ~block.progress.active & ((block.row < num_used) | (block.next_row < num_used))

    def refill(block: _Block) -> _Block:
        (chosen,) = jnp.nonzero(is_waiting(block), size=group, fill_value=num_lanes)
        left = jax.tree.map(lambda x: x[chosen], block.progress.best)
        row = jnp.where(chosen < num_lanes, block.row[chosen], num_rows)
        found = jax.tree.map(lambda all, x: all.at[row].set(x, mode="drop"), block.found, leave(left))
        entered = enter(block.next_row + jnp.arange(group, dtype=jnp.int32))
        row, u, progress = jax.tree.map(
            lambda all, x: all.at[chosen].set(x, mode="drop"), (block.row, block.u, block.progress), entered
        )
        return _Block(row, u, progress, block.next_row + jnp.sum(chosen < num_lanes, dtype=jnp.int32), found)

    def is_busy(block: _Block) -> jax.Array:
        return jnp.any(block.progress.active) & (jnp.sum(is_waiting(block)) < group)

    def evaluate(block: _Block) -> _Block:
        progress = solver.advance(lambda z: model.cell(params, z, block.u), block.progress)
        return block._replace(progress=progress)

    def is_unfinished(block: _Block) -> jax.Array:
        return (block.next_row < num_used) | jnp.any(block.row < num_used)

    no_row = jnp.full(num_lanes, num_rows, jnp.int32)
    _, u, progress = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(enter, no_row))
    found = jax.tree.map(lambda x: jnp.zeros(num_rows, x.dtype), jax.eval_shape(leave, progress.best))
    block = _Block(no_row, u, progress, jnp.int32(0), found)
    return lax.while_loop(
        is_unfinished, lambda block: lax.while_loop(is_busy, evaluate, refill(block)), block
    ).found
