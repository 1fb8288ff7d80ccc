"""The cell of a model in another floating point type: what mixed-precision training and certification run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from deqsmooth import types


def with_cell_dtype(model: types.Model, dtype: str) -> types.Model:
    """Returns the model with its cell computed in a type, and everything between two evaluations in float32.

    With `bfloat16`, parameters stay float32 and are cast once a solve, and so is the injection. States
    enter and leave the cell in float32, in which the solver mixes them and the readout reads them: what is
    rounded is the inside of f, so the result is another f with its own equilibrium. Standardisation, noise,
    batch and group statistics, and gradients of the parameters are float32. With `tensorfloat32` nothing
    is cast: where the device can, the cell's convolutions round their operands to 10 bits of mantissa.

    Args:
      model: float32 model.
      dtype: `float32`, which changes nothing, `tensorfloat32` or `bfloat16`.
    """
    if dtype == "float32":
        return model
    if dtype == "tensorfloat32":
        return model._replace(cell=jax.default_matmul_precision(dtype)(model.cell))

    def inject(variables, images, keys):
        u, variables = model.inject(variables, images, keys)
        return _cast(u, dtype), variables

    return model._replace(
        bind=lambda variables: _cast(model.bind(variables), dtype),
        inject=inject,
        initial_state=lambda u: _cast(model.initial_state(u), "float32"),
        cell=lambda params, z, u: _cast(model.cell(params, _cast(z, dtype), u), "float32"),
    )


def _cast(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
