"""One update of a training: takes its state and a batch, gives the state after it and metrics.

The gradient is computed over all devices, and the optimiser applies it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deqsmooth import config, devices, types
from deqsmooth.config import checks
from deqsmooth.training import optimiser

_KEY = 1

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

    def evaluated(self) -> types.Variables:
        """The variables to evaluate: with the average of the parameters, if the optimiser keeps one."""
        average = optimiser.average(self.optimiser)
        return self.variables if average is None else {**self.variables, "params": average}


def init(variables: types.Variables, settings: config.Descent) -> State:
    """Returns the state before the first update of a training."""
    return State(variables, optimiser.build(settings).init(variables["params"]), jnp.int32(0))


def update(
    state: State,
    images: types.Images,
    labels: types.Labels,
    shared: Shared,
    total: int | jax.Array,
    *,
    gradient_fn: Gradient,
    seed: int,
    transformation: optax.GradientTransformationExtraArgs,
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
      total: number of updates of the whole training.
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
    step, transformed = transformation.update(gradient, state.optimiser, state.variables["params"], total=total)
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


def check_accumulation(settings: config.Descent, mesh: Mesh) -> None:
    """Raises `ValueError` unless the accumulation divides each device's share of the batch."""
    share = settings.batch_size // mesh.size
    checks.holds(
        share % settings.accumulation == 0,
        "accumulation",
        settings.accumulation,
        f"a divisor of the {share} images of a batch that each of {mesh.size} devices has",
    )
