"""Training of a model under Gaussian noise: takes settings and a training split, gives variables.

Pre-training unrolls a few evaluations of the cell and differentiates through them. After that, the forward pass
solves for the equilibrium and the gradient is attached to it. A penalty on the Jacobian keeps the solve convergent
(Bai et al. 2021; Gao et al. 2024, appendix). With an adversarial radius, noise is added to images that were first
perturbed against the smoothed classifier (SmoothAdv, Salman et al. 2019). Explicit models have neither
pre-training nor penalty.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from deqsmooth import config, data, devices, models, solvers, types
from deqsmooth.models import starts
from deqsmooth.smoothing import ascent
from deqsmooth.solvers import gradients, jacobian
from deqsmooth.training import backward_residual, chance, evaluation, loop, losses, schedules, updates

_KEY = 0
_RowKeys = Key[Array, "rows"]
_PerRow = Float[Array, "rows"]


class Metrics(NamedTuple):
    """Metrics of the batch of an update, with the parameters before the update.

    Attributes:
      loss: loss of the settings plus the weighted penalty.
      accuracy: accuracy on noisy images.
      penalty: Hutchinson's estimate of |J|_F^2 / dim(z); 0 if it was not computed.
      residual: median relative residual of the forward solve; 0 if nothing was solved.
      backward_residual: median relative residual of the linear solve of the backward pass, see `gradients.Attach`,
        over the rows whose loss has a gradient; infinite if most are not finite. None if nothing was solved
        iteratively: in pre-training, with `one-step`, and with one term or iteration.
      gradient_norm: global norm of the gradient before clipping; None before the loop computes it.
    """

    loss: jax.Array
    accuracy: jax.Array
    penalty: jax.Array
    residual: jax.Array
    backward_residual: jax.Array | None = None
    gradient_norm: jax.Array | None = None


def init(
    model: types.Model | types.Explicit, settings: config.Training, initial: types.Variables | None = None
) -> updates.State:
    """Returns the state before the first update, with initial variables if they are given, else random ones."""
    variables = model.init(jax.random.fold_in(jax.random.key(settings.seed), _KEY))
    given = variables if initial is None else {name: initial[name] for name in variables}
    return updates.init(jax.tree.map(jnp.asarray, given), settings)


def attach_fn(settings: config.Training, cell: gradients.Cell) -> gradients.Attach:
    """Returns the function that attaches gradients to an equilibrium, by the method `settings.gradient`."""
    budget = settings.gradient_budget
    return {
        "one-step": lambda: gradients.one_step(cell),
        "neumann": lambda: gradients.neumann(cell, budget),
        "broyden": lambda: gradients.fixed_point(cell, solvers.build("broyden", budget)),
        "gmres": lambda: gradients.gmres(cell, budget),
    }[settings.gradient]()


def gradient_fn(
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
) -> tuple[types.Parameters, tuple[types.Variables, Metrics]]:
    """Computes the gradient of `loss_fn` with respect to `params`; also returns its variables and metrics.

    The metrics then have the residual of the backward solve.
    """

    def loss(params: types.Parameters, probe: _PerRow | None) -> tuple[jax.Array, Any]:
        return loss_fn(
            params, variables, images, labels, keys, weights, task, model=model, settings=settings, probe=probe
        )

    if isinstance(model, types.Explicit) or task.pretraining or not _iterates(settings):
        return jax.grad(loss, has_aux=True)(params, None)
    probe = jnp.zeros(len(images) * settings.draws * _num_copies(settings, task), jnp.float32)
    (gradient, residual), (variables, metrics) = jax.grad(loss, (0, 1), has_aux=True)(params, probe)
    return gradient, (variables, metrics._replace(backward_residual=backward_residual.median(residual)))


def _iterates(settings: config.Training) -> bool:
    """Whether the gradient makes a product with J^T, so that its linear solve has a residual."""
    return settings.gradient != "one-step" and settings.gradient_budget > 1


def _num_copies(settings: config.Training, task: schedules.Task) -> int:
    """Returns how often an update has each noise draw: with `cat-rs` once more on perturbed images."""
    return 2 if task.adversarial and settings.loss == "cat-rs" else 1


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
    probe: _PerRow | None = None,
) -> tuple[jax.Array, tuple[types.Variables, Metrics]]:
    """Computes the loss of a batch, the variables with updated batch statistics, and the metrics.

    Args:
      params: trained collection of the variables.
      variables: all variables.
      images: clean images [lanes, H, W, C].
      labels: classes [lanes].
      keys: one key a lane, for its noise, dropout masks, Hutchinson vectors, perturbation and loss.
      weights: weights of the update.
      task: task of the update.
      model: the model.
      settings: settings of the training.
      probe: zeros [rows] whose gradient is the residual of the backward solve, a row for each noisy image; see
        `gradients.Attach`.
    """
    num = 1 if task.pretraining else settings.draws
    noise_keys, mask_keys, penalty_keys = (
        _split_keys(x, num) for x in jax.vmap(functools.partial(jax.random.split, num=3), out_axes=1)(keys)
    )
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))
    draws = settings.sigma * draw(noise_keys).reshape(len(images), num, *images.shape[1:])
    variables = {**variables, "params": params}
    noisy = images[:, None] + draws
    if task.adversarial:
        classify = functools.partial(_classify, model, settings, task, lax.stop_gradient(variables))
        noisy = _perturb(settings, classify, images, labels, draws, weights.radius, keys)
    copies = _num_copies(settings, task)
    row_keys = _split_keys(mask_keys, copies), _split_keys(penalty_keys, copies)
    found = forward(model, settings, task, variables, noisy.reshape(-1, *images.shape[1:]), row_keys, probe)
    logits = found.logits.reshape(*noisy.shape[:2], -1)
    loss_of = losses.cross_entropy if task.pretraining else losses.build(settings)
    loss = jnp.mean(loss_of(logits, labels, keys)) + weights.penalty * found.penalty
    accuracy = jnp.mean((jnp.argmax(logits[:, :num], -1) == labels[:, None]).astype(jnp.float32))
    return loss, (found.variables, Metrics(loss, accuracy, found.penalty, jnp.median(found.residual)))


class Pass(NamedTuple):
    """Result of a forward pass.

    Attributes:
      logits: logits [rows, classes].
      variables: variables with updated batch statistics.
      residual: relative residuals of the forward solve [rows]; 0 if nothing was solved.
      penalty: mean Jacobian penalty; 0 if it was not computed.
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
    probe: _PerRow | None = None,
) -> Pass:
    """Classifies images differentiably.

    Args:
      model: the model.
      settings: settings of the training.
      task: task of the update.
      variables: variables of the model.
      images: noisy images [rows, H, W, C].
      keys: keys of dropout masks and of Hutchinson vectors, [rows] each; None to classify as in evaluation.
      probe: zeros [rows] whose gradient is the residual of the backward solve, or None.
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
        z = attach_fn(settings, model.cell)(bound, lax.stop_gradient(solution.value), u, probe)
        residual = solution.residual
    if task.penalised and keys is not None:
        penalty = jnp.mean(jacobian.penalty(model.cell, bound, z, u, keys[1]))
    return Pass(*model.readout(variables, z, keys is not None), residual, penalty)


def _classify(
    model: types.Model | types.Explicit,
    settings: config.Training,
    task: schedules.Task,
    variables: types.Variables,
    images: types.Images,
) -> types.Logits:
    """Returns logits as in evaluation, differentiable in the images."""
    return forward(model, settings, task, variables, images, None).logits


def _perturb(
    settings: config.Training,
    classify: Callable[[types.Images], types.Logits],
    images: types.Images,
    labels: types.Labels,
    draws: jax.Array,
    radius: float | jax.Array,
    keys: types.Keys,
) -> jax.Array:
    """Returns noisy images to train on [images, draws, H, W, C], with noise added to perturbed images.

    With `cat-rs` the first half has the draws added to the images themselves, and the second half the same draws
    added to images that were perturbed for each draw.
    """
    lanes, num, *shape = draws.shape
    attack = config.Attack(steps=settings.adversarial_steps)
    if settings.loss != "cat-rs":
        loss = ascent.smoothed_loss(classify, labels, draws)
        perturbed = ascent.ascend(loss, images, jnp.full(lanes, radius), keys, attack)
        return lax.stop_gradient(perturbed)[:, None] + draws
    noisy = images[:, None] + draws
    flat = draws.reshape(-1, *shape)
    target = losses.mean_prediction(classify(noisy.reshape(-1, *shape)).reshape(lanes, num, -1))
    target = jnp.repeat(target, num, 0)
    perturbed = ascent.ascend(
        lambda perturbed: losses.divergence(classify(perturbed + flat), target),
        jnp.repeat(images, num, 0),
        jnp.full(len(flat), radius),
        _split_keys(keys, num),
        attack,
    )
    return jnp.concatenate([noisy, lax.stop_gradient(perturbed + flat).reshape(noisy.shape)], 1)


def _split_keys(keys: types.Keys, num: int) -> _RowKeys:
    """Splits every key [lanes] into `num` keys [rows = lanes * num]; returns the keys themselves if `num` is 1."""
    return keys if num == 1 else jax.vmap(lambda key: jax.random.split(key, num))(keys).reshape(-1)


def _unrolled(
    cell: gradients.Cell,
    params: types.Parameters,
    z: types.State,
    u: types.Injection,
    budget: int,
    *,
    rematerialise: bool,
) -> types.State:
    """Applies the cell `budget` times."""
    if not rematerialise:
        for _ in range(budget):
            z = cell(params, z, u)
        return z
    # In a loop XLA's CPU backend keeps the recomputation in the backward pass; in unrolled code it does not.
    step = jax.checkpoint(lambda z, _: (cell(params, z, u), None), prevent_cse=False)
    return lax.scan(step, z, length=budget)[0]


def fit(
    model: types.Model | types.Explicit,
    settings: config.Training,
    train: data.Dataset,
    test: data.Dataset,
    state: updates.State | None = None,
) -> Iterator[loop.Progress]:
    """Trains a model; update t is a function of settings and t, so that a training can resume from any state.

    Args:
      model: the model, built with `axis_name=devices.AXIS` if batch statistics should be those of all devices.
      settings: settings of the training.
      train: training split.
      test: split to evaluate on.
      state: state to resume from; by default the training starts at the beginning.

    Yields:
      The progress after every update.

    Warns:
      UserWarning: see `backward_residual.warned` and `chance.warned`.
    """
    state = init(model, settings) if state is None else state
    if isinstance(model, types.Model):
        model = models.with_cell_dtype(model, settings.dtype)
        model = models.with_injection_dtype(model, settings.injection_dtype or "float32")
    run = loop.run(
        state,
        settings,
        train,
        functools.partial(gradient_fn, model=model, settings=settings),
        schedules.tasks(settings, len(train), int(state.update)),
        evaluation.evaluator(model, settings, test, devices.mesh()),
    )
    yield from chance.warned(backward_residual.warned(run, settings), settings, model.num_classes)
