"""Training under Gaussian noise: takes settings and a training split, gives variables that certify.

Shallow pre-training unrolls the cell and differentiates through it; then the equilibrium is solved for
and its gradient attached, with a penalty on the Jacobian that keeps the solve convergent
(Bai et al. 2021; Gao et al. 2024, appendix).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deqsmooth import config, data, distributed, equilibrium, noise, solvers, types
from deqsmooth.solvers import implicit

_INIT, _UPDATE, _EVALUATION = range(3)
_EVALUATION_BLOCK = 100
_EVALUATION_IMAGES = 500
_EVALUATION_SAMPLES = 1500
_SPECTRAL_LANES = 64


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


def num_updates(settings: config.Training, num_images: int) -> tuple[int, int]:
    """Updates in all, and how many of them are pre-training."""
    per_epoch = num_images / settings.batch_size
    return math.ceil(settings.epochs * per_epoch), math.ceil(settings.pretraining_epochs * per_epoch)


def optimiser(settings: config.Training, total: int) -> optax.GradientTransformation:
    """AdamW with clipped gradients, linear warm-up over 5 % of the updates and cosine decay to zero."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, max(total // 20, 1), total)
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(schedule, weight_decay=settings.weight_decay),
    )


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
        "gmres": lambda: implicit.gmres(cell, budget),
        "normal-cg": lambda: implicit.normal_cg(cell, budget),
    }[settings.gradient]()


def loss_fn(
    params: types.Parameters,
    variables: types.Variables,
    images: types.Images,
    labels: types.Labels,
    keys: types.Keys,
    *,
    model: types.Model,
    settings: config.Training,
    pretraining: bool,
    penalised: bool,
) -> tuple[jax.Array, tuple[types.Variables, Metrics]]:
    """Loss of a batch, with the renewed variables and the metrics.

    Args:
      params: trainable collection of the variables.
      variables: all variables.
      images: clean images [lanes, H, W, C].
      labels: classes [lanes].
      keys: one key a lane, for its noise, its masks and its Hutchinson vectors.
      model: the model.
      settings: of the training.
      pretraining: whether the cell is unrolled instead of solved.
      penalised: whether the Jacobian penalty is computed.
    """
    noise_keys, mask_keys, penalty_keys = jax.vmap(functools.partial(jax.random.split, num=3), out_axes=1)(keys)
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))
    variables = {**variables, "params": params}
    bound = model.bind(variables)
    u, variables = model.inject(variables, images + settings.sigma * draw(noise_keys), mask_keys)
    start = model.initial_state(u)
    if pretraining:
        z = start
        for _ in range(settings.pretraining_budget):
            z = model.cell(bound, z, u)
        residual = jnp.zeros(len(images))
    else:
        solver = solvers.build(settings.solver, settings.budget)
        fixed = lax.stop_gradient((bound, u))
        solution = solver.solve(lambda z: model.cell(fixed[0], z, fixed[1]), start)
        z = attach_fn(settings, model.cell)(bound, lax.stop_gradient(solution.value), u)
        residual = solution.residual
    logits, variables = model.readout(variables, z, True)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    penalty = jnp.float32(0)
    if penalised:
        penalty = jnp.mean(implicit.jacobian_penalty(model.cell, bound, z, u, penalty_keys))
        loss = loss + settings.jacobian_weight * penalty
    accuracy = jnp.mean((jnp.argmax(logits, -1) == labels).astype(jnp.float32))
    return loss, (variables, Metrics(loss, accuracy, penalty, jnp.median(residual)))


def update(
    state: State,
    images: types.Images,
    labels: types.Labels,
    *,
    model: types.Model,
    settings: config.Training,
    transformation: optax.GradientTransformation,
    mesh: Mesh,
    pretraining: bool,
    penalised: bool,
) -> tuple[State, Metrics]:
    """One update, the batch divided over the devices of the mesh.

    Noise, masks and Hutchinson vectors are keyed by (seed, update, place in the batch): they do not
    depend on the devices.
    """
    base = jax.random.fold_in(jax.random.key(settings.seed), _UPDATE)
    key = jax.random.fold_in(base, state.update)

    def gradients(variables, key, places, images, labels):
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.wrap_key_data(key)))(places)
        loss = functools.partial(
            loss_fn, model=model, settings=settings, pretraining=pretraining, penalised=penalised
        )
        gradient, (variables, metrics) = jax.grad(loss, has_aux=True)(
            variables["params"], variables, images, labels, keys
        )
        return lax.pmean((gradient, variables, metrics), mesh.axis_names)

    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
    gradient, variables, metrics = jax.shard_map(
        gradients, mesh=mesh, in_specs=(whole, whole, split, split, split), out_specs=whole, check_vma=False
    )(state.variables, jax.random.key_data(key), jnp.arange(len(labels)), images, labels)
    step, transformed = transformation.update(gradient, state.optimiser, state.variables["params"])
    variables = {**variables, "params": optax.apply_updates(state.variables["params"], step)}
    return State(variables, transformed, state.update + 1), metrics


