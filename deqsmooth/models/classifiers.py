"""Classifiers: a model with its variables and its digest, made from whatever the caller has.

A classifier is a function of one image. Functions and modules are called with many images side by side (lanes),
and must treat every lane alike and by itself; `smoothing.contract` checks that they do.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import arithmetic, config, models, types
from deqsmooth.config import architecture, checks, serialization
from deqsmooth.models import functions


class Classifier(NamedTuple):
    """A model with everything that determines its logits; made by `ds.classifier`, `ds.load` or `ds.train`.

    Attributes:
      model: functions of the model, with an equilibrium or explicit.
      variables: variables of the model, numpy. With a trained start they have the entry `start`: the parameters of
        its `network`, and the `mean` equilibrium, leaves [1, ...].
      sha256: SHA-256 of size or name, and of the variables, hexadecimal.
      name: that records give the classifier.
      size: size from which the model is built; None for a model of the caller's own.
      training: settings of the training; None if they are not known.
      start_training: settings of the training of its start, which with `fine_tune` also trained the model; None if
        it has no trained start.
    """

    model: types.Model | types.Explicit | types.Function
    variables: types.Variables
    sha256: str
    name: str
    size: architecture.Model | None = None
    training: config.Training | None = None
    start_training: config.StartTraining | None = None

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of the images that the model takes; None if they are not known."""
        return None if isinstance(self.model, types.Function) else self.model.image_shape

    def __repr__(self) -> str:
        """One line: the name, numbers that describe the model, its start, and the first digits of the digest."""
        variables = self.variables
        is_collections = isinstance(variables, Mapping) and "params" in variables
        parameters = jax.tree.leaves(variables["params"] if is_collections else variables)
        num = sum(np.size(x) for x in parameters)
        parts = [self.name, f"{num:,} parameter{'s' if num != 1 else ''}"]
        if not isinstance(self.model, types.Function):
            height, width, channels = self.model.image_shape
            parts += [f"images {height}x{width}x{channels}", f"{self.model.num_classes} classes"]
        if self.solves:
            parts.append("start zero" if self.start_training is None else "start learned")
        return f"Classifier({', '.join(parts)}, sha256 {self.sha256[:8]})"

    @property
    def solves(self) -> bool:
        """Whether the classifier has an equilibrium to solve for."""
        return isinstance(self.model, types.Model)

    @property
    def apply(self) -> Callable[[types.Variables, types.Images], types.Logits]:
        """(variables, images) -> logits, of a classifier without an equilibrium."""
        model = self.model
        if isinstance(model, types.Function):
            return model.apply
        assert isinstance(model, types.Explicit)
        return lambda variables, images: model.apply(variables, images, False)[0]


Classifiable = Classifier | Callable[[types.Images], types.Logits]
"""What certification takes: a classifier, or any function of images, of which `classifier` makes one."""


