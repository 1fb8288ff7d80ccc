"""Evaluation of a model during training: takes variables, gives accuracy and convergence on a test split."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deqsmooth import config, data, devices, solvers, types
from deqsmooth.models import base_classifier, starts
from deqsmooth.smoothing import noise
from deqsmooth.solvers import jacobian

_KEY = 2
BLOCK = 100
"""Rows in one compiled evaluation."""
_NUM_IMAGES = 500
_NUM_SAMPLES = 1500
_SPECTRAL_LANES = 64


class Evaluation(NamedTuple):
    """Results of a model on a test split, solved from zero by `reference_budget` steps of Anderson mixing.

    Attributes:
      clean_accuracy: accuracy without noise.
      noisy_accuracy: accuracy under noise, over a few draws per image.
      median_residual: median relative residual of the returned states under noise; None for an explicit model.
      spectral_radius: median estimate of the spectral radius of the cell's Jacobian at these states; None for an
        explicit model.
    """

    clean_accuracy: float
    noisy_accuracy: float
    median_residual: float | None = None
    spectral_radius: float | None = None


def sample(dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns up to 500 evenly spaced images, their labels, and the number of noise draws for each image."""
    images, labels = dataset.take(range(0, len(dataset), -(-len(dataset) // _NUM_IMAGES)))
    return images, labels, max(1, _NUM_SAMPLES // len(images))


def rows_of(num_images: int, draws: range) -> dict[str, np.ndarray]:
    """Returns the images of rows and the numbers of their draws, one row for each image and draw; see `noisy`."""
    return {
        "image": np.tile(np.arange(num_images, dtype=np.int32), len(draws)),
        "draw": np.repeat(np.asarray(draws, np.int32), num_images),
    }


def noisy(images: jax.Array, rows: devices.Rows, settings: config.Descent) -> tuple[types.Images, types.Keys]:
    """The images of rows with their noise, of which draw 0 has none, and the keys of the noise.

    Every training with the same seed evaluates on the same noise.
    """
    key = jax.random.fold_in(jax.random.key(settings.seed), _KEY)
    keys = jax.vmap(lambda image: jax.random.fold_in(key, image))(rows["image"])
    scale = settings.sigma * (rows["draw"] > 0)
    draw = noise.gaussian(keys, rows["draw"], images.shape[1:])
    return images[rows["image"]] + scale[:, None, None, None] * draw, keys


def evaluator(
    model: types.Model | types.Explicit, settings: config.Training, dataset: data.Dataset, mesh: Mesh
) -> Callable[[types.Variables], Evaluation]:
    """Returns a function that evaluates variables on up to 500 evenly spaced images of a test split."""
    solver = solvers.build("anderson", settings.reference_budget)
    images, labels, num_draws = sample(dataset)
    rows = rows_of(len(images), range(num_draws + 1))
    noisy_rows = rows["draw"] > 0

    def solve(
        shared: tuple[types.Variables, jax.Array], rows: devices.Rows
    ) -> tuple[types.Images, types.Keys, base_classifier.Output]:
        variables, images = shared
        drawn, keys = noisy(images, rows, settings)
        return drawn, keys, classify(variables, drawn)

    def classify(variables: types.Variables, images: types.Images) -> base_classifier.Output:
        if isinstance(model, types.Explicit):
            return base_classifier.explicit(lambda x: model.apply(variables, x, False)[0], images)
        return base_classifier.classify(
            model, variables, solver, images, starts.zero(model), measure_residual=True
        )

    def on_block(
        shared: tuple[types.Variables, jax.Array], rows: devices.Rows
    ) -> tuple[types.Labels, types.PerLane]:
        _, _, output = solve(shared, rows)
        return jnp.argmax(output.logits, -1), output.solution.residual

    @jax.jit
    def run(variables: types.Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        return devices.map_blocks(on_block, (variables, images), rows, BLOCK, mesh)

    @functools.partial(jax.jit, static_argnums=0)
    def spectral_radius(model: types.Model, variables: types.Variables, images: jax.Array) -> types.PerLane:
        few = {name: jnp.asarray(x[noisy_rows][:_SPECTRAL_LANES]) for name, x in rows.items()}
        drawn, keys, output = solve((variables, images), few)
        u, _ = model.inject(variables, drawn, None)
        return jacobian.spectral_radius(model.cell, model.bind(variables), output.solution.value, u, keys)

    def evaluate(variables: types.Variables) -> Evaluation:
        predicted, residual = jax.device_get(run(variables, images))
        correct = predicted == labels[rows["image"]]
        accuracies = float(correct[~noisy_rows].mean()), float(correct[noisy_rows].mean())
        if isinstance(model, types.Explicit):
            return Evaluation(*accuracies)
        return Evaluation(
            *accuracies,
            float(np.median(residual[noisy_rows])),
            float(np.median(spectral_radius(model, variables, images))),
        )

    return evaluate
