"""Functions and modules of the caller's own, as functions of variables and images."""

from __future__ import annotations

import functools
import inspect
import os
import re
import types as types_
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deqsmooth import types

# Addresses of functions in the text of a program, which differ from process to process.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# Arguments by which modules are commonly told that they do not train, and the value that says so.
_EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}


def of(model: Any, variables: Any) -> tuple[Callable[[Any, types.Images], Any], Any, str]:
    """A function or module as a function (variables, images) -> logits, its variables and its name.

    Args:
      model: see `classifiers.classifier`.
      variables: the same.

    Raises:
      ValueError: it is neither; says what to call instead.
    """
    if isinstance(model, nnx.Module):
        if variables is not None:
            raise ValueError(f"{type(model).__name__} is an nnx module, which holds its variables; leave them out")
        # The state of random numbers is no parameter: in evaluation mode nothing is drawn.
        graph, *states = nnx.split(model, nnx.Not(nnx.RngState), ...)
        return functools.partial(_apply_nnx, graph, states[1]), states[0], name_of(type(model))
    if isinstance(model, nn.Module):
        variables = given(variables, "a Linen module", "module.init(key, images), or those of its training")
        return functools.partial(_apply_linen, model, _mode(model)), variables, _linen(model)
    if isinstance(model, type) or not callable(model) or _is_torch(model):
        raise ValueError(_advice(model))
    if variables is not None:
        return model, variables, _with_captured(model)
    if isinstance(model, jax.tree_util.Partial):
        parameters = {"args": model.args, "keywords": model.keywords}
        return functools.partial(_apply_partial, model.func), parameters, name_of(model.func)
    return lambda _, images: model(images), {}, _with_captured(model)


def given(variables: Any, kind: str, call: str) -> Any:
    """The variables of a model, if they are given; else raises `ValueError`, which says where they come from."""
    if variables is None:
        raise ValueError(f"{kind} needs its variables: ds.classifier(model, variables), variables being {call}")
    return variables


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
    return f"{name_of(type(module))}({settings})"


class Program(NamedTuple):
    """A function of variables and images, as JAX traces it.

    Attributes:
      text: of the program, without addresses in the memory of the process.
      captured: arrays that the function captures.
    """

    text: str
    captured: list[Any]


def traced(fn: Callable[[Any, Any], Any], variables: Any, images: types.Images | np.ndarray) -> Program:
    """Traces a function (variables, images) -> any, anew each time."""
    # JAX does not trace the same function twice.
    found = jax.make_jaxpr(lambda variables, images: fn(variables, images))(variables, images)
    # By default JAX colours the text in IPython.
    text = found.jaxpr.pretty_print(use_color=False)
    return Program(_ADDRESS.sub("", text), [x for x in found.consts if hasattr(x, "dtype")])


def data_of(array: Any) -> np.ndarray:
    """An array as numpy; random keys as their data."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array)


def name_of(fn: Any) -> str:
    """The module and the name of a function or class, or of the class of any other object."""
    fn = fn.func if isinstance(fn, functools.partial) else fn
    if not hasattr(fn, "__qualname__"):
        fn = type(fn)
    return f"{fn.__module__}.{fn.__qualname__}".replace("<locals>.", "")


def _with_captured(fn: Any) -> str:
    """The name of a function and the numbers that it captures; arrays are part of `classifiers.identity`."""
    captured: dict[str, Any] = {}
    inner = fn
    if isinstance(inner, functools.partial):
        captured |= {str(place): x for place, x in enumerate(inner.args)} | inner.keywords
        inner = inner.func
    inner = inspect.unwrap(inner)
    if inspect.isfunction(inner):
        cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
        captured |= {name: cell.cell_contents for name, cell in cells if cell != types_.CellType()}
    numbers = {
        name: x if isinstance(x, str) else np.asarray(x).item()
        for name, x in captured.items()
        if isinstance(x, str | bool | int | float | np.generic) or (isinstance(x, np.ndarray) and x.ndim == 0)
    }
    shown = ", ".join(f"{name}={x!r}" for name, x in numbers.items())
    return f"{name_of(fn)}({shown})" if numbers else name_of(fn)


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
