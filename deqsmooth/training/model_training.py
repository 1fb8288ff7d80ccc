"""Training under Gaussian noise: takes settings and a training split, gives variables that certify.

Shallow pre-training unrolls the cell and differentiates through it; then the equilibrium is solved for
and its gradient attached, with a penalty on the Jacobian that keeps the solve convergent
(Bai et al. 2021; Gao et al. 2024, appendix). With an adversarial radius the noise is added to images that were
first changed so that the smoothed classifier errs (SmoothAdv, Salman et al. 2019). Explicit models, the baselines,
have neither pre-training nor penalty.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import config, data, devices, models, solvers, types
from deqsmooth.models import starts
from deqsmooth.smoothing import ascent
from deqsmooth.solvers import gradients
from deqsmooth.training import evaluation, loop, losses, schedules

_KEY = 0


class Metrics(NamedTuple):
    """Means over the batch of one update, before it.

    Attributes:
      loss: that of the settings plus weighted penalty.
      accuracy: share of noisy images classified rightly.
      penalty: Hutchinson's estimate of |J|_F^2 / dim(z); 0 where it was not computed.
      residual: median relative residual of the forward solve.
    """

    loss: jax.Array
    accuracy: jax.Array
    penalty: jax.Array
    residual: jax.Array


def init(model: types.Model | types.Explicit, settings: config.Training, num_images: int) -> loop.State:
    """The state before the first update on a training split of some size."""
    variables = model.init(jax.random.fold_in(jax.random.key(settings.seed), _KEY))
    return loop.init(variables, settings, loop.num_updates(settings, num_images))


def attach_fn(settings: config.Training, cell: gradients.Cell) -> gradients.Attach:
    """How gradients pass the equilibrium, by the name in the settings."""
    budget = settings.gradient_budget
    return {
        "one-step": lambda: gradients.one_step(cell),
        "neumann": lambda: gradients.neumann(cell, budget),
        "broyden": lambda: gradients.fixed_point(cell, solvers.build("broyden", budget)),
        "gmres": lambda: gradients.gmres(cell, budget),
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
    model: types.Model | types.Explicit,
    settings: config.Training,
) -> tuple[jax.Array, tuple[types.Variables, Metrics]]:
    """Loss of a batch, with the renewed variables and the metrics.

    Args:
      params: trainable collection of the variables.
      variables: all variables.
      images: clean images [lanes, H, W, C].
      labels: classes [lanes].
      keys: one key a lane, for its noise, its masks, its Hutchinson vectors, its ascents and its loss.
      weights: of the update.
      task: what the update does.
      model: the model.
      settings: of the training.
    """
    num = 1 if task.pretraining else settings.draws
    noise_keys, mask_keys, penalty_keys = (
        _several(x, num) for x in jax.vmap(functools.partial(jax.random.split, num=3), out_axes=1)(keys)
    )
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))
    draws = settings.sigma * draw(noise_keys).reshape(len(images), num, *images.shape[1:])
    variables = {**variables, "params": params}
    noisy = images[:, None] + draws
    if task.adversarial:
        classify = functools.partial(_classify, model, settings, task, lax.stop_gradient(variables))
        noisy = _changed(settings, classify, images, labels, draws, weights.radius, keys)
    several = noisy.shape[1] // num
    row_keys = _several(mask_keys, several), _several(penalty_keys, several)
    found = forward(model, settings, task, variables, noisy.reshape(-1, *images.shape[1:]), row_keys)
    logits = found.logits.reshape(*noisy.shape[:2], -1)
    loss_of = losses.cross_entropy if task.pretraining else losses.build(settings)
    loss = jnp.mean(loss_of(logits, labels, keys)) + weights.penalty * found.penalty
    accuracy = jnp.mean((jnp.argmax(logits[:, :num], -1) == labels[:, None]).astype(jnp.float32))
    return loss, (found.variables, Metrics(loss, accuracy, found.penalty, jnp.median(found.residual)))


class Pass(NamedTuple):
    """What comes of images in an update.

    Attributes:
      logits: [rows, classes].
      variables: with renewed statistics.
      residual: relative residuals of the forward solve [rows]; 0 where nothing was solved.
      penalty: mean Jacobian penalty; 0 where it was not computed.
    """

    logits: types.Logits
    variables: types.Variables
    residual: types.PerLane
    penalty: jax.Array


def forward(
    model: types.Model | types.Explicit,
    settings: config.Training,
    task: schedules.Task,
    variables: types.Variables,
    images: types.Images,
    keys: tuple[types.Keys, types.Keys] | None,
) -> Pass:
    """Classifies images so that all can be differentiated; in training with keys, of masks and Hutchinson vectors.

    They are classified as in an evaluation if there are none.
    """
    residual, penalty = jnp.zeros(len(images)), jnp.float32(0)
    if isinstance(model, types.Explicit):
        return Pass(*model.apply(variables, images, keys is not None), residual, penalty)
    bound = model.bind(variables)
    u, variables = model.inject(variables, images, None if keys is None else keys[0])
    start = starts.zero(model)(u)
    if task.pretraining:
        z = _unrolled(model.cell, bound, start, u, task.budget, rematerialise=settings.rematerialise)
    else:
        solver = solvers.build(settings.solver, task.budget)
        fixed = lax.stop_gradient((bound, u))
        solution = solver.solve(lambda z: model.cell(fixed[0], z, fixed[1]), start)
        z = attach_fn(settings, model.cell)(bound, lax.stop_gradient(solution.value), u)
        residual = solution.residual
    if task.penalised and keys is not None:
        penalty = jnp.mean(gradients.jacobian_penalty(model.cell, bound, z, u, keys[1]))
    return Pass(*model.readout(variables, z, keys is not None), residual, penalty)


def _classify(model, settings, task, variables, images):
    """Logits of the model as it stands, to be differentiated in the images."""
    return forward(model, settings, task, variables, images, None).logits


def _changed(settings, classify, images, labels, draws, radius, keys):
    """Noisy images to train on [images, draws, H, W, C]: noise on changed images.

    With `cat-rs` the draws on the images themselves, and then the same on images that were changed for each draw.
    """
    lanes, num, *shape = draws.shape
    attack = config.Attack(steps=settings.adversarial_steps)
    if settings.loss != "cat-rs":
        loss = ascent.smoothed_loss(classify, labels, draws)
        changed = ascent.ascend(loss, images, jnp.full(lanes, radius), keys, attack)
        return lax.stop_gradient(changed)[:, None] + draws
    noisy = images[:, None] + draws
    flat = draws.reshape(-1, *shape)
    target = losses.mean_prediction(classify(noisy.reshape(-1, *shape)).reshape(lanes, num, -1))
    target = jnp.repeat(target, num, 0)
    changed = ascent.ascend(
        lambda changed: losses.divergence(classify(changed + flat), target),
        jnp.repeat(images, num, 0),
        jnp.full(len(flat), radius),
        _several(keys, num),
        attack,
    )
    return jnp.concatenate([noisy, lax.stop_gradient(changed + flat).reshape(noisy.shape)], 1)


def _several(keys, num):
    """Some keys for each of [lanes] keys [lanes * num]; for one its own."""
    return keys if num == 1 else jax.vmap(lambda key: jax.random.split(key, num))(keys).reshape(-1)


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
    model: types.Model | types.Explicit,
    settings: config.Training,
    train: data.Dataset,
    test: data.Dataset,
    state: loop.State | None = None,
) -> Iterator[loop.Progress]:
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
    if isinstance(model, types.Model):
        model = models.with_cell_dtype(model, settings.dtype)
    yield from loop.run(
        state,
        settings,
        train,
        functools.partial(loss_fn, model=model, settings=settings),
        schedules.tasks(settings, len(train), int(state.update)),
        evaluation.evaluator(model, settings, test, devices.mesh()),
    )