class Evaluation(NamedTuple):
    """How a model does on a test split, solved with Anderson at the reference budget.

    Attributes:
      clean_accuracy: without noise.
      noisy_accuracy: under noise, over a few draws an image.
      median_residual: median relative residual of the returned states under noise.
      spectral_radius: median estimate for the cell's Jacobian at these states.
    """

    clean_accuracy: float
    noisy_accuracy: float
    median_residual: float
    spectral_radius: float


def evaluator(
    model: types.Model, settings: config.Training, dataset: data.Dataset, mesh: Mesh
) -> Callable[[types.Variables], Evaluation]:
    """Returns the function from variables to their evaluation on up to 500 images, evenly spaced."""
    solver = solvers.build("anderson", settings.reference_budget)
    images, labels = dataset.take(range(0, len(dataset), -(-len(dataset) // _EVALUATION_IMAGES)))
    num_draws = max(1, _EVALUATION_SAMPLES // len(images))
    rows = {
        "image": np.tile(np.arange(len(images)), num_draws + 1).astype(np.int32),
        "draw": np.repeat(np.arange(num_draws + 1), len(images)).astype(np.int32),
    }
    noisy_rows = rows["draw"] > 0

    def solve(shared, rows):
        variables, images = shared
        key = jax.random.fold_in(jax.random.key(settings.seed), _EVALUATION)
        keys = jax.vmap(lambda image: jax.random.fold_in(key, image))(rows["image"])
        scale = settings.sigma * (rows["draw"] > 0)
        draw = noise.gaussian(keys, rows["draw"], images.shape[1:])
        noisy = images[rows["image"]] + scale[:, None, None, None] * draw
        output = equilibrium.classify(model, variables, solver, noisy, model.initial_state, measure_residual=True)
        return noisy, keys, output

    def on_block(shared, rows):
        _, _, output = solve(shared, rows)
        return jnp.argmax(output.logits, -1), output.solution.residual

    @jax.jit
    def run(variables, images):
        return distributed.map_blocks(on_block, (variables, images), rows, _EVALUATION_BLOCK, mesh)

    @jax.jit
    def spectral_radius(variables, images):
        few = {name: jnp.asarray(x[noisy_rows][:_SPECTRAL_LANES]) for name, x in rows.items()}
        noisy, keys, output = solve((variables, images), few)
        u, _ = model.inject(variables, noisy, None)
        return implicit.spectral_radius(model.cell, model.bind(variables), output.solution.value, u, keys)

    def evaluate(variables):
        predicted, residual = jax.device_get(run(variables, images))
        right = predicted == labels[rows["image"]]
        return Evaluation(
            float(right[~noisy_rows].mean()),
            float(right[noisy_rows].mean()),
            float(np.median(residual[noisy_rows])),
            float(np.median(spectral_radius(variables, images))),
        )

    return evaluate


class Progress(NamedTuple):
    """Where a training stands after an update.

    Attributes:
      state: after the update.
      metrics: of the update.
      evaluation: after it, every `evaluation_interval` epochs and at the end, else None.
    """

    state: State
    metrics: Metrics
    evaluation: Evaluation | None


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
    total, pretraining = num_updates(settings, len(train))
    state = init(model, settings, total) if state is None else state
    mesh = distributed.mesh(dividing=settings.batch_size)
    evaluate = evaluator(model, settings, test, mesh)
    step = jax.jit(
        functools.partial(
            update, model=model, settings=settings, transformation=optimiser(settings, total), mesh=mesh
        ),
        static_argnames=("pretraining", "penalised"),
        donate_argnums=0,
    )
    penalised = np.random.default_rng(settings.seed).random(total) < settings.jacobian_frequency
    interval = math.ceil(settings.evaluation_interval * len(train) / settings.batch_size)
    begin = int(state.update)
    stream = data.batches(train, settings.batch_size, seed=settings.seed, first=begin)
    for number, (images, labels) in zip(range(begin, total), stream, strict=False):
        state, metrics = step(
            state, images, labels, pretraining=number < pretraining, penalised=bool(penalised[number])
        )
        # One program at a time: two that wait for each other's threads deadlock XLA's CPU collectives.
        metrics = jax.device_get(metrics)
        due = (number + 1) % interval == 0 or number + 1 == total
        yield Progress(state, metrics, evaluate(state.variables) if due else None)
