"""Assembly: a classifier and resolved settings become the functions that a sampler compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from deqsmooth import config, models, solvers, types
from deqsmooth.models import base_classifier, classifiers, starts
from deqsmooth.smoothing import continuous_batching, kernels
from deqsmooth.solvers import loop

Resolved = config.Serial | config.Independent


class Assembly(NamedTuple):
    """The functions of a run. Parameters are arguments, so that XLA does not fold them as constants.

    Attributes:
      parameters: first argument of the others.
      num_classes: number of logits.
      solves: whether the classifier has an equilibrium to solve for.
      samples: parameters -> kernel of selection and estimation.
      reference: parameters -> kernel of the audit; None for the independent sampler.
      queue: (parameters, row numbers -> noisy images, number of rows) -> info of the rows, for solves that stop by
        themselves; else None.
    """

    parameters: Any
    num_classes: int
    solves: bool
    samples: Callable[[Any], kernels.Kernel]
    reference: Callable[[Any], kernels.Kernel] | None = None
    queue: Callable[[Any, Callable[[jax.Array], types.Images], int], kernels.Info] | None = None


def assemble(classifier: classifiers.Classifier, settings: Resolved, image_shape: tuple[int, ...]) -> Assembly:
    """The functions of a classifier with some settings.

    Args:
      classifier: the classifier.
      settings: of the run.
      image_shape: [H, W, C] of its images.

    Raises:
      ValueError: a function does not give logits [images, classes].
    """
    variables = jax.tree.map(jnp.asarray, classifier.variables)
    if not isinstance(classifier.model, types.Model):
        return _explicit(classifier.apply, variables, image_shape)
    if isinstance(settings, config.Serial):
        return _serial(classifier.model, variables, settings)
    return _independent(classifier, classifier.model, variables, settings)


def _serial(model: types.Model, variables: types.Variables, settings: config.Serial) -> Assembly:
    model = models.with_cell_dtype(model, settings.dtype)
    first, following, reference = (
        solvers.build(settings.solver, budget, tolerance)
        for budget, tolerance in (
            (settings.warmup_budget, None),
            (settings.budget, settings.tolerance),
            (settings.reference_budget, None),
        )
    )

    def from_zero(variables: types.Variables, solver: solvers.Solver) -> Callable[..., base_classifier.Output]:
        start = starts.zero(model)
        return functools.partial(base_classifier.classify, model, variables, solver, start=start)

    def samples(variables: types.Variables) -> kernels.Kernel:
        def classify(images: types.Images, z: types.State) -> base_classifier.Output:
            return base_classifier.classify(model, variables, following, images, starts.state(z))

        return kernels.serial(from_zero(variables, first), classify, settings.start)

    return Assembly(
        parameters=variables,
        num_classes=model.num_classes,
        solves=True,
        samples=samples,
        reference=lambda variables: kernels.independent(from_zero(variables, reference)),
    )


def _independent(
    classifier: classifiers.Classifier,
    model: types.Model,
    variables: types.Variables,
    settings: config.Independent,
) -> Assembly:
    model = models.with_cell_dtype(model, settings.dtype)
    start = starts.build(settings.start, model, classifier.start_training)
    solver = solvers.build(settings.solver, settings.budget, settings.tolerance)
    continuous = solver if settings.continuous and isinstance(solver, loop.Solver) else None

    def samples(variables: types.Variables) -> kernels.Kernel:
        classify = functools.partial(base_classifier.classify, model, variables, solver, start=start(variables))
        return kernels.independent(classify)

    def queue(
        variables: types.Variables, noisy: Callable[[jax.Array], types.Images], num_rows: int
    ) -> kernels.Info:
        assert continuous is not None
        return continuous_batching.run(
            model, variables, continuous, start(variables), noisy, num_rows, settings.block
        )

    return Assembly(
        parameters=variables,
        num_classes=model.num_classes,
        solves=True,
        samples=samples,
        queue=None if continuous is None else queue,
    )


def _explicit(
    apply: Callable[[types.Variables, types.Images], types.Logits],
    variables: types.Variables,
    image_shape: tuple[int, ...],
) -> Assembly:
    logits = jax.eval_shape(apply, variables, jax.ShapeDtypeStruct((2, *image_shape), jnp.float32))
    if getattr(logits, "shape", ())[:1] != (2,) or len(logits.shape) != 2:
        raise ValueError(f"the classifier gives {logits} for 2 images; it must give logits [2, classes]")

    def samples(variables: types.Variables) -> kernels.Kernel:
        classify = functools.partial(base_classifier.explicit, functools.partial(apply, variables))
        return kernels.independent(classify)

    return Assembly(parameters=variables, num_classes=logits.shape[1], solves=False, samples=samples)
