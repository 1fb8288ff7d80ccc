"""Training of a start: takes a trained model, gives it the starts `learned` and `constant`.

A start network is trained so that a short solve from its prediction gives the result of a long solve from zero.
Both starts depend only on the noisy input, so standard smoothing certifies the classifier with the short solve.
The model does not change, or it is fine-tuned for the short solve together with its start. The teacher, which
makes the long solves, is the model before this training.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from deqsmooth import config, data, devices, models, solvers, types
from deqsmooth.config import checks
from deqsmooth.models import base_classifier, classifiers, parts, starts
from deqsmooth.smoothing import proof
from deqsmooth.solvers import per_lane
from deqsmooth.training import evaluation, loop, updates

_INIT, _MEAN = 3, 5
_NUM_MEAN = 2000


class Metrics(NamedTuple):
    """Means over the batch of an update, with the parameters before the update.

    Attributes:
      loss: see `loss_fn`.
      agreement: fraction of noisy images for which short and long solve give the same class.
      distance: |z - z*|^2 / |z*|^2 of the states z of the short and z* of the long solve.
      gradient_norm: global norm of the gradient before clipping, not a mean; None before the loop computes it.
    """

    loss: jax.Array
    agreement: jax.Array
    distance: jax.Array
    gradient_norm: jax.Array | None = None


class Evaluation(NamedTuple):
    """Results of the short solve from the learned start on noisy test images.

    Attributes:
      agreement: fraction of images for which it gives the class of the teacher's long solve.
      accuracy: accuracy of the short solve.
      reference_accuracy: accuracy of the teacher's long solve.
    """

    agreement: float
    accuracy: float
    reference_accuracy: float


def check(classifier: classifiers.Classifier, settings: config.StartTraining) -> None:
    """Checks that a start can be trained for a classifier with an equilibrium, before anything is computed.

    Args:
      classifier: the classifier.
      settings: settings of the training.

    Raises:
      ValueError: its variables are no dictionary, or its functions do not fit together; no start network gives the
        shapes of its state, see `models.start_network.start`; with `settle_weight` it has no constants; or with
        `fine_tune` it has no start of this network, or no parameters.
    """
    model, variables, start = classifier.model, classifier.variables, classifier.start_training
    assert isinstance(model, types.Model)
    rule = "a dictionary, to which the start is added"
    checks.holds(isinstance(variables, Mapping), "the variables", f"of type {type(variables).__name__}", rule)
    if classifier.size is None:
        parts.check(model, variables)
    models.build_start(settings.network, model)
    if settings.settle_weight is not None and not isinstance(model.contraction, types.Contraction):
        raise ValueError(
            f"settle_weight is {settings.settle_weight}; it must be left out for a model whose cell is no "
            "contraction in L2"
        )
    if settings.fine_tune is not None and (start is None or start.network != settings.network):
        raise ValueError(
            f"fine_tune is {settings.fine_tune}; it needs a trained start of {settings.network}, and the "
            f"checkpoint has {'none' if start is None else f'one of {start.network}'}"
        )
    has_params = settings.fine_tune is None or "params" in variables
    rule = "a dictionary with the entry 'params', which is fine-tuned"
    checks.holds(has_params, "the variables", list(variables), rule)


def init(model: types.Model, variables: types.Variables, settings: config.StartTraining) -> updates.State:
    """Returns the state before the first update.

    Args:
      model: the model.
      variables: variables of the model; with `fine_tune` also those of its start.
      settings: settings of the training.

    Returns:
      A state whose `params` are the parameters of the `network`, and with `fine_tune` also of the `model`.
    """
    if settings.fine_tune is None:
        network = models.build_start(settings.network, model)
        params = {"network": network.init(jax.random.fold_in(jax.random.key(settings.seed), _INIT))}
    else:
        # A copy: the first update donates the buffers of its state.
        params = jax.tree.map(jnp.array, {"network": variables["start"]["network"], "model": variables["params"]})
    return updates.init({"params": params}, settings)


def trained(teacher: types.Variables, params: types.Parameters) -> types.Variables:
    """Returns the variables of the model: those of the teacher, with the parameters that were fine-tuned."""
    return {**teacher, "params": params["model"]} if "model" in params else teacher


def loss_fn(
    params: types.Parameters,
    variables: types.Variables,
    images: types.Images,
    labels: types.Labels,
    keys: types.Keys,
    teacher: types.Variables,
    task: None,
    *,
    model: types.Model,
    settings: config.StartTraining,
    constants: proof.Proof | None = None,
) -> tuple[jax.Array, tuple[types.Variables, Metrics]]:
    """Computes the loss of a batch.

    The loss is the Kullback-Leibler divergence KL(p || q), plus the weighted distance of the states; see
    `Metrics`. Here p are the class probabilities of the teacher's long solve and q those of the short solve. With
    `fine_tune`, the weighted cross-entropy of the labels is added (distillation, Hinton et al. 2015); with
    `settle_weight`, weighted, what is left to prove after the short solve.

    Args:
      params: parameters; see `init`.
      variables: variables of the state, which are returned unchanged.
      images: clean images [lanes, H, W, C].
      labels: classes [lanes].
      keys: one key a lane, for its noise.
      teacher: variables of the model before the first update.
      task: not used, because all updates have the same task.
      model: the model.
      settings: settings of the training.
      constants: of the teacher, with `settle_weight`.
    """
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))
    noisy = images + settings.sigma * draw(keys)
    target = lax.stop_gradient(_long_solve(model, teacher, settings, noisy))
    found = _short_solve(model, teacher, settings, params, noisy)
    difference = jax.tree.map(jnp.subtract, found.solution.value, target.solution.value)
    size = per_lane.dot(target.solution.value, target.solution.value)
    distance = jnp.mean(per_lane.dot(difference, difference) / (size + 1e-8))
    divergence = jnp.mean(optax.kl_divergence(jax.nn.log_softmax(found.logits), jax.nn.softmax(target.logits)))
    loss = divergence + settings.distance_weight * distance
    if settings.fine_tune is not None:
        entropy = optax.softmax_cross_entropy_with_integer_labels(found.logits, labels)
        loss = loss + settings.fine_tune * jnp.mean(entropy)
    if settings.settle_weight is not None and constants is not None:
        loss = loss + settings.settle_weight * jnp.mean(constants.remaining(found.solution, found.logits))
    same = jnp.argmax(found.logits, -1) == jnp.argmax(target.logits, -1)
    agreement = jnp.mean(same.astype(jnp.float32))
    return loss, (variables, Metrics(loss, agreement, distance))


def evaluator(
    model: types.Model, teacher: types.Variables, settings: config.StartTraining, dataset: data.Dataset, mesh: Mesh
) -> Callable[[types.Variables], Evaluation]:
    """Returns a function that evaluates variables of a state on up to 500 evenly spaced images of a test split."""
    images, labels, num_draws = evaluation.sample(dataset)
    rows = evaluation.rows_of(len(images), range(1, num_draws + 1))

    def on_block(
        shared: tuple[types.Variables, types.Parameters, jax.Array], rows: devices.Rows
    ) -> tuple[jax.Array, ...]:
        teacher, params, images = shared
        noisy, _ = evaluation.noisy(images, rows, settings)
        found = (
            _short_solve(model, teacher, settings, params, noisy),
            _long_solve(model, teacher, settings, noisy),
        )
        return tuple(jnp.argmax(output.logits, -1) for output in found)

    @jax.jit
    def run(
        teacher: types.Variables, params: types.Parameters, images: types.Images
    ) -> tuple[jax.Array, jax.Array]:
        return devices.map_blocks(on_block, (teacher, params, images), rows, evaluation.BLOCK, mesh)

    def evaluate(variables: types.Variables) -> Evaluation:
        short, long = jax.device_get(run(teacher, variables["params"], images))
        correct = labels[rows["image"]]
        fractions = [(a == b).mean() for a, b in ((short, long), (short, correct), (long, correct))]
        return Evaluation(*map(float, fractions))

    return evaluate


def fit(
    model: types.Model,
    teacher: types.Variables,
    settings: config.StartTraining,
    train: data.Dataset,
    test: data.Dataset,
    state: updates.State | None = None,
) -> Iterator[loop.Progress]:
    """Trains the start network of a model, and with `fine_tune` also the model.

    Args:
      model: the model.
      teacher: variables of the model before the training.
      settings: settings of the training.
      train: training split.
      test: split to evaluate on.
      state: state to resume from; by default the training starts at the beginning.

    Yields:
      The progress after every update.
    """
    state = init(model, teacher, settings) if state is None else state
    model = models.with_cell_dtype(model, settings.dtype)
    mesh = devices.mesh_of_all(settings.batch_size)
    shared = jax.device_put(teacher, devices.replicated(mesh))
    constants = None if settings.settle_weight is None else proof.constants(model, teacher)
    num_remaining = loop.num_updates(settings, len(train)) - int(state.update)
    yield from loop.run(
        state,
        settings,
        train,
        jax.grad(functools.partial(loss_fn, model=model, settings=settings, constants=constants), has_aux=True),
        itertools.repeat((None, shared), num_remaining),
        evaluator(model, teacher, settings, test, devices.mesh()),
    )


def mean_equilibrium(
    model: types.Model, variables: types.Variables, settings: config.StartTraining, train: data.Dataset
) -> types.State:
    """Returns the mean equilibrium of 2,000 noisy training images, leaves [1, ...]: the start `constant`."""
    model = models.with_cell_dtype(model, settings.dtype)
    key = jax.random.fold_in(jax.random.key(settings.seed), _MEAN)

    @jax.jit
    def mean(variables: types.Variables, key: types.RandomKey, images: types.Images) -> types.State:
        noisy = images + settings.sigma * jax.random.normal(key, images.shape, jnp.float32)
        equilibria = _long_solve(model, variables, settings, noisy).solution.value
        return jax.tree.map(lambda x: jnp.mean(x, 0, keepdims=True), equilibria)

    stream = data.batches(train, evaluation.BLOCK, seed=settings.seed)
    keys = jax.random.split(key, _NUM_MEAN // evaluation.BLOCK)
    means = [mean(variables, key, images) for key, (images, _) in zip(keys, stream, strict=False)]
    return jax.tree.map(lambda *leaves: np.mean(jax.device_get(leaves), 0), *means)


def _short_solve(
    model: types.Model,
    teacher: types.Variables,
    settings: config.StartTraining,
    params: types.Parameters,
    images: types.Images,
) -> base_classifier.Output:
    """Classifies images by the short solve from the learned start, which is trained."""
    network = models.build_start(settings.network, model)
    solver = solvers.build(settings.solver, settings.budget)
    start = starts.learned(network, params["network"])
    return base_classifier.classify(model, trained(teacher, params), solver, images, start)


def _long_solve(
    model: types.Model, variables: types.Variables, settings: config.StartTraining, images: types.Images
) -> base_classifier.Output:
    """Classifies images by the long solve from zero, which is the target."""
    solver = solvers.build("anderson", settings.reference_budget)
    return base_classifier.classify(model, variables, solver, images, starts.zero(model))
