"""Settling: the votes of a queue of rows, one sample each, where a vote can be proved before its solve converges.

Takes a queue of rows; gives what is recorded of every row. Rows are solved in waves. A wave injects a block of
rows in one piece and evaluates until the votes of three quarters are settled, for most models once or twice. Those
that are left are solved again, with others of their kind, so that no lane waits for the slowest sample. A lane may
begin with the state of its last row: this is the chain of serialized randomized smoothing (Gao et al. 2024). The
proof makes the votes independent of it.
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
from deqsmooth.solvers import loop, settled

Start = Callable[[jax.Array, types.Injection, types.State], types.State]
"""(rows [lanes], injection, state that a lane reached with its last row) -> state from which the solve begins."""

# The part of a wave's lanes that may be left for a later wave.
_LEFT = 4


class _Queue(NamedTuple):
    """The rows of a queue.

    Attributes:
      is_left: whether the vote of a row is still to be settled [rows].
      found: what is recorded of the rows, leaves [rows].
      last: states that the lanes reached.
    """

    is_left: jax.Array
    found: kernels.Info
    last: types.State


def run(
    model: types.Model,
    variables: types.Variables,
    solver: settled.Solver,
    decide: Callable[[types.Injection], settled.Decide],
    start: Start,
    noisy: Callable[[jax.Array], types.Images],
    num_rows: int,
    num_lanes: int,
) -> kernels.Info:
    """Classifies every row of a queue.

    The evaluations of a row are those of all its solves, up to the last one that was needed.

    Args:
      model: the model.
      variables: its variables.
      solver: of the rows.
      decide: injection -> when the vote of a row is settled.
      start: of the solves.
      noisy: numbers of rows [num] -> their noisy images [num, H, W, C].
      num_rows: length of the queue.
      num_lanes: rows that are solved side by side.

    Returns:
      Info with leaves [rows].
    """
    params = model.bind(variables)

    def inject(rows: jax.Array) -> types.Injection:
        return model.inject(variables, noisy(rows), None)[0]

    def one_wave(rows: jax.Array, num_left: jax.Array, queue: _Queue) -> _Queue:
        """Solves rows until at most `num_left` are left; a row of `num_rows` is none."""
        within = jnp.minimum(rows, num_rows - 1)
        u = inject(within)

        def advance(progress: loop.Progress) -> loop.Progress:
            return solver.advance(lambda z: model.cell(params, z, u), decide(u), progress)

        progress = solver.begin(start(within, u, queue.last))
        progress = progress._replace(active=rows < num_rows)
        progress = lax.while_loop(lambda progress: jnp.sum(progress.active) > num_left, advance, progress)
        info = kernels.info(base_classifier.read(model, variables, progress.best))
        before = jax.tree.map(lambda x: x[rows], queue.found)
        info = info._replace(
            num_evaluations=info.num_evaluations + before.num_evaluations,
            num_fallbacks=info.num_fallbacks + before.num_fallbacks,
        )
        return _Queue(
            is_left=queue.is_left.at[rows].set(progress.active, mode="drop"),
            found=jax.tree.map(lambda all, x: all.at[rows].set(x, mode="drop"), queue.found, info),
            last=progress.best.value,
        )

    def one_pass(queue: _Queue) -> _Queue:
        """Solves the rows that are left, in waves; what is left then is at most a quarter, or nothing."""
        (rows,) = jnp.nonzero(queue.is_left, size=num_rows + num_lanes, fill_value=num_rows)
        num = jnp.sum(queue.is_left)
        num_left = jnp.where(num <= num_lanes, 0, num_lanes // _LEFT)

        def body(wave: jax.Array, queue: _Queue) -> _Queue:
            return one_wave(lax.dynamic_slice(rows, (wave * num_lanes,), (num_lanes,)), num_left, queue)

        return lax.fori_loop(0, -(-num // num_lanes), body, queue)

    def nothing(x: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros(x.shape, x.dtype)

    no_rows = jnp.zeros(num_lanes, jnp.int32)
    last = jax.tree.map(nothing, jax.eval_shape(lambda rows: model.initial_state(inject(rows)), no_rows))
    info = jax.eval_shape(
        lambda z: kernels.info(base_classifier.read(model, variables, solver.begin(z).best)), last
    )
    found = jax.tree.map(lambda x: jnp.zeros(num_rows, x.dtype), info)
    queue = _Queue(jnp.ones(num_rows, bool), found, last)
    return lax.while_loop(lambda queue: jnp.any(queue.is_left), one_pass, queue).found
