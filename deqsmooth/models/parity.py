"""Comparison of a converted model with recorded outputs of the PyTorch model.

Takes variables and recorded arrays (NCHW, one batch), gives the largest error of each quantity.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import models, solvers, types
from deqsmooth.config import architecture
from deqsmooth.models import base_classifier, pytorch, starts

_RUN = re.compile(r"logits_(?:(?P<warm>warm_x2)_)?(?P<solver>anderson|broyden|naive)_(?P<budget>\d+)$")
_CELL_LIMIT = 1e-5
_LOGITS_LIMIT = 1e-4


class Comparison(NamedTuple):
    """Comparison of one quantity.

    Attributes:
      quantity: name of the quantity in the recorded arrays.
      error: largest absolute difference. For the injection and the cell evaluation it is divided by the root mean
        square of the recorded values. For predicted classes (`labels`) it is the number of differences.
      limit: largest error that passes.
    """

    quantity: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is finite and at most the limit."""
        return bool(self.error <= self.limit)


def compare(
    variables: types.Variables,
    size: pytorch.Convertible,
    vectors: Mapping[str, np.ndarray],
) -> list[Comparison]:
    """Compares outputs of a model with recorded outputs.

    Args:
      variables: variables of the model.
      size: size of the model.
      vectors: recorded arrays by name. Multiscale DEQ: images `x`, `x1` and `x2`; the injection `injection_0` of
        `x`; a state `zrand_i`, one cell evaluation `f_i` of it, and its logits `head_logits_zrand`. Logits of
        solves from zero: `logits_SOLVER_BUDGET` of `x`, `logits_warmup10_x1` and `logits_cold10_x2`. Logits of
        solves of `x2` from the solution of `x1`: `logits_warm_x2_SOLVER_BUDGET`. Residual network: images `x` and
        their `logits`.

    Raises:
      ValueError: if an array is missing, or does not have the shape that the model computes.
    """
    if isinstance(size, architecture.ResnetModel):
        apply = jax.jit(models.build(size).apply, static_argnums=2)
        return _logits("logits", apply(variables, _images("x", size, vectors), False)[0], vectors)
    return _compare_mdeq(variables, size, vectors)


def _compare_mdeq(
    variables: types.Variables, size: architecture.MdeqModel, vectors: Mapping[str, np.ndarray]
) -> list[Comparison]:
    """Compares the injection, one cell evaluation, the readout and every recorded solver run."""
    model = models.build(size)
    images = {name: jnp.asarray(_images(name, size, vectors)) for name in ("x", "x1", "x2")}
    if images["x1"].shape != images["x2"].shape:
        raise ValueError(f"x1 has shape {vectors['x1'].shape} and x2 {vectors['x2'].shape}; they must be the same")
    u, _ = jax.jit(model.inject)(variables, images["x"], None)
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(model.initial_state, u))]
    state = tuple(jnp.asarray(_recorded(f"zrand_{i}", shape, vectors)) for i, shape in enumerate(shapes))
    after = jax.jit(model.cell)(model.bind(variables), state, u)
    found = [_relative("injection_0", u.features, vectors)]
    found += [_relative(f"f_{i}", x, vectors) for i, x in enumerate(after)]
    found += _logits("head_logits_zrand", jax.jit(model.readout)(variables, state)[0], vectors)

    def run(
        images: types.Images, method: str, budget: int, start: base_classifier.Start
    ) -> base_classifier.Output:
        solver = solvers.build({"naive": "plain"}.get(method, method), budget)
        solve = jax.jit(
            lambda variables, images: base_classifier.classify(model, variables, solver, images, start)
        )
        return solve(variables, images)

    zero = starts.zero(model)
    warm = functools.cache(lambda: run(images["x1"], "anderson", 10, zero))
    for name in vectors:
        if name == "logits_warmup10_x1":
            found += _logits(name, warm().logits, vectors)
        elif name == "logits_cold10_x2":
            found += _logits(name, run(images["x2"], "anderson", 10, zero).logits, vectors)
        elif match := _RUN.match(name):
            image, start = ("x2", starts.state(warm().solution.value)) if match["warm"] else ("x", zero)
            solved = run(images[image], match["solver"], int(match["budget"]), start)
            found += _logits(name, solved.logits, vectors)
    return found


def _get(vectors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in vectors:
        has = ", ".join(sorted(vectors)[:20]) or "none"
        raise ValueError(f"the recorded outputs have no array {name!r}; their arrays: {has}")
    if not np.issubdtype(vectors[name].dtype, np.floating):
        raise ValueError(f"recorded array {name!r} is {vectors[name].dtype}; it must be floating point")
    return vectors[name]


def _images(name: str, size: pytorch.Convertible, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Recorded images [num, height, width, channels], if they are of the model's size."""
    images = _get(vectors, name)
    height, width, channels = size.image_shape
    if images.ndim != 4 or not len(images) or images.shape[1:] != (channels, height, width):
        more = ""
        if images.ndim == 4 and images.shape[1] == channels:
            more = f"; --model.image-shape {images.shape[2]},{images.shape[3]},{channels} changes it"
        raise ValueError(
            f"recorded images {name!r} have shape {images.shape}; the model takes [num, {channels}, {height}, "
            f"{width}]{more}"
        )
    return _nhwc(images).astype(np.float32)


def _recorded(name: str, shape: tuple[int, ...], vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """A recorded state [num, height, width, channels], if it has the shape that the model computes."""
    theirs = _get(vectors, name)
    if theirs.ndim != 4 or _nhwc(theirs).shape != shape:
        num, height, width, channels = shape
        raise ValueError(f"{name} has shape {theirs.shape}; it must have shape {(num, channels, height, width)}")
    return _nhwc(theirs).astype(np.float32)


def _nhwc(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def _difference(name: str, ours: jax.Array, theirs: np.ndarray) -> np.ndarray:
    if ours.shape != theirs.shape:
        raise ValueError(f"{name} has shape {theirs.shape}; it must have shape {ours.shape}")
    return np.abs(np.asarray(ours, np.float64) - theirs)


def _relative(name: str, ours: jax.Array, vectors: Mapping[str, np.ndarray]) -> Comparison:
    theirs = _recorded(name, ours.shape, vectors)
    return Comparison(name, _difference(name, ours, theirs).max() / np.sqrt(np.mean(theirs**2)), _CELL_LIMIT)


def _logits(name: str, ours: jax.Array, vectors: Mapping[str, np.ndarray]) -> list[Comparison]:
    theirs = _get(vectors, name)
    error = _difference(name, ours, theirs).max()
    labels = np.sum(np.argmax(np.asarray(ours), -1) != np.argmax(theirs, -1))
    return [Comparison(name, float(error), _LOGITS_LIMIT), Comparison(f"{name}: labels", float(labels), 0.0)]
