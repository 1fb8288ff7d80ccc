"""The compiled sampling of a batch of images: rows of lanes over devices on one side, votes by image on the other.

A program is compiled once for a data set: images, their indices, the phase and the samples are arguments.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import config, devices, models, solvers, types
from deqsmooth.models import base_classifier, checkpoints, starts
from deqsmooth.smoothing import continuous_batching, kernels, noise

Classifier = checkpoints.Checkpoint | Callable[[types.Images], types.Logits]


class Votes(NamedTuple):
    """What leaves the devices of one call, in the order of the samples.

    Attributes:
      votes: class of every sample, or the number of classes if not finite [images, samples].
      residual: see `kernels.Info` [images, samples].
      evaluations: spent on each sample [images, samples].
      fallbacks: of each sample [images, samples].
      warm_up: evaluations spent on first states [images].
    """

    votes: np.ndarray
    residual: np.ndarray
    evaluations: np.ndarray
    fallbacks: np.ndarray
    warm_up: np.ndarray


class Programs:
    """The compiled sampling programs of a run, for batches of one size.

    Attributes:
      num_traces: how often a program was traced; constant after the first batch.
    """

    def __init__(self, classifier, settings, mesh, image_shape):
        self.settings = settings
        self._mesh = mesh
        self._image_shape = image_shape
        self.num_traces = 0
        model = classifier.model if isinstance(classifier, checkpoints.Checkpoint) else None
        if isinstance(model, types.Model):
            self._data = jax.tree.map(jnp.asarray, classifier.variables)
            self._sampler, self._reference = _kernels(model, classifier.start, settings)
            self._queue = _queue(model, classifier.start, settings) if settings.refills else None
            self.num_classes, self.solves = model.num_classes, True
        else:
            self._data = _as_function(classifier, model)
            self._sampler = lambda fn: kernels.independent(functools.partial(base_classifier.explicit, fn))
            self._reference = self._queue = None
            self.num_classes, self.solves = _num_classes(self._data, image_shape), False
        self._run = jax.jit(self._trace, static_argnames="reference")
        self._compiled: dict[tuple[bool, int], Any] = {}
        self.compile()

    def compile(self) -> None:
        """Compiles what a batch needs, so that no image pays for it."""
        settings = self.settings
        images = np.zeros((settings.images_per_batch, *self._image_shape), np.float32)
        indices = np.zeros(settings.images_per_batch, np.uint32)
        for reference, num_samples in self._phases().values():
            if (reference, num_samples) not in self._compiled:
                samples = np.zeros((settings.images_per_batch, num_samples), np.int32)
                arguments = (self._data, images, indices, indices, self._grid(samples))
                lowered = self._run.lower(*arguments, reference=reference)
                self._compiled[reference, num_samples] = lowered.compile()

    def expected_seconds(self, image: np.ndarray) -> float:
        """Seconds that an image [H, W, C] will take at most, from one call whose votes are dropped."""
        settings = self.settings
        num = settings.num_selection if settings.sampler == "serial" else settings.lanes
        batch = settings.images_per_batch
        nothing = np.zeros(batch, np.uint32)
        begun = time.perf_counter()
        votes = self(np.repeat(image[None], batch, 0), nothing, nothing, np.tile(np.arange(num), (batch, 1)))
        seconds = time.perf_counter() - begun
        if settings.sampler == "independent":
            return seconds / (batch * num) * (settings.num_selection + settings.num_estimation)
        return seconds / (votes.evaluations.sum() + votes.warm_up.sum()) * settings.evaluations

    def memory(self) -> dict[str, int]:
        """Bytes that a device needs for each phase, beside the program's arguments."""
        return {
            phase: self._compiled[key].memory_analysis().temp_size_in_bytes
            for phase, key in self._phases().items()
        }

    def _phases(self) -> dict[str, tuple[bool, int]]:
        settings = self.settings
        if settings.sampler == "independent":
            return {"samples": (False, settings.lanes)}
        return {
            "selection": (False, settings.num_selection),
            "estimation": (False, settings.num_estimation),
            "audit": (True, settings.num_audit),
        }

    def __call__(self, images, indices, phases, samples, *, reference: bool = False) -> Votes:
        """Votes on samples [images, num], each image in a phase of its own; there may be fewer than a batch."""
        num_images, num_samples = samples.shape
        missing = self.settings.images_per_batch - num_images
        images, indices, phases, samples = (
            np.concatenate([x, np.repeat(x[-1:], missing, 0)])
            for x in (images, indices.astype(np.uint32), phases.astype(np.uint32), samples.astype(np.int32))
        )
        run = self._compiled[reference, num_samples]
        batch, lanes = self.settings.images_per_batch, self.settings.lanes
        found = jax.device_get(run(self._data, images, indices, phases, self._grid(samples)))
        info, warm_up = jax.tree.map(lambda x: x[: batch * lanes].reshape(batch, lanes, *x.shape[1:]), found)
        # [images, lanes, steps] in the order of the samples, without those that filled the grid.
        votes, residual, evaluations, fallbacks = (
            np.swapaxes(x, 1, 2).reshape(len(x), -1)[:num_images, :num_samples] for x in info
        )
        return Votes(votes, residual, evaluations, fallbacks, warm_up[:num_images].sum(1, dtype=np.int64))

    def _grid(self, samples: np.ndarray) -> np.ndarray:
        """Samples [images, num] as [images, lanes, steps]; the last ones are repeated to fill it."""
        lanes = self.settings.lanes
        steps = -(-samples.shape[1] // lanes)
        filled = np.pad(samples, ((0, 0), (0, steps * lanes - samples.shape[1])), mode="edge")
        return np.swapaxes(filled.reshape(len(samples), steps, lanes), 1, 2)

    # On accelerators JAX multiplies float32 in fewer bits, unless told not to.
    @jax.default_matmul_precision("highest")
    def _trace(self, data, images, indices, phases, samples, *, reference):
        self.num_traces += 1
        settings = self.settings
        num_images, lanes, steps = samples.shape
        # Filled here and cut on the host, so that the devices have nothing to exchange.
        rows = devices.pad(
            {"place": jnp.repeat(jnp.arange(num_images), lanes), "samples": samples.reshape(-1, steps)},
            self._mesh.size * (settings.block if self._queue is None else 1),
        )
        kernel_of = self._reference if reference else self._sampler

        def lanes_of(shared, rows):
            _, images, indices, phases = shared
            place = rows["place"]
            keys = jax.vmap(functools.partial(noise.phase_key, settings.seed))(indices[place], phases[place])
            return images[place], keys

        def on_block(shared, rows):
            images, keys = lanes_of(shared, rows)
            found = kernels.run(kernel_of(shared[0]), images, keys, rows["samples"].T, settings.sigma)
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), found)

        def on_device(shared, rows):
            def noisy(chosen):
                rows_chosen = jax.tree.map(lambda x: x[chosen], rows)
                images, keys = lanes_of(shared, rows_chosen)
                return kernels.noisy(images, keys, rows_chosen["samples"][:, 0], settings.sigma)

            found = self._queue(shared[0], noisy, len(rows["place"]))
            return jax.tree.map(lambda x: x[:, None], found), jnp.zeros(len(rows["place"]), jnp.int32)

        shared = (data, images, indices, phases)
        if self._queue is None:
            return devices.map_blocks(on_block, shared, rows, settings.block, self._mesh)
        return devices.map_devices(on_device, shared, rows, self._mesh)


