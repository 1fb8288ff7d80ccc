"""The loop of every training: takes a gradient and the task of every update, gives the progress after it.

It reads batches, computes gradients over all devices, applies the optimiser, and evaluates at intervals.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deqsmooth import config, data, devices, types
from deqsmooth.config import checks

_KEY = 1
_MOMENTUM = 0.9

Shared = Any
"""Pytree that the gradient of an update gets whole on every device."""
Task = Any
"""Static (hashable) argument of the gradient of an update; an update is compiled once for each task."""


@runtime_checkable
class Values(Protocol):
    """A NamedTuple of scalars: metrics of an update, or an evaluation."""

    def _asdict(self) -> dict[str, Any]: ...

    @property
    def _replace(self) -> Callable[..., Any]: ...


Gradient = Callable[
    [types.Parameters, types.Variables, types.Images, types.Labels, types.Keys, Shared, Task],
    tuple[types.Parameters, tuple[types.Variables, Values]],
]
"""(params, variables, images [lanes, H, W, C], labels [lanes], keys [lanes], shared, task) -> (gradient of the
loss, (variables with updated batch statistics, metrics)). The loop fills in the metric `gradient_norm`."""


class State(NamedTuple):
    """State of a training, from which it can resume.

    Attributes:
      variables: variables, float32; the collection `params` is trained.
      optimiser: state of the optimiser.
      update: number of finished updates, int32.
    """

    variables: types.Variables
    optimiser: optax.OptState
    update: jax.Array


class DivergenceError(ValueError):
    """The loss or the parameters of a training are not finite."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an update.

    Attributes:
      state: state after the last finished update.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state


class Progress(NamedTuple):
    """Progress of a training after an update.

    Attributes:
      state: state after the update; `state.update` is the number of finished updates.
      metrics: metrics of the update, a NamedTuple of scalars such as `loss`.
      evaluation: evaluation after the update, every `evaluation_interval` epochs and at the end, a NamedTuple of
        scalars; otherwise None.
      waited: seconds that the update waited for its images.
      total: number of updates of the whole training.
    """

    state: State
    metrics: Values
    evaluation: Values | None
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


def optimiser(settings: config.Descent, total: int) -> optax.GradientTransformation:
    """Returns the optimiser with gradient clipping, linear warm-up and a cosine schedule of the learning rate."""
    # The schedule needs an update after the warm-up.
    warmup = min(max(int(settings.warmup * total), 1), total - 1) if settings.warmup else 0
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else settings.learning_rate,
        peak_value=settings.learning_rate,
        warmup_steps=warmup,
        decay_steps=total,
        end_value=settings.final_learning_rate,
    )
    clip = optax.clip_by_global_norm(settings.clip_norm)
    if settings.optimiser == "adamw":
        return optax.chain(clip, optax.adamw(schedule, weight_decay=settings.weight_decay))
    decay = optax.add_decayed_weights(settings.weight_decay)
    return optax.chain(clip, decay, optax.sgd(schedule, momentum=_MOMENTUM, nesterov=True))


def init(variables: types.Variables, settings: config.Descent, total: int) -> State:
    """Returns the state before the first update of a training with `total` updates."""
    return State(variables, optimiser(settings, total).init(variables["params"]), jnp.int32(0))


def update(
    state: State,
    images: types.Images,
    labels: types.Labels,
    shared: Shared,
    *,
    gradient_fn: Gradient,
    seed: int,
    transformation: optax.GradientTransformation,
    mesh: Mesh,
    task: Task,
    accumulation: int = 1,
) -> tuple[State, Values]:
    """Makes one update, with the batch divided over the devices of the mesh.

    The key of an image depends on the seed, the update and the position of the image in the batch. Noise, masks
    and random vectors therefore do not depend on the devices.

    Args:
      state: state before the update.
      images: clean images [batch, H, W, C].
      labels: classes [batch].
      shared: argument of the gradient.
      gradient_fn: the gradient of the loss.
      seed: seed of the training.
      transformation: the optimiser.
      mesh: devices.
      task: static argument of the gradient.
      accumulation: number of parts into which a device splits its share of the batch, to process one after
        another.

    Returns:
      The state after the update, and the metrics, averaged over the devices, with `gradient_norm`: the global norm
      of the mean gradient before clipping.
    """
    base = jax.random.fold_in(jax.random.key(seed), _KEY)
    key = jax.random.fold_in(base, state.update)

    def gradients(
        variables: types.Variables,
        key: jax.Array,
        shared: Shared,
        positions: jax.Array,
        images: types.Images,
        labels: types.Labels,
    ) -> tuple[types.Parameters, Values, types.Variables]:
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.wrap_key_data(key)))(positions)

        def gradient_of_part(
            variables: types.Variables, part: tuple[types.Images, types.Labels, types.Keys]
        ) -> tuple[types.Variables, tuple[types.Parameters, Values]]:
            gradient, (variables, metrics) = gradient_fn(variables["params"], variables, *part, shared, task)
            return variables, (gradient, metrics)

        variables, found = _mean_over_parts(gradient_of_part, variables, (images, labels, keys), accumulation)
        return lax.pmean((*found, variables), mesh.axis_names)

    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
    gradient, metrics, variables = jax.shard_map(
        gradients, mesh=mesh, in_specs=(whole, whole, whole, split, split, split), out_specs=whole, check_vma=False
    )(state.variables, jax.random.key_data(key), shared, jnp.arange(len(labels)), images, labels)
    step, transformed = transformation.update(gradient, state.optimiser, state.variables["params"])
    variables = {**variables, "params": optax.apply_updates(state.variables["params"], step)}
    square = sum(jnp.sum(x * x) for x in jax.tree.leaves(gradient))
    metrics = metrics._replace(gradient_norm=jnp.sqrt(square))
    return State(variables, transformed, state.update + 1), metrics


