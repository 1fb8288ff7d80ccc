"""The loop of every training: batches, gradients over devices, the optimiser, and evaluations in between.

Takes a loss and what each update is to do, gives the progress after every update.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deqsmooth import config, data, devices, types
from deqsmooth.config import checks

_KEY = 1
_MOMENTUM = 0.9

Loss = Callable[..., tuple[jax.Array, tuple[types.Variables, Any]]]
"""(params, variables, images [lanes, H, W, C], labels [lanes], keys [lanes], shared, task) -> (loss, (variables
with renewed statistics, metrics))."""


class State(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      variables: what is trained stands under `params`; float32.
      optimiser: optax state.
      update: number of updates done, int32.
    """

    variables: types.Variables
    optimiser: Any
    update: jax.Array


class Progress(NamedTuple):
    """Where a training stands after an update.

    Attributes:
      state: after the update.
      metrics: of the update.
      evaluation: after it, every `evaluation_interval` epochs and at the end, else None.
      waited: seconds that the update waited for its images.
      total: updates of the whole training.
    """

    state: State
    metrics: Any
    evaluation: Any | None
    waited: float
    total: int


def num_updates(settings: config.Descent, num_images: int, epochs: int | float | None = None) -> int:
    """Updates of some epochs, by default of all, rounded up."""
    epochs = settings.epochs if epochs is None else epochs
    # Rounded before the ceiling, so that 30.72 epochs of 50,000 / 96 updates are 16,000 and no more.
    return math.ceil(round(epochs * num_images / settings.batch_size, 6))


def optimiser(settings: config.Descent, total: int) -> optax.GradientTransformation:
    """The optimiser with clipped gradients; the rate rises linearly and falls as a cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if settings.warmup else settings.learning_rate,
        peak_value=settings.learning_rate,
        warmup_steps=max(int(settings.warmup * total), 1) if settings.warmup else 0,
        decay_steps=total,
        end_value=settings.final_learning_rate,
    )
    clip = optax.clip_by_global_norm(settings.clip_norm)
    if settings.optimiser == "adamw":
        return optax.chain(clip, optax.adamw(schedule, weight_decay=settings.weight_decay))
    decay = optax.add_decayed_weights(settings.weight_decay)
    return optax.chain(clip, decay, optax.sgd(schedule, momentum=_MOMENTUM, nesterov=True))


def init(variables: types.Variables, settings: config.Descent, total: int) -> State:
    """The state before the first of some updates."""
    return State(variables, optimiser(settings, total).init(variables["params"]), jnp.int32(0))


def update(
    state: State,
    images: types.Images,
    labels: types.Labels,
    shared: Any,
    *,
    loss: Loss,
    seed: int,
    transformation: optax.GradientTransformation,
    mesh: Mesh,
    task: Hashable,
    accumulation: int = 1,
) -> tuple[State, Any]:
    """One update, the batch divided over the devices of the mesh.

    Noise, masks and random vectors are keyed by (seed, update, place in the batch): they do not
    depend on the devices.

    Args:
      state: before the update.
      images: clean images [batch, H, W, C].
      labels: classes [batch].
      shared: pytree that the loss sees whole on every device.
      loss: the loss.
      seed: of the training.
      transformation: of the gradients.
      mesh: devices.
      task: passed to the loss; another task is another program.
      accumulation: parts in which a device takes its share of the batch, one after the other.

    Returns:
      The state after the update and the metrics of the loss, averaged over the devices.
    """
    base = jax.random.fold_in(jax.random.key(seed), _KEY)
    key = jax.random.fold_in(base, state.update)

    def gradients(variables, key, shared, places, images, labels):
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.wrap_key_data(key)))(places)

        def of_part(variables, part):
            gradient, (variables, metrics) = jax.grad(loss, has_aux=True)(
                variables["params"], variables, *part, shared, task
            )
            return variables, (gradient, metrics)

        variables, found = _mean_over_parts(of_part, variables, (images, labels, keys), accumulation)
        return lax.pmean((*found, variables), mesh.axis_names)

    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
    gradient, metrics, variables = jax.shard_map(
        gradients, mesh=mesh, in_specs=(whole, whole, whole, split, split, split), out_specs=whole, check_vma=False
    )(state.variables, jax.random.key_data(key), shared, jnp.arange(len(labels)), images, labels)
    step, transformed = transformation.update(gradient, state.optimiser, state.variables["params"])
    variables = {**variables, "params": optax.apply_updates(state.variables["params"], step)}
    return State(variables, transformed, state.update + 1), metrics


def _mean_over_parts(fn, variables, batch, num):
    """Applies (variables, part) -> (variables, result) to equal parts of a batch in turn; the mean result."""
    if num == 1:
        return fn(variables, batch)
    parts = jax.tree.map(lambda x: x.reshape(num, -1, *x.shape[1:]), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn, variables, first)[1])

    def step(carry, part):
        variables, total = carry
        variables, found = fn(variables, part)
        return (variables, jax.tree.map(jnp.add, total, found)), None

    (variables, total), _ = lax.scan(step, (variables, nothing), parts)
    return variables, jax.tree.map(lambda x: x / num, total)


def run(
    state: State,
    settings: config.Descent,
    train: data.Dataset,
    loss: Loss,
    tasks: Iterator[tuple[Hashable, Any]],
    evaluate: Callable[[types.Variables], Any],
) -> Iterator[Progress]:
    """Makes the updates that are left after a state; each is a function of the settings and its number.

    Args:
      state: where to begin.
      settings: of the training.
      train: training split.
      loss: the loss.
      tasks: task and shared pytree of every update from there on.
      evaluate: variables -> evaluation; every process evaluates for itself.

    Yields:
      The progress after every update.

    Raises:
      ValueError: the batch does not divide by the processes, or a device's share of it by the accumulation.
    """
    total = num_updates(settings, len(train))
    mesh = devices.mesh_of_all(settings.batch_size)
    check_accumulation(settings, mesh)
    step = jax.jit(
        functools.partial(
            update,
            loss=loss,
            seed=settings.seed,
            transformation=optimiser(settings, total),
            mesh=mesh,
            accumulation=settings.accumulation,
        ),
        static_argnames="task",
        donate_argnums=0,
        out_shardings=devices.replicated(mesh),
    )
    interval = math.ceil(settings.evaluation_interval * len(train) / settings.batch_size)
    begin = int(state.update)
    # The sharding that an update returns its state with: the update is compiled once.
    state = jax.device_put(state, devices.replicated(mesh))
    shard, num_shards = devices.share(None)
    stream = data.batches(
        train, settings.batch_size, seed=settings.seed, first=begin, shard=shard, num_shards=num_shards
    )
    for number, (task, shared) in zip(range(begin + 1, total + 1), tasks, strict=True):
        asked = time.perf_counter()
        images, labels = devices.to_global(next(stream), mesh)
        waited = time.perf_counter() - asked
        state, metrics = step(state, images, labels, shared, task=task)
        # One program at a time: two that wait for each other's threads deadlock XLA's CPU collectives.
        metrics = jax.device_get(metrics)
        due = number % interval == 0 or number == total
        found = evaluate(jax.device_get(state.variables)) if due else None
        yield Progress(state, metrics, found, waited, total)


def check_accumulation(settings: config.Descent, mesh: Mesh) -> None:
    """Raises `ValueError` unless each device can divide its share of the batch as it is to."""
    share = settings.batch_size // mesh.size
    checks.holds(
        share % settings.accumulation == 0,
        "accumulation",
        settings.accumulation,
        f"a divisor of the {share} images that each of {mesh.size} devices has of a batch",
    )
