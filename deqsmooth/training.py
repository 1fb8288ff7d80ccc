"""Training under Gaussian noise: takes settings and a training split, gives variables that certify.

Shallow pre-training unrolls the cell and differentiates through it; then the equilibrium is solved for
and its gradient attached, with a penalty on the Jacobian that keeps the solve convergent
(Bai et al. 2021; Gao et al. 2024, appendix).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deqsmooth import config, data, distributed, evaluation, models, schedules, solvers, starts, types
from deqsmooth.solvers import implicit

_INIT, _UPDATE = range(2)
_MOMENTUM = 0.9


class State(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      variables: of the model, float32.
      optimiser: optax state.
      update: number of updates done, int32.
    """

    variables: types.Variables
    optimiser: Any
    update: jax.Array


class Metrics(NamedTuple):
    """Means over the batch of one update, before it.

    Attributes:
      loss: cross-entropy plus weighted penalty.
      accuracy: share of noisy images classified rightly.
      penalty: Hutchinson's estimate of |J|_F^2 / dim(z); 0 where it was not computed.
      residual: median relative residual of the forward solve.
    """

    loss: jax.Array
    accuracy: jax.Array
    penalty: jax.Array
    residual: jax.Array


def optimiser(settings: config.Training, total: int) -> optax.GradientTransformation:
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


def init(model: types.Model, settings: config.Training, total: int) -> State:
    """The state before the first update."""
    variables = model.init(jax.random.fold_in(jax.random.key(settings.seed), _INIT))
    return State(variables, optimiser(settings, total).init(variables["params"]), jnp.int32(0))


def attach_fn(settings: config.Training, cell: implicit.Cell) -> implicit.Attach:
    """How gradients pass the equilibrium, by the name in the settings."""
    budget = settings.gradient_budget
    return {
        "one-step": lambda: implicit.one_step(cell),
        "phantom": lambda: implicit.phantom(cell, budget),
        "neumann": lambda: implicit.neumann(cell, budget),
        "anderson": lambda: implicit.fixed_point(cell, solvers.build("anderson", budget)),
        "broyden": lambda: implicit.fixed_point(cell, solvers.build("broyden", budget)),
        "gmres": lambda: implicit.gmres(cell, budget),
        "normal-cg": lambda: implicit.normal_cg(cell, budget),
    }[settings.gradient]()


def loss_fn(
    params: types.Parameters,
    variables: types.Variables,
    images: types.Images,
    labels: types.Labels,
    keys: types.Keys,
    weight: jax.Array | float,
    *,
    model: types.Model,
    settings: config.Training,
    task: schedules.Task,
) -> tuple[jax.Array, tuple[types.Variables, Metrics]]:
    """Loss of a batch, with the renewed variables and the metrics.

    Args:
      params: trainable collection of the variables.
      variables: all variables.
      images: clean images [lanes, H, W, C].
      labels: classes [lanes].
      keys: one key a lane, for its noise, its masks and its Hutchinson vectors.
      weight: of the Jacobian penalty.
      model: the model.
      settings: of the training.
      task: what the update does.
    """
    noise_keys, mask_keys, penalty_keys = jax.vmap(functools.partial(jax.random.split, num=3), out_axes=1)(keys)
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))
    variables = {**variables, "params": params}
    bound = model.bind(variables)
    u, variables = model.inject(variables, images + settings.sigma * draw(noise_keys), mask_keys)
    start = starts.zero(model)(u)
    if task.pretraining:
        z = start
        for _ in range(task.budget):
            z = model.cell(bound, z, u)
        residual = jnp.zeros(len(images))
    else:
        solver = solvers.build(settings.solver, task.budget)
        fixed = lax.stop_gradient((bound, u))
        solution = solver.solve(lambda z: model.cell(fixed[0], z, fixed[1]), start)
        z = attach_fn(settings, model.cell)(bound, lax.stop_gradient(solution.value), u)
        residual = solution.residual
    logits, variables = model.readout(variables, z, True)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    penalty = jnp.float32(0)
    if task.penalised:
        penalty = jnp.mean(implicit.jacobian_penalty(model.cell, bound, z, u, penalty_keys))
        loss = loss + weight * penalty
    accuracy = jnp.mean((jnp.argmax(logits, -1) == labels).astype(jnp.float32))
    return loss, (variables, Metrics(loss, accuracy, penalty, jnp.median(residual)))


