"""Training under Gaussian noise: takes settings and a training split, gives variables that certify.

Shallow pre-training unrolls the cell and differentiates through it; then the equilibrium is solved for
and its gradient attached, with a penalty on the Jacobian that keeps the solve convergent
(Bai et al. 2021; Gao et al. 2024, appendix). With an adversarial radius the noise is added to images that were
first changed so that the smoothed classifier errs (SmoothAdv, Salman et al. 2019).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from deqsmooth import (
    ascent,
    config,
    data,
    distributed,
    evaluation,
    models,
    schedules,
    solvers,
    starts,
    types,
    updates,
)
from deqsmooth.solvers import implicit

_KEY = 0


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


def init(model: types.Model, settings: config.Training, num_images: int) -> updates.State:
    """The state before the first update on a training split of some size."""
    variables = model.init(jax.random.fold_in(jax.random.key(settings.seed), _KEY))
    return updates.init(variables, settings, updates.num_updates(settings, num_images))


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
    weights: schedules.Weights,
    task: schedules.Task,
    *,
    model: types.Model,
    settings: config.Training,
) -> tuple[jax.Array, tuple[types.Variables, Metrics]]:
    """Loss of a batch, with the renewed variables and the metrics.

    Args:
      params: trainable collection of the variables.
      variables: all variables.
      images: clean images [lanes, H, W, C].
      labels: classes [lanes].
      keys: one key a lane, for its noise, its masks and its Hutchinson vectors.
      weights: of the update.
      task: what the update does.
      model: the model.
      settings: of the training.
    """
    noise_keys, mask_keys, penalty_keys = jax.vmap(functools.partial(jax.random.split, num=3), out_axes=1)(keys)
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))
    variables = {**variables, "params": params}
    if task.adversarial:
        num = settings.adversarial_draws
        noise_keys, mask_keys, penalty_keys = (_several(x, num) for x in (noise_keys, mask_keys, penalty_keys))
        draws = settings.sigma * draw(noise_keys).reshape(len(images), num, *images.shape[1:])
        classify = functools.partial(_classify, model, settings, task, lax.stop_gradient(variables))
        changed = ascent.ascend(
            ascent.smoothed_loss(classify, labels, draws),
            images,
            jnp.full(len(images), weights.radius),
            keys,
            config.Attack(steps=settings.adversarial_steps),
        )
        noisy = (lax.stop_gradient(changed)[:, None] + draws).reshape(-1, *images.shape[1:])
        labels = jnp.repeat(labels, num)
    else:
        noisy = images + settings.sigma * draw(noise_keys)
    bound = model.bind(variables)
    u, variables = model.inject(variables, noisy, mask_keys)
    start = starts.zero(model)(u)
    if task.pretraining:
        z = _unrolled(model.cell, bound, start, u, task.budget, rematerialise=settings.rematerialise)
        residual = jnp.zeros(len(noisy))
    else:
        z, residual = _equilibrium(model, settings, task, bound, start, u)
    logits, variables = model.readout(variables, z, True)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    penalty = jnp.float32(0)
    if task.penalised:
        penalty = jnp.mean(implicit.jacobian_penalty(model.cell, bound, z, u, penalty_keys))
        loss = loss + weights.penalty * penalty
    accuracy = jnp.mean((jnp.argmax(logits, -1) == labels).astype(jnp.float32))
    return loss, (variables, Metrics(loss, accuracy, penalty, jnp.median(residual)))


def _equilibrium(model, settings, task, bound, start, u):
    """The equilibrium with its gradient attached, and the relative residuals of the solve."""
    solver = solvers.build(settings.solver, task.budget)
    fixed = lax.stop_gradient((bound, u))
    solution = solver.solve(lambda z: model.cell(fixed[0], z, fixed[1]), start)
    return attach_fn(settings, model.cell)(bound, lax.stop_gradient(solution.value), u), solution.residual


def _classify(model, settings, task, variables, images):
    """Logits of the model as it stands, to be differentiated in the images."""
    u, _ = model.inject(variables, images, None)
    z, _ = _equilibrium(model, settings, task, model.bind(variables), starts.zero(model)(u), u)
    return model.readout(variables, z, False)[0]


def _several(keys, num):
    """Some keys for each of [lanes] keys [lanes * num]."""
    return jax.vmap(lambda key: jax.random.split(key, num))(keys).reshape(-1)


def _unrolled(cell, bound, z, u, budget, *, rematerialise):
    """Evaluations of the cell to differentiate through."""
    if not rematerialise:
        for _ in range(budget):
            z = cell(bound, z, u)
        return z
    # Only in a loop does XLA's CPU backend leave what is computed again where it is.
    step = jax.checkpoint(lambda z, _: (cell(bound, z, u), None), prevent_cse=False)
    return lax.scan(step, z, length=budget)[0]


def fit(
    model: types.Model,
    settings: config.Training,
    train: data.Dataset,
    test: data.Dataset,
    state: updates.State | None = None,
) -> Iterator[updates.Progress]:
    """Trains a model; update t is a function of settings and t, so that any state can be resumed.

    Args:
      model: the model, built with `axis_name=distributed.AXIS` if batch statistics are to be those of all devices.
      settings: of the training.
      train: training split.
      test: split to evaluate on.
      state: where to go on; by default at the beginning.

    Yields:
      The progress after every update.
    """
    state = init(model, settings, len(train)) if state is None else state
    model = models.with_cell_dtype(model, settings.dtype)
    yield from updates.run(
        state,
        settings,
        train,
        functools.partial(loss_fn, model=model, settings=settings),
        schedules.tasks(settings, len(train), int(state.update)),
        evaluation.evaluator(model, settings, test, distributed.mesh()),
    )
