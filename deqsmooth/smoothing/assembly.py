"""Assembly: a classifier and resolved settings become the functions that a sampler compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from deqsmooth import config, models, solvers, types
from deqsmooth.config import checks
from deqsmooth.models import base_classifier, classifiers, starts
from deqsmooth.models import parts as model_parts
from deqsmooth.smoothing import continuous_batching, contract, kernels, proof, refinement, settling
from deqsmooth.solvers import loop, per_lane, settled

Resolved = config.Serial | config.Independent
Queue = Callable[
    [Any, Callable[[jax.Array], types.Images], Callable[[jax.Array], types.State], int, jax.Array], kernels.Info
]
"""(parameters, row numbers -> noisy images, row numbers -> equilibria of their images without noise, number of
rows, how many of the first are classified) -> info of the rows."""
# Relative residual of the equilibrium of an image without noise, where the solves of its samples start.
_CLEAN = 1e-3


class Assembly(NamedTuple):
    """The functions of a run. Parameters are arguments, so that XLA does not fold them as constants.

    Attributes:
      parameters: first argument of the others.
      num_classes: number of logits.
      solves: whether the classifier has an equilibrium to solve for.
      classify: (parameters, images [lanes, H, W, C]) -> output of the base classifier, which the certificates are
        about.
      serial: parameters -> kernel of the serial samples; None for the independent sampler, whose samples are those
        of the base classifier.
      queue: of solves that stop by themselves; else None.
      clean: (parameters, images) -> solution of the images without noise, where samples start from it; else None.
      refine: settles in float64 votes that the queue leaves unsettled; else None.
    """

    parameters: Any
    num_classes: int
    solves: bool
    classify: Callable[[Any, types.Images], base_classifier.Output]
    serial: Callable[[Any], kernels.Kernel] | None = None
    queue: Queue | None = None
    clean: Callable[[Any, types.Images], types.Solution] | None = None
    refine: refinement.Refinement | None = None

    def logits(self, parameters: Any, images: types.Images) -> types.Logits:
        """The logits of the base classifier."""
        return self.classify(parameters, images).logits

    def kernel(self, parameters: Any, *, reference: bool) -> kernels.Kernel:
        """The kernel of selection and estimation, or that of the audit, which is the base classifier's."""
        if self.serial is not None and not reference:
            return self.serial(parameters)
        return kernels.independent(functools.partial(self.classify, parameters))


def assemble(classifier: classifiers.Classifier, settings: Resolved, image_shape: tuple[int, ...]) -> Assembly:
    """The functions of a classifier with some settings.

    Args:
      classifier: the classifier.
      settings: of the run.
      image_shape: [H, W, C] of its images.

    Raises:
      ValueError: see `contract.num_classes` and `models.parts.check`.
    """
    variables = jax.tree.map(jnp.asarray, classifier.variables)
    if not isinstance(classifier.model, types.Model):
        apply = classifier.apply
        classes = contract.num_classes(apply, variables, image_shape)
        return Assembly(
            variables,
            classes,
            solves=False,
            classify=lambda variables, images: base_classifier.explicit(
                functools.partial(apply, variables), images
            ),
        )
    # The models of this package are right, and have the shapes of their sizes.
    if classifier.size is None:
        model_parts.check(classifier.model, variables)
    if isinstance(settings, config.Serial):
        parts = _serial(classifier.model, variables, settings)
    else:
        parts = _independent(classifier, classifier.model, variables, settings)
    if classifier.size is None:
        classes, stated = contract.num_classes(parts.logits, variables, image_shape), parts.num_classes
        checks.holds(classes == stated, "num_classes of the model", stated, f"{classes}, its logits")
    return parts


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

    def from_zero(
        solver: solvers.Solver, variables: types.Variables, images: types.Images
    ) -> base_classifier.Output:
        return base_classifier.classify(model, variables, solver, images, starts.zero(model))

    def serial(variables: types.Variables) -> kernels.Kernel:
        def classify(images: types.Images, z: types.State) -> base_classifier.Output:
            return base_classifier.classify(model, variables, following, images, starts.state(z))

        return kernels.serial(functools.partial(from_zero, first, variables), classify, settings.start)

    return Assembly(
        parameters=variables,
        num_classes=model.num_classes,
        solves=True,
        classify=functools.partial(from_zero, reference),
        serial=serial,
    )


