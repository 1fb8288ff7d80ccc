"""The functions of a model of the caller's own: checks by shapes alone that each gives what the next one takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deqsmooth import devices, types
from deqsmooth.config import checks

_LANES = 2
_START = "['start']"


def check(model: types.Model, variables: types.Variables) -> None:
    """Checks the functions of a model as they are called in evaluation; nothing is computed.

    Args:
      model: the model.
      variables: its variables.

    Raises:
      ValueError: a function fails, or does not give what `types.Model` says; names the function.
    """
    _chain(model, variables, training=False)


def check_trainable(model: types.Model) -> None:
    """Checks the functions of a model as a training calls them, and as `check` does.

    Raises:
      ValueError: see `check`; or what `init` gives cannot be trained.
    """
    variables = _call("init", model.init, jax.eval_shape(lambda: jax.random.key(0)))
    names = list(variables) if isinstance(variables, Mapping) else type(variables).__name__
    has_params = isinstance(variables, Mapping) and "params" in variables
    checks.holds(has_params, "what init gives", names, "a dictionary with the entry 'params', which is trained")
    for name, found in _chain(model, variables, training=True).items():
        if str(jax.tree.structure(found)) != str(jax.tree.structure(variables)):
            raise ValueError(f"{name} of the model gives variables of another structure than init does")
    _chain(model, variables, training=False)


def _chain(model: types.Model, variables: types.Variables, *, training: bool) -> dict[str, types.Variables]:
    """The variables that `inject` and `readout` give, by these names, as shapes."""
    images = jax.ShapeDtypeStruct((_LANES, *model.image_shape), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), _LANES)) if training else None

    # Only arrays can be given as shapes: `keys` may be None, and `train` is a Python value.
    def inject(variables: types.Variables, images: types.Images, *keys: types.Keys) -> Any:
        return model.inject(variables, images, *(keys or (None,)))

    def readout(variables: types.Variables, z: types.State) -> Any:
        return model.readout(variables, z, training)

    u, injected = _pair("inject", "injection", inject, variables, images, *([keys] if training else []))
    z = _call("initial_state", model.initial_state, u)
    following = _call("cell", model.cell, _call("bind", model.bind, variables), z, u)
    if _shown(following) != _shown(z):
        raise ValueError(
            f"cell of the model gives {_shown(following)} for {_LANES} images; it must give what initial_state "
            f"does, {_shown(z)}"
        )
    logits, read = _pair("readout", "logits", readout, injected, z)
    shape = getattr(logits, "shape", None)
    is_row = shape is not None and len(shape) == 2 and shape[0] == _LANES
    checks.holds(is_row, f"what readout gives for {_LANES} images", _shown(logits), f"[{_LANES}, num_classes]")
    return {"inject": injected, "readout": read}


def _call(name: str, fn: Callable[..., Any], *arguments: Any) -> Any:
    """The shapes that a function gives."""
    try:
        # As in a training, batch statistics may be those of all devices.
        return jax.make_jaxpr(fn, axis_env=[(devices.AXIS, 1)], return_shape=True)(*arguments)[1]
    except Exception as error:
        # A function of the caller's own raises whatever it likes.
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{name} of the model fails: {type(error).__name__}: {reason}") from error


def _pair(
    name: str, what: str, fn: Callable[..., Any], variables: types.Variables, *arguments: Any
) -> tuple[Any, Any]:
    """The shapes of the two values that a function gives, of which the second is the variables."""
    found, rule = _call(name, fn, variables, *arguments), f"it must give a pair, ({what}, variables)"
    if not isinstance(found, tuple) or len(found) != 2:
        kind = "an array" if hasattr(found, "shape") else f"a {type(found).__name__}"
        raise ValueError(f"{name} of the model gives {kind}; {rule}")
    if _names(found[1]) != _names(variables):
        if isinstance(found[1], Mapping):
            raise ValueError(f"{name} of the model gives variables of another structure than init does; {rule}")
        several = (
            ", where several arrays are one value, ((fine, coarse), variables)" if what == "injection" else ""
        )
        raise ValueError(
            f"{name} of the model gives {_shown(found[1])} in the place of the variables; {rule}{several}"
        )
    return found


def _names(variables: Any) -> set[str]:
    """The names of the arrays of variables, without those of a trained start, which only a start takes."""
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables)}
    return {name for name in names if not name.startswith(_START)}


def _shown(tree: Any) -> str:
    """The types and shapes of a pytree's arrays, such as `(float32[2, 16], float32[2, 8])`."""
    return str(jax.tree.map(lambda x: _Text(f"{x.dtype}{list(x.shape)}"), tree))


class _Text(str):
    """A text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)
