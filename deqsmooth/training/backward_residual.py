"""Residuals of the backward solves of a training: their median over a batch, and a warning where it is large."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deqsmooth import config
from deqsmooth.training import loop

_PerRow = Float[Array, "rows"]
LARGEST = 0.75
"""Residual above which a training warns. With 8 terms of the Neumann series, a spectral radius of 0.96 gives this
residual, and a gradient of less than 0.3 of its length. In trainings of digits with otherwise default settings the
largest residual was 0.25 with 8 terms, 0.09 with 7 iterations of Broyden's method, and 0.004 with 8 of GMRES."""


def median(residuals: _PerRow) -> jax.Array:
    """Returns the median over the rows whose loss has a gradient; in others the linear system is 0 = 0."""
    sizes = jnp.where(jnp.isnan(residuals), jnp.inf, residuals)
    is_counted = sizes > 0
    found = jnp.nanmedian(jnp.where(is_counted, sizes, jnp.nan))
    return jnp.where(jnp.any(is_counted), found, 0.0)


def warned(run: Iterator[loop.Progress], settings: config.Training) -> Iterator[loop.Progress]:
    """Passes on the progress of a training; warns once, after the first update whose median exceeds `LARGEST`.

    Warns:
      UserWarning: the backward solve has not converged.
    """
    is_silent = True
    for progress in run:
        residual = progress.metrics._asdict()["backward_residual"]
        if is_silent and residual is not None and not residual <= LARGEST:
            is_silent = False
            warnings.warn(_describe(settings, int(progress.state.update), float(residual)), stacklevel=2)
        yield progress


def _describe(settings: config.Training, update: int, residual: float) -> str:
    return (
        f"update {update}: the relative residual of the backward solve is {residual:.2g}, not at most "
        f"{LARGEST:g}, so the gradient is not that of the equilibrium; raise gradient_budget "
        f"(now {settings.gradient_budget}) or jacobian_weight (now {settings.jacobian_weight:g}), or choose "
        f"another gradient than {settings.gradient!r}"
    )