def _independent(
    classifier: classifiers.Classifier,
    model: types.Model,
    variables: types.Variables,
    settings: config.Independent,
) -> Assembly:
    if settings.settle is not None:
        return _settled(classifier, model, variables, settings)
    model = models.with_cell_dtype(model, settings.dtype)
    start = starts.build(settings.start, model, classifier.start_training)
    solver = solvers.build(settings.solver, settings.budget, settings.tolerance)
    continuous = solver if settings.continuous and isinstance(solver, loop.Solver) else None

    def classify(variables: types.Variables, images: types.Images) -> base_classifier.Output:
        return base_classifier.classify(model, variables, solver, images, start(variables))

    def queue(
        variables: types.Variables,
        noisy: Callable[[jax.Array], types.Images],
        clean: Callable[[jax.Array], types.State],
        num_rows: int,
        num_used: jax.Array,
    ) -> kernels.Info:
        assert continuous is not None
        return continuous_batching.run(
            model, variables, continuous, start(variables), noisy, num_rows, settings.block, num_used
        )

    return Assembly(
        parameters=variables,
        num_classes=model.num_classes,
        solves=True,
        classify=classify,
        queue=None if continuous is None else queue,
    )


def _settled(
    classifier: classifiers.Classifier,
    model: types.Model,
    variables: types.Variables,
    settings: config.Independent,
) -> Assembly:
    """Votes of the exact equilibrium, each proved where its solve stops; see `proof`."""
    solver = solvers.build(settings.solver, settings.budget)
    assert isinstance(solver, loop.Solver)
    constants, stops = proof.proof(classifier), settled.Solver(solver.method, solver.budget)
    start = starts.build(str(settings.first_start), model, classifier.start_training)

    def decide(variables: types.Variables, u: types.Injection) -> settled.Decide:
        return lambda z, fz: constants.verdict(z, fz, u, model.readout(variables, fz, False)[0])

    def classify(variables: types.Variables, images: types.Images) -> base_classifier.Output:
        params, (u, _) = model.bind(variables), model.inject(variables, images, None)
        solution = stops.solve(lambda z: model.cell(params, z, u), start(variables)(u), decide(variables, u))
        # Also where the vote is not settled: such logits are those of a function of the image, but prove nothing.
        return base_classifier.Output(model.readout(variables, solution.value, False)[0], solution)

    def queue(
        variables: types.Variables,
        noisy: Callable[[jax.Array], types.Images],
        clean: Callable[[jax.Array], types.State],
        num_rows: int,
        num_used: jax.Array,
    ) -> kernels.Info:
        def begin(rows: jax.Array, u: types.Injection, last: types.State) -> types.State:
            if settings.start == "clean":
                return clean(rows)
            first = start(variables)(u)
            if settings.start == "previous":
                return per_lane.select(per_lane.is_finite(last), last, first)
            return first

        decide_row = functools.partial(decide, variables)
        return settling.run(model, variables, stops, decide_row, begin, noisy, num_rows, settings.block, num_used)

    def clean(variables: types.Variables, images: types.Images) -> types.Solution:
        to_tolerance = loop.Solver(solver.method, solver.budget, _CLEAN)
        return base_classifier.classify(model, variables, to_tolerance, images, start(variables)).solution

    assert model.contraction is not None
    return Assembly(
        parameters=variables,
        num_classes=model.num_classes,
        solves=True,
        classify=classify,
        queue=queue,
        clean=clean if settings.start == "clean" else None,
        refine=refinement.refinement(model, start, stops, constants) if model.contraction.float64 else None,
    )
