"""Plain (Picard) iteration: the next iterate is f(z)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from deqsmooth import types


@dataclasses.dataclass(frozen=True)
class Picard:
    """A `loop.Method` without memory: after k evaluations the iterate is f^k(z)."""

    unrolled: ClassVar[int] = 8

    def init(self, z: types.State, budget: int) -> tuple[()]:
        return ()

    def update(
        self, step: jax.Array, z: types.State, fz: types.State, memory: tuple[()]
    ) -> tuple[types.State, tuple[()], jax.Array]:
        return fz, memory, jnp.array(False)
