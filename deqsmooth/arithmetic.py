"""The arithmetic of programs: the settings of JAX on which results depend, and what their rounding depends on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from deqsmooth import machine

_STANDARD: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_disable_jit": False,
}
"""Settings on which results depend, or with which programs cannot be compiled, and their standard values."""
_COMPILATION: dict[str, Any] = {
    "jax_disable_most_optimizations": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
}
"""Settings that change how programs are compiled, and so how they round, and their defaults."""
FROM_FLOAT32 = 2.0**-29
"""What a bound on the rounding of float32 is multiplied by for float64."""
_COMPARED = ("device", "processor", "vector", "xla_flags", "jax_settings", "commit", "versions")


def reset() -> list[str]:
    """Gives the settings of this process their standard values; returns a message for each that had another."""
    messages = []
    for name, value in _STANDARD.items():
        if (given := jax.config.values[name]) != value:
            messages.append(f"{name.upper()} is {given}; it is ignored, so that results do not depend on it")
            jax.config.update(name, value)
    return messages


@contextlib.contextmanager
def standard() -> Iterator[None]:
    """Context in which programs are compiled, and called, with the same arithmetic in every process.

    Numbers have 32 bits, types and ranks are promoted, matrices are multiplied in full precision, and keys are
    those of JAX's default generator, whatever this process and its environment chose. A program that was compiled
    in this context must be called in it. It can be used as a decorator, but not of a generator: between two items
    the context would also hold in the caller.

    Example:
      >>> with standard():
      ...     (jax.numpy.float32(1) + jax.numpy.arange(2)).dtype
      dtype('float32')
    """
    with (
        jax.enable_x64(_STANDARD["jax_enable_x64"]),
        jax.numpy_dtype_promotion(_STANDARD["jax_numpy_dtype_promotion"]),
        jax.numpy_rank_promotion(_STANDARD["jax_numpy_rank_promotion"]),
        jax.default_prng_impl(_STANDARD["jax_default_prng_impl"]),
        jax.threefry_partitionable(_STANDARD["jax_threefry_partitionable"]),
        jax.debug_nans(_STANDARD["jax_debug_nans"]),
        jax.debug_infs(_STANDARD["jax_debug_infs"]),
        jax.disable_jit(_STANDARD["jax_disable_jit"]),
        # On accelerators JAX multiplies float32 in fewer bits unless told otherwise.
        jax.default_matmul_precision("highest"),
    ):
        yield


@contextlib.contextmanager
def double() -> Iterator[None]:
    """The context `standard`, in which numbers may have 64 bits.

    Example:
      >>> with double():
      ...     jax.numpy.ones(1, "float64").dtype
      dtype('float64')
    """
    with standard(), jax.enable_x64(True):
        yield


def description() -> dict[str, str | None]:
    """Returns what the rounding of programs depends on, for the header of records; see `is_same`.

    Returns:
      `device`: its kind, `cpu` for any processor; `processor`, `vector`, `xla_flags`, `commit`: see `machine`;
      `jax_settings`: settings of JAX that change rounding, without those that have their defaults. A value is None
      if it is unknown, or if there is nothing to name.
    """
    changed = {name: x for name, default in _COMPILATION.items() if (x := jax.config.values[name]) != default}
    return {
        "device": jax.local_devices()[0].device_kind,
        "processor": machine.processor(),
        "vector": machine.vector(),
        "xla_flags": machine.xla_flags(),
        "jax_settings": " ".join(f"{name}={x}" for name, x in changed.items()) or None,
        "commit": machine.commit(),
    }


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two headers promise results that are equal in every bit.

    They do with equal versions, devices, XLA flags, settings of JAX and commits, on a CPU also with equal
    processors. A header that does not name all of these promises nothing.

    Args:
      one: header with the entries of `description()` and with `versions`.
      other: another one.
    """
    if any(name not in header for header in (one, other) for name in _COMPARED):
        return False
    on_cpu = one["device"] == "cpu"
    return all(one[name] == other[name] for name in _COMPARED if on_cpu or name not in ("processor", "vector"))