def classifier(model: Any, variables: Any = None, *, name: str | None = None) -> Classifier:
    """Makes a classifier that can be certified, attacked and saved.

    `model` is one of

    - a function of images [lanes, H, W, C], float32 in [0, 1], to logits [lanes, classes]; with `variables`, a
      function (variables, images) -> logits. It must treat every image by itself, whatever the number of lanes.
      Standardise images inside it, so that noise and radii are in units of pixels.
    - a Linen module, whose `variables` are given (all collections). It is called in evaluation mode if that is an
      argument named `train`, `training`, `is_training`, `deterministic` or `use_running_average`.
    - an nnx module, which holds its own variables. They are copied: training the module afterwards does not change
      the classifier. It is called in evaluation mode (`nnx.view`).
    - a `ds.Model` (a deep equilibrium model as functions) or `ds.Explicit`, with `variables`.
    - a size, such as `ds.ConvModel`, with `variables`: a model of this package.
    - a classifier, which is returned, with `name` if it is given. Settings of its training are kept.

    Args:
      model: see above.
      variables: pytree of arrays. Parameters that a function captures instead are folded into the compiled program
        as constants, which is slow for large ones.
      name: that records give the classifier; by default that of the function or class, and of a `ds.Model` that of
        its `readout`. It is part of `sha256`, except for a model of this package.

    Returns:
      The classifier. Whether it is a function of one image is checked before it is certified.

    Raises:
      ValueError: it is none of these, or `variables` are missing, not needed, no arrays or not finite, or have a
        trained start, whose settings only `ds.train_start` and `ds.load` know; says what to call instead.

    Example:
      >>> import deqsmooth as ds
      >>> import jax
      >>> import jax.numpy as jnp
      >>> def brightness(variables, images):
      ...     score = images.mean((1, 2, 3)) - variables["threshold"]
      ...     return jnp.stack([score, -score], -1)
      >>> variables = {"threshold": jnp.float32(0.4)}
      >>> own = ds.classifier(brightness, variables, name="brightness")
      >>> own.name, len(own.sha256), own.solves
      ('brightness', 64, False)

      A Linen module:

      >>> import flax.linen as nn
      >>> module = nn.Sequential([lambda images: images.reshape(-1, 64), nn.Dense(10)])
      >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
      >>> ds.classifier(module, variables).variables["params"]["layers_1"]["kernel"].shape
      (64, 10)

      Another name, which keeps everything else:

      >>> own = ds.classifier(own, name="threshold at 0.4")
      >>> own  # doctest: +ELLIPSIS
      Classifier(threshold at 0.4, 1 parameter, sha256 ...)
    """
    if isinstance(model, Classifier):
        if variables is not None:
            raise ValueError(
                "a Classifier has its variables; variables can only be given with a model or function"
            )
        return model if name is None else _renamed(model, name)
    if isinstance(model, architecture.Model | types.Model):
        _check_no_start(variables)
    if isinstance(model, architecture.Model):
        return of_size(model, functions.given(variables, "a size", "models.build(size).init(key)"))
    if isinstance(model, types.Model | types.Explicit | types.Function):
        kind = type(model).__name__
        given = functions.given(variables, f"a {kind}", "model.init(key), or those of its training")
        last = model.readout if isinstance(model, types.Model) else model.apply
        return of_functions(model, given, name or f"{kind} of {functions.name_of(last)}")
    apply, given, own_name = functions.of(model, variables)
    return of_functions(types.Function(apply), given, name or own_name)


def of_size(
    size: architecture.Model,
    variables: types.Variables,
    training: config.Training | None = None,
    start_training: config.StartTraining | None = None,
) -> Classifier:
    """The classifier of a model of this package.

    Args:
      size: of the model.
      variables: of the model, and of its start if it has one.
      training: settings of its training, if they are known.
      start_training: settings of the training of its start, if it has one.

    Raises:
      ValueError: the variables do not have the shapes of the size, or are not finite.
    """
    _check_shapes(variables, shapes(models.build(size), start_training))
    name = next(name for name, kind in architecture.MODELS.items() if type(size) is kind)
    variables = _to_numpy(variables)
    sha256 = _digest(serialization.digest(serialization.to_json(size)), variables)
    return Classifier(models.build(size), variables, sha256, name, size, training, start_training)


def of_functions(
    model: types.Model | types.Explicit | types.Function,
    variables: Any,
    name: str,
    training: config.Training | None = None,
    start_training: config.StartTraining | None = None,
) -> Classifier:
    """The classifier of a model of the caller's own.

    Args:
      model: its functions.
      variables: of the model, and of its start if it has one.
      name: that records give the classifier.
      training: settings of its training, if they are known.
      start_training: settings of the training of its start, if it has one.

    Raises:
      ValueError: the variables are no arrays of numbers, or are not finite.
    """
    checks.kind("name", name, str, "a string")
    variables = _to_numpy(variables)
    return Classifier(model, variables, _digest(name, variables), name, None, training, start_training)


