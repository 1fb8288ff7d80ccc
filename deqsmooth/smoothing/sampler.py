"""The sampler: compiled programs that draw noisy copies of a batch of images and give their votes.

A program is compiled once for a run: images, their indices, the phase and the sample indices are arguments. On the
devices the samples of a batch are arranged in rows, each a lane of one image; on the host they are ordered by
image and sample.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from deqsmooth import arithmetic, config, devices, types
from deqsmooth.models import classifiers
from deqsmooth.smoothing import arrangement, assembly, contract, kernels, layout, noise, refinement

Program = Callable[..., tuple[kernels.Info, jax.Array]]
"""(parameters, images [B, H, W, C], indices [B], phases [B], whether an image is asked for [B], samples [B, lanes,
steps], equilibria of the images without noise [B, ...] or None) -> (info [rows, steps], evaluations of first
states [rows]), rows being lanes of images, and possibly padding. What is said
of images that are not asked for means nothing."""


class Votes(NamedTuple):
    """The result of one call, in the order of the samples.

    Attributes:
      votes: class of every sample, or the number of classes if its logits are not finite or it is not settled
        [images, samples].
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


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a run, made by `deqsmooth.smoothing.certification.prepare`.

    Attributes:
      settings: of the run, for batches of `settings.images_per_batch` images.
      classifier: SHA-256 of the classifier.
      assembly: the functions that were compiled.
      parameters: those of the assembly, on every device.
      compiled: programs by (whether with the reference, samples of an image).
      num_devices: for which they were compiled.
      clean: (parameters, images [B, H, W, C]) -> solutions from which the samples of an image start, or None.
      refine: settles votes that those programs leave unsettled; or None.
    """

    settings: assembly.Resolved
    classifier: str
    assembly: assembly.Assembly
    parameters: Any
    compiled: Mapping[tuple[bool, int], Any]
    num_devices: int
    clean: Any = None
    refine: refinement.Program | None = None

    def check(self, classifier: classifiers.Classifier, settings: config.Smoothing) -> None:
        """Raises `ValueError` unless these were compiled for a classifier and settings, whatever their layout."""
        own = self.settings
        asked = layout.resolve(
            dataclasses.replace(settings, block=own.block, images_per_batch=own.images_per_batch)
        )
        if classifier.sha256 != self.classifier or asked != own:
            raise ValueError("programs were compiled for another classifier or other settings than are given")

    def check_bits(self, image: np.ndarray) -> None:
        """Checks that samples of exact noise are classified alike, bit for bit, in every lane and place of a call.

        Exact noise makes a certificate exact only if the base classifier is one function of its input in every
        bit. The votes and residuals of the same samples are compared in several orders, or of a classifier that
        solves nothing the logits. Where votes are settled by proof, only they must be equal: the proof covers all
        rounding but that of the injection.

        Args:
          image: one that the classifier takes, float32 [H, W, C].

        Raises:
          ValueError: they differ.
        """
        if self.settings.noise != "exact":
            return
        if not self.assembly.solves:
            contract.check_bits(self.assembly.logits, self.assembly.parameters, image, self.settings.block)
            return
        reference = self.assembly.serial is not None
        (num,) = {num for is_reference, num in phases(self.settings).values() if is_reference == reference}
        batch = self.settings.images_per_batch
        images, places, samples = np.stack([image] * batch), np.arange(batch), np.arange(num)

        def drawn(order_of_images: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
            found = self(
                images,
                order_of_images,
                np.full(batch, noise.ESTIMATION),
                np.stack([order] * batch),
                reference=reference,
            )
            back = np.ix_(np.argsort(order_of_images), np.argsort(order))
            return [found.votes[back], *([] if self.settings.settle else [found.residual[back]])]

        first = drawn(places, samples)
        for step in (1, num // 2 + 1):
            again = drawn(np.roll(places, 1), np.roll(samples, step)[::-1])
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again, strict=True)):
                raise ValueError(contract.LANES_DIFFER)

    def __call__(self, *arguments: np.ndarray, reference: bool = False) -> Votes:
        """Draws samples of images and gives their votes; takes what `start` does."""
        return self.start(*arguments, reference=reference)()

    def start(
        self,
        images: np.ndarray,
        indices: np.ndarray,
        phases: np.ndarray,
        samples: np.ndarray,
        *,
        reference: bool = False,
    ) -> Callable[[], Votes]:
        """Lets the devices begin to draw samples of images; gives a function that waits for their votes.

        Args:
          images: float32 [num, H, W, C]; at most as many as a batch holds.
          indices: of the images in their data set [num].
          phases: of the noise, one an image [num].
          samples: sample indices [num, samples], as many as a program was compiled for.
          reference: whether the audit's reference classifies.
        """
        num_images, num_samples = samples.shape
        batch, lanes = self.settings.images_per_batch, self.settings.lanes
        places = arrangement.places(num_images, batch, self.num_devices)
        # Other places have copies of the last image, which are not asked for.
        copied, is_asked = np.full(batch, num_images - 1), np.zeros(batch, bool)
        copied[places], is_asked[places] = np.arange(num_images), True
        as_given = (images, indices.astype(np.uint32), phases.astype(np.uint32), samples.astype(np.int32))
        *arguments, filled = (x[copied] for x in as_given)
        program = self.compiled[reference, num_samples]
        with arithmetic.standard():
            clean = None if self.clean is None else self.clean(self.assembly.parameters, arguments[0])
            state = None if clean is None else clean.value
            running = program(self.parameters, *arguments, is_asked, arrangement.grid(filled, lanes), state)

        def read() -> Votes:
            found = jax.device_get(running)
            info, warm_up = jax.tree.map(lambda x: arrangement.of_images(x, places, batch, lanes), found)
            votes, residual, evaluations, fallbacks = (arrangement.in_order(x, num_samples) for x in info)
            drawn = (votes, residual, evaluations, fallbacks)
            if self.refine is not None:
                drawn = self.refine(self.assembly.parameters, drawn, images, indices, phases, samples)
            first = warm_up.sum(1, dtype=np.int64)
            if clean is not None:
                first = first + np.asarray(clean.num_evaluations)[places]
            return Votes(*drawn, first)

        return read


@arithmetic.standard()
def compile_programs(
    classifier: classifiers.Classifier, settings: assembly.Resolved, image_shape: tuple[int, ...], mesh: Mesh
) -> Programs:
    """Compiles every program that a run needs, so that no image pays for it.

    Args:
      classifier: the classifier.
      settings: of the run.
      image_shape: [H, W, C].
      mesh: devices, along one axis.

    Raises:
      ValueError: see `assembly.assemble`.
    """
    parts = assembly.assemble(classifier, settings, image_shape)
    images = np.zeros((settings.images_per_batch, *image_shape), np.float32)
    indices = np.zeros(settings.images_per_batch, np.uint32)
    is_asked = np.zeros(settings.images_per_batch, bool)
    clean = state = None
    if parts.clean is not None:
        clean = jax.jit(parts.clean).lower(parts.parameters, images).compile()
        state = jax.eval_shape(parts.clean, parts.parameters, images).value
    parameters = jax.device_put(parts.parameters, devices.replicated(mesh))
    compiled = {}
    for reference, num_samples in phases(settings).values():
        if (reference, num_samples) not in compiled:
            samples = arrangement.grid(
                np.zeros((settings.images_per_batch, num_samples), np.int32), settings.lanes
            )
            program = jax.jit(_program(parts, settings, mesh, reference))
            lowered = program.lower(parameters, images, indices, indices, is_asked, samples, state)
            compiled[reference, num_samples] = lowered.compile()
    refine = None
    if parts.refine is not None:
        refine = refinement.compile_program(
            parts.refine, parts.parameters, settings, image_shape, parts.num_classes
        )
    return Programs(settings, classifier.sha256, parts, parameters, compiled, mesh.size, clean, refine)


def phases(settings: assembly.Resolved) -> dict[str, tuple[bool, int]]:
    """The calls that an image needs, by name: (whether with the reference, samples of an image)."""
    if isinstance(settings, config.Independent):
        return {"samples": (False, settings.lanes)}
    return {
        "selection": (False, settings.num_selection),
        "estimation": (False, settings.num_estimation),
        "audit": (True, settings.num_audit),
    }


def _program(parts: assembly.Assembly, settings: assembly.Resolved, mesh: Mesh, reference: bool) -> Program:
    if parts.queue is not None:
        return _continuous(parts.queue, settings, mesh)
    return _in_blocks(functools.partial(parts.kernel, reference=reference), settings, mesh)


def _in_blocks(kernel_of: Callable[[Any], kernels.Kernel], settings: assembly.Resolved, mesh: Mesh) -> Program:
    """The program that runs the scan of a kernel over blocks of rows, up to the last that has a row asked for.

    Rounding depends on the shape for which a program is compiled. Therefore the size of a block depends neither on
    the number of rows nor on that of devices.
    """

    def program(
        parameters: types.Parameters,
        images: types.Images,
        indices: jax.Array,
        phases: jax.Array,
        is_asked: jax.Array,
        samples: jax.Array,
        clean: types.State | None,
    ) -> tuple[kernels.Info, jax.Array]:
        def on_block(
            shared: tuple[types.Parameters, arrangement.Batch], rows: arrangement.Rows
        ) -> tuple[kernels.Info, jax.Array]:
            parameters, batch = shared
            kernel, samples = kernel_of(parameters), rows.samples.T
            lane_images, keys = batch.images[rows.place], batch.keys[rows.place]
            found = kernels.run(kernel, lane_images, keys, samples, settings.sigma, settings.grid)
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), found)

        def on_device(
            shared: tuple[types.Parameters, arrangement.Batch], rows: arrangement.Rows
        ) -> tuple[kernels.Info, jax.Array]:
            blocks = jax.tree.map(lambda x: x.reshape(-1, settings.block, *x.shape[1:]), rows)
            is_asked = jnp.any(shared[1].is_asked[blocks.place], -1)
            num_needed = jnp.max(jnp.where(is_asked, 1 + jnp.arange(len(is_asked)), 0))

            def add(index: jax.Array, found: tuple[kernels.Info, jax.Array]) -> tuple[kernels.Info, jax.Array]:
                of_block = on_block(shared, jax.tree.map(lambda x: x[index], blocks))
                return jax.tree.map(lambda all, x: all.at[index].set(x), found, of_block)

            nothing = kernels.nothing(*blocks.samples.shape), jnp.zeros(blocks.place.shape, jnp.int32)
            found = lax.fori_loop(0, num_needed, add, nothing)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

        rows = arrangement.of_samples(samples, mesh.size * settings.block)
        keys = noise.phase_keys(settings.seed, indices, phases)
        shared = (parameters, arrangement.Batch(images, keys, is_asked))
        return devices.map_devices(on_device, shared, rows, mesh)

    return program


def _continuous(
    queue: assembly.Queue,
    settings: assembly.Resolved,
    mesh: Mesh,
) -> Program:
    """The program that gives every device a queue of rows; see `continuous_batching`."""

    def program(
        parameters: types.Parameters,
        images: types.Images,
        indices: jax.Array,
        phases: jax.Array,
        is_asked: jax.Array,
        samples: jax.Array,
        clean: types.State | None,
    ) -> tuple[kernels.Info, jax.Array]:
        def on_device(
            shared: tuple[types.Parameters, arrangement.Batch, types.State | None], rows: arrangement.Rows
        ) -> tuple[kernels.Info, jax.Array]:
            parameters, batch, clean = shared

            def noisy(chosen: jax.Array) -> types.Images:
                place, samples = rows.place[chosen], rows.samples[chosen, 0]
                return noise.noisy(batch.images[place], batch.keys[place], samples, settings.sigma, settings.grid)

            def solved(chosen: jax.Array) -> types.State:
                return jax.tree.map(lambda x: x[rows.place[chosen]], clean)

            # The rows that are asked for are the first; see `arrangement.places`.
            num_rows, num_asked = len(rows.place), jnp.sum(batch.is_asked[rows.place], dtype=jnp.int32)
            found = queue(parameters, noisy, solved, num_rows, num_asked)
            return jax.tree.map(lambda x: x[:, None], found), jnp.zeros(num_rows, jnp.int32)

        rows = arrangement.of_samples(samples, mesh.size)
        keys = noise.phase_keys(settings.seed, indices, phases)
        shared = (parameters, arrangement.Batch(images, keys, is_asked), clean)
        return devices.map_devices(on_device, shared, rows, mesh)

    return program
