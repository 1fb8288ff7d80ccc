"""Settling: the votes of a queue of rows, one sample each, where a vote can be proved before its solve converges.

Takes a queue of rows; gives what is recorded of every row. Rows are solved in waves. A wave injects a block of
rows in one piece and evaluates until the votes of a quarter are settled, for most models once. The solves that are
left are set aside. As soon as there are enough of them for a wave of their own they continue where they were, so
that no lane waits for the slowest sample. A lane may begin with the state of its last row: this is the chain of
serialized randomized smoothing (Gao et al. 2024). The proof makes the votes independent of it.
"""

from __future__ import annotations

import functools
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

# The part of a wave's lanes that may be set aside. On CIFAR-10 a quarter and a half took more time.
_ASIDE = 3 / 4


class _Solves(NamedTuple):
    """Solves side by side; all leaves are [lanes, ...].

    Attributes:
      rows: their rows; the length of the queue for a lane without one.
      u: their injections.
      progress: how far they are.
    """

    rows: jax.Array
    u: types.Injection
    progress: loop.Progress


class _Queue(NamedTuple):
    """What a wave changes.

    Attributes:
      found: what is recorded of the rows, leaves [rows].
      last: states that the lanes reached with their last rows.
      aside: solves that are to be continued, room for a wave and what it may leave.
      num_aside: how many there are.
    """

    found: kernels.Info
    last: types.State
    aside: _Solves
    num_aside: jax.Array


def run(
    model: types.Model,
    variables: types.Variables,
    solver: settled.Solver,
    decide: Callable[[types.Injection], settled.Decide],
    start: Start,
    noisy: Callable[[jax.Array], types.Images],
    num_rows: int,
    num_lanes: int,
    num_used: jax.Array | None = None,
) -> kernels.Info:
    """Classifies the rows of a queue.

    Args:
      model: the model.
      variables: its variables.
      solver: of the rows.
      decide: injection -> when the vote of a row is settled.
      start: of the solves.
      noisy: numbers of rows [num] -> their noisy images [num, H, W, C].
      num_rows: length of the queue.
      num_lanes: rows that are solved side by side.
      num_used: how many of the first rows are classified, int32; by default all.

    Returns:
      Info with leaves [rows]; 0 in rows that are not classified.
    """
    params = model.bind(variables)
    num_used = jnp.int32(num_rows) if num_used is None else num_used
    num_waves, most_aside = -(-num_used // num_lanes), int(_ASIDE * num_lanes)

    def begin(rows: jax.Array, last: types.State) -> _Solves:
        within = jnp.minimum(rows, num_rows - 1)
        u = model.inject(variables, noisy(within), None)[0]
        progress = solver.begin(start(within, u, last))
        return _Solves(rows, u, progress._replace(active=rows < num_used))

    def record(progress: loop.Progress) -> kernels.Info:
        return kernels.info(base_classifier.read(model, variables, progress.best))

    def wave(solves: _Solves, num_left: int | jax.Array, queue: _Queue) -> tuple[loop.Progress, _Queue]:
        """Advances solves until at most `num_left` are left, records all, and sets aside those that are left."""
        rows, u, progress = solves

        def advance(progress: loop.Progress) -> loop.Progress:
            return solver.advance(lambda z: model.cell(params, z, u), decide(u), progress)

        progress = lax.while_loop(lambda progress: jnp.sum(progress.active) > num_left, advance, progress)
        (left,) = jnp.nonzero(progress.active, size=most_aside, fill_value=0)
        at = queue.num_aside + jnp.arange(most_aside)
        left = jax.tree.map(lambda x: x[left], _Solves(rows, u, progress))
        return progress, queue._replace(
            found=jax.tree.map(lambda all, x: all.at[rows].set(x, mode="drop"), queue.found, record(progress)),
            aside=jax.tree.map(lambda all, x: all.at[at].set(x), queue.aside, left),
            num_aside=queue.num_aside + jnp.sum(progress.active),
        )

    def of_new_rows(index: jax.Array, queue: _Queue) -> _Queue:
        rows = index * num_lanes + jnp.arange(num_lanes)
        solves = begin(jnp.where(rows < num_used, rows, num_rows), queue.last)
        is_alone = (index == num_waves - 1) & (queue.num_aside == 0)
        progress, queue = wave(solves, jnp.where(is_alone, 0, most_aside), queue)
        queue = queue._replace(last=progress.best.value)
        of_some_aside = functools.partial(of_aside, most_aside)
        return lax.while_loop(lambda queue: queue.num_aside >= num_lanes, of_some_aside, queue)

    def of_aside(num_left: int, queue: _Queue) -> _Queue:
        """A wave of the first solves that were set aside."""
        is_one = jnp.arange(num_lanes) < queue.num_aside
        solves = jax.tree.map(lambda x: x[:num_lanes], queue.aside)
        solves = solves._replace(
            rows=jnp.where(is_one, solves.rows, num_rows),
            progress=solves.progress._replace(active=solves.progress.active & is_one),
        )
        rest = jax.tree.map(lambda x: x.at[:most_aside].set(x[num_lanes:]), queue.aside)
        num_rest = jnp.maximum(queue.num_aside - num_lanes, 0)
        return wave(solves, num_left, queue._replace(aside=rest, num_aside=num_rest))[1]

    def nothing(num: int, x: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros((num, *x.shape[1:]), x.dtype)

    no_rows = jnp.zeros(num_lanes, jnp.int32)
    last = jax.eval_shape(lambda rows: model.initial_state(model.inject(variables, noisy(rows), None)[0]), no_rows)
    last = jax.tree.map(lambda x: nothing(num_lanes, x), last)
    solves = jax.eval_shape(begin, no_rows, last)
    queue = _Queue(
        found=jax.tree.map(lambda x: nothing(num_rows, x), jax.eval_shape(record, solves.progress)),
        last=last,
        aside=jax.tree.map(lambda x: nothing(num_lanes + most_aside, x), solves),
        num_aside=jnp.zeros((), jnp.int32),
    )
    queue = lax.fori_loop(0, num_waves, of_new_rows, queue)
    # Fewer than a wave holds can be left: one more wave settles them all.
    return lax.while_loop(lambda queue: queue.num_aside > 0, functools.partial(of_aside, 0), queue).found