def update(
    state: State,
    images: types.Images,
    labels: types.Labels,
    weight: jax.Array | float,
    *,
    model: types.Model,
    settings: config.Training,
    transformation: optax.GradientTransformation,
    mesh: Mesh,
    task: schedules.Task,
) -> tuple[State, Metrics]:
    """One update, the batch divided over the devices of the mesh.

    Noise, masks and Hutchinson vectors are keyed by (seed, update, place in the batch): they do not
    depend on the devices.
    """
    base = jax.random.fold_in(jax.random.key(settings.seed), _UPDATE)
    key = jax.random.fold_in(base, state.update)

    def gradients(variables, key, weight, places, images, labels):
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.wrap_key_data(key)))(places)
        loss = functools.partial(loss_fn, model=model, settings=settings, task=task)
        gradient, (variables, metrics) = jax.grad(loss, has_aux=True)(
            variables["params"], variables, images, labels, keys, weight
        )
        return lax.pmean((gradient, variables, metrics), mesh.axis_names)

    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
    gradient, variables, metrics = jax.shard_map(
        gradients, mesh=mesh, in_specs=(whole, whole, whole, split, split, split), out_specs=whole, check_vma=False
    )(state.variables, jax.random.key_data(key), jnp.float32(weight), jnp.arange(len(labels)), images, labels)
    step, transformed = transformation.update(gradient, state.optimiser, state.variables["params"])
    variables = {**variables, "params": optax.apply_updates(state.variables["params"], step)}
    return State(variables, transformed, state.update + 1), metrics


class Progress(NamedTuple):
    """Where a training stands after an update.

    Attributes:
      state: after the update.
      metrics: of the update.
      evaluation: after it, every `evaluation_interval` epochs and at the end, else None.
      waited: seconds that the update waited for its images.
    """

    state: State
    metrics: Metrics
    evaluation: evaluation.Evaluation | None
    waited: float


def fit(
    model: types.Model,
    settings: config.Training,
    train: data.Dataset,
    test: data.Dataset,
    state: State | None = None,
) -> Iterator[Progress]:
    """Trains a model; update t is a function of settings and t, so that any state can be resumed.

    Args:
      model: the model.
      settings: of the training.
      train: training split.
      test: split to evaluate on.
      state: where to go on; by default at the beginning.

    Yields:
      The progress after every update.
    """
    total, _ = schedules.num_updates(settings, len(train))
    state = init(model, settings, total) if state is None else state
    model = models.with_cell_dtype(model, settings.dtype)
    mesh = distributed.mesh(dividing=settings.batch_size)
    evaluate = evaluation.evaluator(model, settings, test, mesh)
    step = jax.jit(
        functools.partial(
            update, model=model, settings=settings, transformation=optimiser(settings, total), mesh=mesh
        ),
        static_argnames="task",
        donate_argnums=0,
    )
    interval = math.ceil(settings.evaluation_interval * len(train) / settings.batch_size)
    begin = int(state.update)
    # Where the first update finds its state is where it leaves it: it is compiled once.
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    stream = data.batches(train, settings.batch_size, seed=settings.seed, first=begin)
    for number, (task, weight) in enumerate(schedules.tasks(settings, len(train), begin), begin + 1):
        asked = time.perf_counter()
        images, labels = next(stream)
        waited = time.perf_counter() - asked
        state, metrics = step(state, images, labels, weight, task=task)
        # One program at a time: two that wait for each other's threads deadlock XLA's CPU collectives.
        metrics = jax.device_get(metrics)
        due = number % interval == 0 or number == total
        yield Progress(state, metrics, evaluate(state.variables) if due else None, waited)
