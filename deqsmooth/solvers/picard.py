"""Plain (Picard) iteration: the next iterate is f(z)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Picard:
    """A `loop.Method` without memory: after k evaluations the iterate is f^k(z)."""

    unrolled: ClassVar[int] = 8

    def init(self, z, budget):
        return ()

    def update(self, step, z, fz, memory):
        return fz, memory, jnp.bool_(False)
