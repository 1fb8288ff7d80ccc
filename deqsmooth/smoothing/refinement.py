"""Refinement: votes that float32 leaves unsettled are settled in float64, where rounding hides almost nothing.

Takes samples; gives what is recorded of them. Noise, injection and parameters of the cell are computed in float32,
as for every sample, so that the equilibrium is the same. Evaluations, logits and the proof are in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import arithmetic, config, types
from deqsmooth.models import base_classifier
from deqsmooth.smoothing import kernels, noise, proof
from deqsmooth.solvers import settled

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The leaves of `kernels.Info` of all samples of a call [images, samples], on the host."""
# Few samples are left in a call, and a program always solves this many.
_ROWS = 16


class Refinement(NamedTuple):
    """The functions that settle votes in float64; `settle` must be compiled in `arithmetic.double`.

    Attributes:
      problem: (variables, images [rows, H, W, C]) -> (parameters of the cell, injection, initial state), float32.
      settle: (variables, problem) -> info of the rows.
    """

    problem: Callable[[types.Variables, types.Images], Any]
    settle: Callable[[types.Variables, Any], kernels.Info]


class Program(NamedTuple):
    """A refinement that is compiled for a number of samples.

    Attributes:
      problem: (variables, images, indices, phases, samples), each with `_ROWS` rows -> as in `Refinement`.
      settle: as in `Refinement`.
      num_classes: the vote of a sample that is not settled.
    """

    problem: Any
    settle: Any
    num_classes: int

    def __call__(
        self,
        variables: types.Variables,
        drawn: Drawn,
        images: np.ndarray,
        indices: np.ndarray,
        phases: np.ndarray,
        samples: np.ndarray,
    ) -> Drawn:
        """Solves the samples again that are not settled.

        Args:
          variables: of the model.
          drawn: what is recorded of all samples.
          images: clean images, float32 [images, H, W, C].
          indices: of the images in their data set [images].
          phases: of the noise [images].
          samples: sample indices [images, samples].

        Returns:
          The same of all samples then; evaluations are those of both solves.
        """
        image, sample = np.nonzero(drawn[0] == self.num_classes)
        votes, residual, evaluations, fallbacks = (np.array(x) for x in drawn)
        for begin in range(0, len(image), _ROWS):
            # The last sample is repeated until the rows are filled.
            rows = np.minimum(np.arange(begin, begin + _ROWS), len(image) - 1)
            own, chosen = image[rows], (image[rows], sample[rows])
            with arithmetic.standard():
                problem = self.problem(
                    variables,
                    images[own],
                    indices[own].astype(np.uint32),
                    phases[own].astype(np.uint32),
                    samples[chosen].astype(np.int32),
                )
            with arithmetic.double():
                found = jax.device_get(self.settle(variables, problem))
            votes[chosen], residual[chosen] = found.votes, found.residual
            evaluations[chosen] += found.num_evaluations
            fallbacks[chosen] += found.num_fallbacks
        return votes, residual, evaluations, fallbacks


def refinement(
    model: types.Model,
    start: Callable[[types.Variables], base_classifier.Start],
    solver: settled.Solver,
    constants: proof.Constants,
) -> Refinement:
    """The refinement of a model whose contraction states that its rounding bounds hold in float64, too.

    Args:
      model: the model.
      start: variables -> start of the solves.
      solver: of the samples.
      constants: of the model with its variables, in float32.

    Raises:
      ValueError: when `settle` is compiled, if cell or readout of the model do not compute in float64.
    """
    constants = constants.in_float64()

    def problem(variables: types.Variables, images: types.Images) -> Any:
        u, _ = model.inject(variables, images, None)
        return model.bind(variables), u, start(variables)(u)

    def settle(variables: types.Variables, problem: Any) -> kernels.Info:
        variables, (params, u, z) = jax.tree.map(_wide, (variables, problem))

        def decide(z: types.State, fz: types.State) -> settled.Verdict:
            return constants.verdict(z, fz, u, _checked("readout", model.readout(variables, fz, False)[0]))

        solution = solver.solve(lambda z: _checked("cell", model.cell(params, z, u)), z, decide)
        return kernels.info(base_classifier.read(model, variables, solution))

    return Refinement(problem, settle)


def compile_program(
    refinement: Refinement,
    variables: types.Variables,
    settings: config.Smoothing,
    image_shape: tuple[int, ...],
    num_classes: int,
) -> Program:
    """Compiles a refinement for the noise of a run.

    Args:
      refinement: the functions.
      variables: of the model.
      settings: of the run.
      image_shape: [H, W, C].
      num_classes: of the model.
    """

    def problem(
        variables: types.Variables,
        images: types.Images,
        indices: jax.Array,
        phases: jax.Array,
        samples: jax.Array,
    ) -> Any:
        keys = noise.phase_keys(settings.seed, indices, phases)
        return refinement.problem(variables, noise.noisy(images, keys, samples, settings.sigma, settings.grid))

    images = jax.ShapeDtypeStruct((_ROWS, *image_shape), jnp.float32)
    unsigned, signed = (jax.ShapeDtypeStruct((_ROWS,), dtype) for dtype in (jnp.uint32, jnp.int32))
    with arithmetic.standard():
        lowered = jax.jit(problem).lower(variables, images, unsigned, unsigned, signed)
        made = lowered.compile()
    with arithmetic.double():
        settle = jax.jit(refinement.settle).lower(variables, lowered.out_info).compile()
    return Program(made, settle, num_classes)


def _checked(part: str, arrays: Any) -> Any:
    """The result of a part of the model; raises `ValueError` unless it is float64."""
    if any(x.dtype != jnp.float64 for x in jax.tree.leaves(arrays)):
        raise ValueError(
            f"float64 of the contraction is True; it must be False for a model whose {part} gives another type "
            "for arguments of float64"
        )
    return arrays


def _wide(x: jax.Array) -> jax.Array:
    """A floating point array in float64."""
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
