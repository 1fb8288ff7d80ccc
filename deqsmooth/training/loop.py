"""The loop of every training: takes a gradient and the task of every update, gives the progress after it.

It makes calls of updates until a training ends, checks that they are finite, and evaluates at intervals.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from deqsmooth import config, data, devices, types
from deqsmooth.training import calls, optimiser, updates


class DivergenceError(ValueError):
    """The loss or the parameters of a training are not finite."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an update.

    Attributes:
      state: state after the last finished update.
    """

    def __init__(self, state: updates.State) -> None:
        super().__init__()
        self.state = state


class Progress(NamedTuple):
    """Progress of a training after an update, or after the updates of a call; see `updates_per_call`.

    Attributes:
      state: state after the update; `state.update` is the number of finished updates.
      metrics: metrics of the update, or means over those of a call, a NamedTuple of scalars such as `loss`.
      evaluation: evaluation after the update, every `evaluation_interval` epochs and at the end, a NamedTuple of
        scalars; otherwise None.
      waited: seconds that the update waited for its images.
      total: number of updates of the whole training.
    """

    state: updates.State
    metrics: updates.Values
    evaluation: updates.Values | None
    waited: float
    total: int

    def __repr__(self) -> str:
        """The update with its metrics, without the arrays of the state."""
        found = ", ".join(f"{name} {float(x):.3g}" for name, x in self.metrics._asdict().items() if x is not None)
        return f"update {int(self.state.update)} of {self.total}: {found}; evaluation {self.evaluation}"


def num_updates(settings: config.Descent, num_images: int, epochs: int | float | None = None) -> int:
    """Returns the number of updates in a number of epochs, by default all epochs, rounded up."""
    epochs = settings.epochs if epochs is None else epochs
    # Rounding first removes floating point errors: 30.72 epochs of 50,000 / 96 updates are exactly 16,000.
    return math.ceil(round(epochs * num_images / settings.batch_size, 6))


def run(
    state: updates.State,
    settings: config.Descent,
    train: data.Dataset,
    gradient_fn: updates.Gradient,
    tasks: Iterator[tuple[updates.Task, updates.Shared]],
    evaluate: Callable[[types.Variables], updates.Values],
) -> Iterator[Progress]:
    """Makes the remaining updates after a state; each update is a function of its number and the settings.

    Args:
      state: state to start from.
      settings: settings of the training.
      train: training split.
      gradient_fn: the gradient of the loss.
      tasks: task and shared pytree of every remaining update.
      evaluate: variables -> evaluation; every process evaluates by itself.

    Yields:
      The progress after every update, or with `updates_per_call` after every call. A call makes only updates with
      the same task and shared pytree, of at most an epoch, and none after an evaluation that is due.

    Raises:
      ValueError: if the number of processes does not divide the batch, or the accumulation a device's share of it;
        or see `resident.load`.
      DivergenceError: after updates whose loss is not finite, or that make the state not finite.
      Interrupted: on Ctrl-C during an update, if the state before or after it is whole.
    """
    total, begin = num_updates(settings, len(train)), int(state.update)
    mesh = devices.mesh_of_all(settings.batch_size)
    updates.check_accumulation(settings, mesh)
    one = functools.partial(
        updates.update,
        gradient_fn=gradient_fn,
        seed=settings.seed,
        transformation=optimiser.build(settings),
        mesh=mesh,
        accumulation=settings.accumulation,
    )
    interval = math.ceil(settings.evaluation_interval * len(train) / settings.batch_size)
    # An update returns its state with the same sharding, so that it is compiled only once per task.
    state = jax.device_put(state, devices.replicated(mesh))
    made = (calls.from_host if settings.updates_per_call is None else calls.on_device)(
        one, settings, train, mesh, begin, total
    )
    last = "no update of this run had a finite loss"
    for first, end, task, shared in calls.between(tasks, begin, interval, calls.longest(settings, len(train))):
        try:
            state, metrics, waited = made(state, first, end, task, shared)
            # Waits for the updates: two programs that run at the same time can deadlock XLA's CPU collectives.
            metrics = jax.device_get(metrics)
            current = float(metrics._asdict()["loss"])
            if not math.isfinite(current) or not _is_finite(state):
                raise DivergenceError(_divergence(settings, first, end, current, last))
            last = f"the last finite loss was {current:.4g}, in update {end}"
            due = end % interval == 0 or end == total
            found = evaluate(jax.device_get(state.evaluated())) if due else None
        except KeyboardInterrupt:
            # An update takes over the buffers of the state before it.
            if any(x.is_deleted() for x in jax.tree.leaves(state)):
                raise
            raise Interrupted(state) from None
        yield Progress(state, metrics, found, waited, total)


def _divergence(settings: config.Descent, first: int, end: int, loss: float, last: str) -> str:
    """What is said of a call after which the loss or the state is not finite."""
    what = "parameters that are not finite" if math.isfinite(loss) else f"a loss of {loss}"
    remedy = f"lower learning_rate (now {settings.learning_rate:g}) or clip_norm (now {settings.clip_norm:g})"
    if isinstance(settings, config.Training) and settings.jacobian_weight:
        remedy += f", or raise jacobian_weight (now {settings.jacobian_weight:g})"
    which = f"update {end}" if end == first + 1 else f"one of the updates {first + 1} to {end}"
    return f"the training diverged: {which} gave {what}, and {last}; {remedy}"


@jax.jit
def _is_finite(state: updates.State) -> jax.Array:
    """Whether all numbers of a state are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)]))
