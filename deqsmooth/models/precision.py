"""Mixed precision: takes a model, gives it with a part of it computed in another floating point type."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import checks


def with_cell_dtype(model: types.Model, dtype: str) -> types.Model:
    """Returns the model with its cell computed in a dtype, and everything outside the cell in float32.

    With `bfloat16`, parameters and injection are cast once per solve. States enter and leave the cell in float32,
    so the solver and the readout work in float32. Only the inside of f is rounded: the result is a different f
    with a different equilibrium. Standardisation, noise, batch and group statistics, and gradients of the
    parameters are float32. With `tensorfloat32` nothing is cast: on devices that support it, the convolutions of
    the cell round their operands to 10 bits of mantissa.

    Args:
      model: float32 model.
      dtype: `float32` (the model itself is returned), `tensorfloat32` or `bfloat16`.
    """
    if dtype == "float32":
        return model
    if dtype == "tensorfloat32":
        return model._replace(cell=jax.default_matmul_precision(dtype)(model.cell))

    def inject(
        variables: types.Variables, images: types.Images, keys: types.Keys | None
    ) -> tuple[types.Injection, types.Variables]:
        u, variables = model.inject(variables, images, keys)
        return _cast(u, dtype), variables

    return model._replace(
        bind=lambda variables: _cast(model.bind(variables), dtype),
        inject=inject,
        initial_state=lambda u: _cast(model.initial_state(u), "float32"),
        cell=lambda params, z, u: _cast(model.cell(params, _cast(z, dtype), u), "float32"),
    )


def with_injection_dtype(model: types.Model, dtype: str) -> types.Model:
    """Returns the model with its injection computed in a dtype, for training; what it returns is float32.

    The parameters are cast for each injection, so their gradients are float32. Group statistics are float32.

    Args:
      model: float32 model without batch statistics.
      dtype: `float32` (the model itself is returned) or `bfloat16`.

    Raises:
      ValueError: when it is called or traced, if its variables have more than parameters.
    """
    if dtype == "float32":
        return model

    def inject(
        variables: types.Variables, images: types.Images, keys: types.Keys | None
    ) -> tuple[types.Injection, types.Variables]:
        rule = "float32 for a model with batch statistics"
        checks.holds(list(variables) == ["params"], "injection_dtype", dtype, rule)
        rounded = {**variables, "params": _cast(variables["params"], dtype)}
        u, _ = model.inject(rounded, images.astype(dtype), keys)
        return _cast(u, "float32"), variables

    return model._replace(inject=inject)


def _cast(tree: types.State, dtype: str) -> types.State:
    """Casts the floating point leaves of a pytree."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