def _kernels(model: types.Model, trained_start: config.StartTraining | None, settings: config.Smoothing):
    """Functions from the variables to the kernels of the sampler and of the reference."""
    model = models.with_cell_dtype(model, settings.dtype)
    solver = solver_of(settings)

    def cold(variables, budgeted, start="zero"):
        begin = start_of(start, trained_start, model, variables)
        return functools.partial(base_classifier.classify, model, variables, budgeted, start=begin)

    if settings.sampler == "independent":
        return lambda variables: kernels.independent(cold(variables, solver, settings.start)), None
    warm_up = solvers.build(settings.warmup_solver or settings.solver, settings.warmup_budget)
    reference = solvers.build(settings.solver, settings.reference_budget)

    def serial(variables):
        def classify(images, z):
            return base_classifier.classify(model, variables, solver, images, starts.state(z))

        return kernels.serial(cold(variables, warm_up), classify, settings.start, settings.warmup_interval)

    return serial, lambda variables: kernels.independent(cold(variables, reference))


def _queue(model: types.Model, trained_start: config.StartTraining | None, settings: config.Smoothing):
    """The function (variables, numbers of rows -> noisy images, number of rows) -> info of the rows."""
    model = models.with_cell_dtype(model, settings.dtype)

    def run(variables, noisy, num_rows):
        start = start_of(settings.start, trained_start, model, variables)
        return continuous_batching.run(
            model, variables, solver_of(settings), start, noisy, num_rows, cast(int, settings.block)
        )

    return run


def solver_of(settings: config.Smoothing) -> Any:
    """The solver of a sample."""
    return solvers.build(settings.solver, settings.budget, settings.tolerance)


def start_of(name: str, trained: config.StartTraining | None, model, variables) -> base_classifier.Start:
    """A start that depends on the noisy input alone, by its name."""
    if name == "zero":
        return starts.zero(model)
    if name == "constant":
        return starts.constant(model, variables["start"]["mean"])
    return starts.learned(models.build_start(trained.network, model), variables["start"]["network"])


def _as_function(classifier: Classifier, model: types.Explicit | None) -> jax.tree_util.Partial:
    """An explicit classifier as a function of images that carries its parameters as arguments."""
    if isinstance(classifier, checkpoints.Checkpoint):
        variables = jax.tree.map(jnp.asarray, classifier.variables)
        return jax.tree_util.Partial(lambda variables, images: model.apply(variables, images, False)[0], variables)
    if isinstance(classifier, jax.tree_util.Partial):
        return classifier
    return jax.tree_util.Partial(classifier)


def _num_classes(fn, image_shape) -> int:
    logits = jax.eval_shape(fn, jax.ShapeDtypeStruct((2, *image_shape), jnp.float32))
    if getattr(logits, "shape", ())[:1] != (2,) or len(logits.shape) != 2:
        raise ValueError(f"the classifier gives {logits} for 2 images; it must give logits [2, classes]")
    return logits.shape[1]
