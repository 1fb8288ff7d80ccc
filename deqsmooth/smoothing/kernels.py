"""Kernels: the scan that draws the votes of one block of lanes, serial (SRS) or independent (standard smoothing).

Takes images, one a lane, and a classifier; gives the vote and the solve statistics of every sample. A kernel is a
pair of pure functions: `init` builds the state that lanes carry from sample to sample, `step` classifies one
sample of every lane (Gao et al. 2024, section 4.2; Cohen et al. 2019, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqsmooth import types
from deqsmooth.models import base_classifier
from deqsmooth.smoothing import noise
from deqsmooth.solvers import per_lane


class Info(NamedTuple):
    """What is recorded of one sample in every lane.

    Attributes:
      votes: class, or the number of classes if the logits are not finite: that bin never wins [lanes], int32.
      residual: see `ds.Solution`; NaN for a classifier that solves nothing.
      num_evaluations: evaluations of the cell, or of the classifier if it is explicit.
      num_fallbacks: see `ds.Solution`.
    """

    votes: types.Labels
    residual: types.PerLane
    num_evaluations: types.Counts
    num_fallbacks: types.Counts


class Kernel(NamedTuple):
    """A sampler of one block of lanes.

    Attributes:
      init: (clean images, images with the first sample's noise) -> (state, evaluations spent [lanes]).
      step: (state, noisy images) -> (state, info).
    """

    init: Callable[[types.Images, types.Images], tuple[types.State, types.Counts]]
    step: Callable[[types.State, types.Images], tuple[types.State, Info]]


def info(output: base_classifier.Output) -> Info:
    """The vote and the solve statistics of a classified sample. Of equal logits the lowest class gets the vote."""
    num_classes = output.logits.shape[-1]
    finite = jnp.all(jnp.isfinite(output.logits), -1)
    votes = jnp.where(finite, jnp.argmax(output.logits, -1), num_classes).astype(jnp.int32)
    return Info(votes, *output.solution[1:])


def nothing(*shape: int) -> Info:
    """The record before any sample: 0 everywhere, leaves of the shape."""
    counts, residual = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
    return Info(counts, residual, counts, counts)


def independent(classify: Callable[[types.Images], base_classifier.Output]) -> Kernel:
    """Standard randomized smoothing (Cohen et al. 2019): every sample by itself, and lanes carry nothing.

    Args:
      classify: classifies images from a start that is a function of the image.
    """

    def init(images: types.Images, noisy: types.Images) -> tuple[types.State, types.Counts]:
        return (), jnp.zeros(len(images), jnp.int32)

    def step(state: types.State, noisy: types.Images) -> tuple[types.State, Info]:
        return state, info(classify(noisy))

    return Kernel(init, step)


def serial(
    warm_up: Callable[[types.Images], base_classifier.Output],
    classify: Callable[[types.Images, types.State], base_classifier.Output],
    start: str,
) -> Kernel:
    """Serialized randomized smoothing: every solve starts from another sample's equilibrium.

    See Gao et al. 2024, section 4.2. Its votes are not independent, and the classifier is no function of its
    input. They give a bound only together with an audit; see `deqsmooth.statistics.bounds.audited_lower`.

    Args:
      warm_up: classifies images from a start that is a function of the image; its solution is the first state of a
        lane. Its logits are not used.
      classify: classifies images from given states.
      start: initial state of a sample's solve. `previous`: the lane's last finite solution, at first that of
        the warm-up. `first`: always the solution of the warm-up on the lane's first sample. `clean`: always the
        solution of the warm-up on the image without noise.
    """

    def init(images: types.Images, noisy: types.Images) -> tuple[types.State, types.Counts]:
        solution = warm_up(images if start == "clean" else noisy).solution
        return solution.value, solution.num_evaluations

    def step(state: types.State, noisy: types.Images) -> tuple[types.State, Info]:
        output = classify(noisy, state)
        if start == "previous":
            found = output.solution.value
            state = per_lane.select(per_lane.is_finite(found), found, state)
        return state, info(output)

    return Kernel(init, step)


def run(
    kernel: Kernel,
    images: types.Images,
    keys: types.Keys,
    samples: jax.Array,
    sigma: float,
    grid: int | None = None,
) -> tuple[Info, types.Counts]:
    """Draws the votes of a block of lanes.

    Args:
      kernel: sampler.
      images: clean image of every lane [lanes, H, W, C].
      keys: phase key of every lane's image [lanes]; see `deqsmooth.smoothing.noise.phase_key`.
      samples: sample index of every step and lane [steps, lanes], int32.
      sigma: standard deviation of the noise.
      grid: see `deqsmooth.smoothing.noise.noisy`.

    Returns:
      Info with leaves [steps, lanes], and the evaluations that the first states took [lanes].

    Example:
      >>> def classify(images):
      ...     scores = images.mean((1, 2)) @ jnp.array([[1, -1]]) - 0.1
      ...     return base_classifier.explicit(lambda _: scores, images)
      >>> images = jnp.full((3, 8, 8, 1), 0.6)
      >>> keys = jnp.stack([noise.phase_key(0, 0, noise.ESTIMATION)] * 3)
      >>> samples = jnp.arange(12, dtype=jnp.int32).reshape(4, 3)
      >>> found, warm_up = run(independent(classify), images, keys, samples, 0.25)
      >>> jnp.bincount(found.votes.ravel(), length=3).tolist()
      [12, 0, 0]
    """

    def step(state: types.State, index: jax.Array) -> tuple[types.State, Info]:
        return kernel.step(state, noise.noisy(images, keys, index, sigma, grid))

    state, evaluations = kernel.init(images, noise.noisy(images, keys, samples[0], sigma, grid))
    _, found = lax.scan(step, state, samples)
    return found, evaluations
