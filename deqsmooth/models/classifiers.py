"""Classifiers: a model with its variables and its digest, made from whatever the caller has.

A classifier is a function of one image. Functions and modules are called with many images side by side (lanes),
and must treat every lane alike and by itself; `smoothing.contract` checks that they do.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deqsmooth import config, models, types
from deqsmooth.config import architecture, serialization

# Arguments by which modules are commonly told that they do not train, and the value that says so.
_EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}


class Classifier(NamedTuple):
    """A model with everything that determines its logits; made by `classifier` or `checkpoints.load`.

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

    Args:
      model: one of
        - a function of images [lanes, H, W, C], float32 in [0, 1], to logits [lanes, classes]; with `variables`,
          a function (variables, images) -> logits. It must treat every image by itself.
        - a Linen module, whose `variables` are given (all collections). It is called in evaluation mode if that
          is an argument named `train`, `training`, `is_training`, `deterministic` or `use_running_average`.
        - an nnx module, which holds its own variables. It is called in evaluation mode (`nnx.view`).
        - a `types.Model` (a deep equilibrium model as functions) or `types.Explicit`, with `variables`.
        - a size of `config.architecture`, with `variables`: a model of this package.
      variables: pytree of arrays. Parameters that a function captures instead are folded into the compiled program
        as constants, which is slow for large ones.
      name: that records give the classifier; by default the function's or the class's.

    Raises:
      ValueError: it is none of these, or `variables` are missing, not needed, no arrays or not finite; says what
        to call instead.

    Example:
      >>> import deqsmooth as ds
      >>> import jax.numpy as jnp
      >>> def brightness(variables, images):
      ...     score = images.mean((1, 2, 3)) - variables["threshold"]
      ...     return jnp.stack([score, -score], -1)
      >>> made = classifier(brightness, {"threshold": jnp.float32(0.4)})
      >>> made.name.split(".")[-1], len(made.sha256)
      ('brightness', 64)
    """
    if isinstance(model, Classifier):
        if variables is not None:
            raise ValueError(
                "a Classifier has its variables; variables can only be given with a model or function"
            )
        return model if name is None else _made(model.model, model.variables, name)
    if isinstance(model, architecture.ConvModel | architecture.MdeqModel | architecture.ResnetModel):
        return of_size(model, _given(variables, "a size", "models.build(size).init(key)"))
    if isinstance(model, types.Model | types.Explicit | types.Function):
        kind = type(model).__name__
        given = _given(variables, f"a {kind}", "model.init(key), or those of its training")
        return _made(model, given, name or f"{kind} of {_name_of(model[-1])}")
    apply, given, own_name = _function(model, variables)
    return _made(types.Function(apply), given, name or own_name)


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
    _check_shapes(variables, shapes(size, start_training))
    name = next(name for name, kind in architecture.MODELS.items() if type(size) is kind)
    variables = _to_numpy(variables)
    sha256 = _digest(serialization.digest(serialization.to_json(size)), variables)
    return Classifier(models.build(size), variables, sha256, name, size, training, start_training)


def shapes(size: architecture.Model, start_training: config.StartTraining | None) -> types.Variables:
    """Shapes and dtypes of all variables of a model of this package, and of its start if it has one."""
    key, model = jax.random.key(0), models.build(size)
    variables = jax.eval_shape(model.init, key)
    if start_training is None or isinstance(model, types.Explicit):
        return variables
    network = models.build_start(start_training.network, model)
    return {**variables, "start": {"network": jax.eval_shape(network.init, key), "mean": network.state}}


def digest(given: Classifier, image_shape: Sequence[int]) -> str:
    """The SHA-256 of a classifier, hexadecimal, with the arrays that its function captures.

    Args:
      given: the classifier.
      image_shape: [H, W, C] of its images.
    """
    if not isinstance(given.model, types.Function):
        return given.sha256
    images = jnp.zeros((1, *image_shape), jnp.float32)
    captured = jax.make_jaxpr(given.model.apply)(given.variables, images).consts
    return _digest(given.sha256, [x for x in captured if hasattr(x, "dtype")]) if captured else given.sha256


def _made(model: types.Model | types.Explicit | types.Function, variables: Any, name: str) -> Classifier:
    variables = _to_numpy(variables)
    return Classifier(model, variables, _digest(name, variables), name)


def _function(model: Any, variables: Any) -> tuple[Callable[[Any, types.Images], Any], Any, str]:
    """A function or module as a function (variables, images) -> logits, its variables and its name."""
    if isinstance(model, nnx.Module):
        if variables is not None:
            raise ValueError(f"{type(model).__name__} is an nnx module, which holds its variables; leave them out")
        # The state of random numbers is no parameter: in evaluation mode nothing is drawn.
        graph, *states = nnx.split(model, nnx.Not(nnx.RngState), ...)
        return functools.partial(_apply_nnx, graph, states[1]), states[0], _name_of(type(model))
    if isinstance(model, nn.Module):
        given = _given(variables, "a Linen module", "module.init(key, images), or those of its training")
        return functools.partial(_apply_linen, model, _mode(model)), given, _linen(model)
    if isinstance(model, type) or not callable(model) or _is_torch(model):
        raise ValueError(_advice(model))
    if variables is not None:
        return model, variables, _name_of(model)
    if isinstance(model, jax.tree_util.Partial):
        given = {"args": model.args, "keywords": model.keywords}
        return functools.partial(_apply_partial, model.func), given, _name_of(model.func)
    return lambda _, images: model(images), {}, _name_of(model)


def _apply_partial(fn: Callable[..., Any], variables: dict[str, Any], images: types.Images) -> Any:
    return fn(*variables["args"], images, **variables["keywords"])


def _apply_nnx(graph: Any, rest: Any, state: Any, images: types.Images) -> Any:
    module = nnx.merge(graph, state, rest)
    return nnx.view(module, raise_if_not_found=False, deterministic=True, use_running_average=True)(images)


def _apply_linen(module: nn.Module, mode: dict[str, Any], variables: Any, images: types.Images) -> Any:
    return module.apply(variables, images, **mode)


def _mode(module: nn.Module) -> dict[str, Any]:
    """The arguments of a Linen module that put it into evaluation mode."""
    parameters = list(inspect.signature(type(module).__call__).parameters.values())[2:]
    unknown = [
        parameter.name
        for parameter in parameters
        if parameter.name not in _EVALUATION
        and parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    if unknown:
        raise ValueError(
            f"{type(module).__name__} also takes {', '.join(unknown)}; give a function that sets them: "
            "ds.classifier(lambda variables, images: module.apply(variables, images, ...), variables)"
        )
    return {
        parameter.name: _EVALUATION[parameter.name] for parameter in parameters if parameter.name in _EVALUATION
    }


def _linen(module: nn.Module) -> str:
    """The class of a Linen module and its settings, which determine its function."""
    fields = {
        field: getattr(module, field)
        for field in module.__dataclass_fields__
        if field not in ("parent", "name") and not callable(getattr(module, field))
    }
    settings = ", ".join(f"{field}={value!r}" for field, value in fields.items())
    return f"{_name_of(type(module))}({settings})"


def _name_of(fn: Any) -> str:
    fn = fn.func if isinstance(fn, functools.partial) else fn
    if not hasattr(fn, "__qualname__"):
        fn = type(fn)
    return f"{fn.__module__}.{fn.__qualname__}".replace("<locals>.", "")


def _given(variables: Any, kind: str, call: str) -> Any:
    if variables is None:
        raise ValueError(f"{kind} needs its variables: ds.classifier(model, variables), variables being {call}")
    return variables


def _is_torch(model: Any) -> bool:
    return any(kind.__module__.split(".")[0] == "torch" for kind in type(model).__mro__)


def _advice(given: Any) -> str:
    """What to call instead of what was given."""
    if isinstance(given, str | os.PathLike):
        return f"{given!r} is a path; ds.load(path) reads a checkpoint"
    if _is_torch(given):
        return (
            f"{type(given).__name__} is a PyTorch module; deqsmooth-convert makes a checkpoint of its state dict "
            "if this package has the model, and other networks must be written in JAX"
        )
    if isinstance(given, type):
        return f"{given.__name__} is a class; give an instance of it"
    if isinstance(given, tuple | list) and len(given) == 2:
        return f"a {type(given).__name__} is no classifier; give its parts: ds.classifier(model, variables)"
    return (
        f"{type(given).__name__} is no classifier; ds.classifier takes a function images -> logits, a Linen "
        "or nnx module, a ds.Model, or a size such as ds.ConvModel()"
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
        array = np.asarray(x)
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
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        x = np.asarray(x)
        found.update(f"{jax.tree_util.keystr(key)} {x.dtype} {x.shape}".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()