def _mean_over_parts(
    fn: Callable[[types.Variables, devices.Rows], tuple[types.Variables, Any]],
    variables: types.Variables,
    batch: devices.Rows,
    num: int,
) -> tuple[types.Variables, Any]:
    """Applies `fn` to equal parts of a batch, one after another; returns the variables and the mean result."""
    if num == 1:
        return fn(variables, batch)
    parts = jax.tree.map(lambda x: x.reshape(num, -1, *x.shape[1:]), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn, variables, first)[1])

    def step(carry: tuple[types.Variables, Any], part: devices.Rows) -> tuple[tuple[types.Variables, Any], None]:
        variables, total = carry
        variables, found = fn(variables, part)
        return (variables, jax.tree.map(jnp.add, total, found)), None

    (variables, total), _ = lax.scan(step, (variables, nothing), parts)
    return variables, jax.tree.map(lambda x: x / num, total)


def run(
    state: State,
    settings: config.Descent,
    train: data.Dataset,
    gradient_fn: Gradient,
    tasks: Iterator[tuple[Task, Shared]],
    evaluate: Callable[[types.Variables], Values],
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
      The progress after every update.

    Raises:
      ValueError: if the number of processes does not divide the batch, or the accumulation a device's share of it.
      DivergenceError: after an update whose loss is not finite, or that makes the state not finite.
      Interrupted: on Ctrl-C during an update, if the state before or after it is whole.
    """
    total = num_updates(settings, len(train))
    mesh = devices.mesh_of_all(settings.batch_size)
    check_accumulation(settings, mesh)
    step = jax.jit(
        functools.partial(
            update,
            gradient_fn=gradient_fn,
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
    # An update returns its state with the same sharding, so that it is compiled only once per task.
    state = jax.device_put(state, devices.replicated(mesh))
    shard, num_shards = devices.share(None)
    stream = data.batches(
        train, settings.batch_size, seed=settings.seed, first=begin, shard=shard, num_shards=num_shards
    )
    last = "no update of this run had a finite loss"
    for number, (task, shared) in zip(range(begin + 1, total + 1), tasks, strict=True):
        try:
            begun = time.perf_counter()
            images, labels = devices.to_global(next(stream), mesh)
            waited = time.perf_counter() - begun
            state, metrics = step(state, images, labels, shared, task=task)
            # Waits for the update: two programs that run at the same time can deadlock XLA's CPU collectives.
            metrics = jax.device_get(metrics)
            current = float(metrics._asdict()["loss"])
            if not math.isfinite(current) or not _is_finite(state):
                raise DivergenceError(_divergence(settings, number, current, last))
            last = f"the last finite loss was {current:.4g}, in update {number}"
            due = number % interval == 0 or number == total
            found = evaluate(jax.device_get(state.variables)) if due else None
        except KeyboardInterrupt:
            # An update takes over the buffers of the state before it.
            if any(x.is_deleted() for x in jax.tree.leaves(state)):
                raise
            raise Interrupted(state) from None
        yield Progress(state, metrics, found, waited, total)


def _divergence(settings: config.Descent, number: int, loss: float, last: str) -> str:
    """What is said of an update after which the loss or the state is not finite."""
    what = "parameters that are not finite" if math.isfinite(loss) else f"a loss of {loss}"
    remedy = f"lower learning_rate (now {settings.learning_rate:g}) or clip_norm (now {settings.clip_norm:g})"
    if isinstance(settings, config.Training) and settings.jacobian_weight:
        remedy += f", or raise jacobian_weight (now {settings.jacobian_weight:g})"
    return f"the training diverged: update {number} gave {what}, and {last}; {remedy}"


@jax.jit
def _is_finite(state: State) -> jax.Array:
    """Whether all numbers of a state are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)]))


def check_accumulation(settings: config.Descent, mesh: Mesh) -> None:
    """Raises `ValueError` unless the accumulation divides each device's share of the batch."""
    share = settings.batch_size // mesh.size
    checks.holds(
        share % settings.accumulation == 0,
        "accumulation",
        settings.accumulation,
        f"a divisor of the {share} images of a batch that each of {mesh.size} devices has",
    )