@arithmetic.standard()
def shapes(model: types.Model | types.Explicit, start_training: config.StartTraining | None) -> types.Variables:
    """Shapes and dtypes of all variables of a model, and of its start if it has one."""
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key)
    if start_training is None or isinstance(model, types.Explicit):
        return variables
    network = models.build_start(start_training.network, model)
    return {**variables, "start": {"network": jax.eval_shape(network.init, key), "mean": network.state}}


class Identity(NamedTuple):
    """What tells a classifier from others.

    Attributes:
      sha256: SHA-256 of its size or name, its variables and the arrays that its functions capture, hexadecimal.
      program: SHA-256 of its code as this version of JAX traces it, hexadecimal; None for a model of this package,
        whose code is that of the version.
    """

    sha256: str
    program: str | None


@arithmetic.standard()
def identity(given: Classifier, image_shape: Sequence[int]) -> Identity:
    """What tells a classifier from others.

    Args:
      given: the classifier.
      image_shape: [H, W, C] of its images.
    """
    if given.size is not None:
        return Identity(given.sha256, None)
    images = jnp.zeros((1, *image_shape), jnp.float32)
    found = functions.traced(functools.partial(_logits, given), given.variables, images)
    sha256 = _digest(given.sha256, found.captured) if found.captured else given.sha256
    return Identity(sha256, hashlib.sha256(found.text.encode()).hexdigest())


def _logits(given: Classifier, variables: Any, images: types.Images) -> Any:
    """Logits after one evaluation of the cell, in which each function of a model takes part."""
    model = given.model
    if not isinstance(model, types.Model):
        return given.apply(variables, images)
    u, _ = model.inject(variables, images, None)
    z = model.cell(model.bind(variables), model.initial_state(u), u)
    return model.readout(variables, z, False)[0]


def _renamed(given: Classifier, name: str) -> Classifier:
    if given.size is None:
        return of_functions(given.model, given.variables, name, given.training, given.start_training)
    checks.kind("name", name, str, "a string")
    return given._replace(name=name)


def _check_no_start(variables: Any) -> None:
    """Raises `ValueError` if variables have a trained start, which is of no use without its settings."""
    start = variables.get("start") if isinstance(variables, Mapping) else None
    if isinstance(start, Mapping) and set(start) == {"network", "mean"}:
        raise ValueError(
            "variables have the entry 'start', a trained start, but not the settings of its training, so that the "
            "model would be certified from zero: give the classifier that ds.train_start or ds.load returned "
            "itself, or leave the entry out"
        )


def _check_shapes(variables: types.Variables, template: types.Variables) -> None:
    """Raises `ValueError` unless variables have the names and shapes of a template."""
    found, wanted = (
        {jax.tree_util.keystr(key): np.shape(x) for key, x in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (variables, template)
    )
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            has, must = (f"shape {x[name]}" if name in x else "no such array" for x in (found, wanted))
            raise ValueError(f"variables{name} has {has}; by the size of the model it must have {must}")


def _to_numpy(variables: Any) -> Any:
    """Variables as numpy arrays, which depend on no device; random keys as their data.

    Raises:
      ValueError: a leaf is no array of numbers, or is not finite.
    """

    def to_numpy(path: Any, x: Any) -> Any:
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        # An array of numpy may be changed by its owner later.
        array = np.array(x) if isinstance(x, np.ndarray) else np.asarray(x)
        name = jax.tree_util.keystr(path)
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise ValueError(f"variables{name} is {type(x).__name__}; variables must be arrays of numbers")
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array.astype(np.float32)).all():
            raise ValueError(f"variables{name} has numbers that are not finite; such a model classifies nothing")
        return array

    return jax.tree_util.tree_map_with_path(to_numpy, variables)


def _digest(name: str, variables: Any) -> str:
    """The SHA-256 of a name and of variables, hexadecimal."""
    found = hashlib.sha256(name.encode())
    for key, x in jax.tree_util.tree_leaves_with_path(variables):
        x = functions.data_of(x)
        found.update(f"{jax.tree_util.keystr(key)} {x.dtype} {x.shape}".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()
