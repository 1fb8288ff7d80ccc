"""Devices and processes: sets them up for a run, and distributes rows over devices in blocks of a fixed size.

A row is one entry of the leading axis of arrays.
"""

from __future__ import annotations

import os
import pathlib
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deqsmooth import arithmetic

AXIS = "devices"
"""Name of the only axis of every mesh."""
Rows = Any
"""Pytree of arrays with a leading axis of rows."""
Shared = Any
"""Pytree that every device holds whole."""
_ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start(*, distributed: bool = False) -> None:
    """Configures JAX for a command; must be called before JAX is first used in the process.

    On a machine without accelerators every CPU core becomes a device, because XLA runs a convolution on one
    thread. Compiled programs are cached in the user's cache folder, or in JAX_COMPILATION_CACHE_DIR if it is set.
    Settings of the environment that would change votes are ignored, and this is printed to stderr.

    Args:
      distributed: whether this process is connected to the others of its run; see `connect`.

    Raises:
      ValueError: if there is no device of the kind that JAX_PLATFORMS asks for; or see `connect`.
    """
    for message in arithmetic.reset():
        print(message, file=sys.stderr)
    if jax.config.values["jax_num_cpu_devices"] < 1 and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        jax.config.update("jax_num_cpu_devices", len(allowed))
    if jax.config.values["jax_compilation_cache_dir"] is None:
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(base) / "deqsmooth" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    if distributed:
        connect()
    _check_platforms()


def _check_platforms() -> None:
    """Raises `ValueError` unless JAX finds the devices that the environment asks for."""
    try:
        jax.local_devices()
    except (AssertionError, RuntimeError) as error:
        asked = jax.config.values["jax_platforms"]
        jax.config.update("jax_platforms", "")
        try:
            jax.local_devices()
        except (AssertionError, RuntimeError):
            raise ValueError(f"JAX finds no device: {str(error).partition(chr(10))[0]}") from None
        raise ValueError(
            f"JAX_PLATFORMS is {asked}, but this machine has no such device; it has {jax.default_backend()} "
            "(unset JAX_PLATFORMS to use what is there)"
        ) from None


def connect() -> None:
    """Connects this process to the others of a run; must be called before JAX is first used in the process.

    TPU pods, SLURM, Open MPI and Kubernetes are recognised by their environment. Elsewhere the environment of each
    process must have JAX_COORDINATOR_ADDRESS (HOST:PORT of the first process), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.

    JAX ends the process with status 134 if the others do not appear within five minutes.

    Raises:
      ValueError: if the environment does not identify this process, or the first process cannot be reached.
    """
    address, num, number = (os.environ.get(name) for name in _ENVIRONMENT)
    try:
        if address and num and number:
            jax.distributed.initialize(address, int(num), int(number), cluster_detection_method="deactivate")
        else:
            jax.distributed.initialize()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"cannot connect to the other processes of this run: {str(error).splitlines()[0]} (TPU pods, SLURM, "
            f"Open MPI and Kubernetes are recognised; elsewhere set {', '.join(_ENVIRONMENT)})"
        ) from None


def disconnect() -> None:
    """Disconnects this process from the others, so that the failure of another process does not end this one.

    Waits until all processes are connected. Afterwards `share(None)` still returns the number of this process.
    """
    jax.local_devices()
    jax.distributed.shutdown()


def share(given: str | None) -> tuple[int, int]:
    """Returns the number of this process, from 0, and the number of processes among which images are divided.

    Args:
      given: `I/N`, or None for the numbers of JAX's runtime (a TPU pod has one process on each host).

    Raises:
      ValueError: if it does not have this form, or I is not below N.

    Example:
      >>> share("2/8")
      (2, 8)
    """
    if given is None:
        return jax.process_index(), jax.process_count()
    match = re.fullmatch(r"(\d+)/(\d+)", given)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(f"share is {given!r}; it must be I/N, with I from 0 to N - 1")
    return int(match[1]), int(match[2])


def process_name(number: int, count: int) -> str:
    """Returns the name of a process for messages: its number, the number of processes, and the host."""
    return f"process {number} of {count} on {socket.gethostname()}"


def has_other_processes() -> bool:
    """Whether this process is connected, or was connected, to other processes of its run."""
    return jax.process_count() > 1


def is_preempted(step: int) -> bool:
    """Whether any process of the run received SIGTERM.

    Every process must call this after every step. It is then true after the same step in all of them.
    """
    return has_other_processes() and multihost_utils.reached_preemption_sync_point(step)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that a device ran out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def memory() -> int:
    """Returns the memory that each device of this process has for a run, in bytes."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None:
        return stats["bytes_limit"]
    # CPU devices share the memory that is available, or all memory if the available part is not known.
    known = pathlib.Path("/proc/meminfo")
    found = re.search(r"MemAvailable: +(\d+) kB", known.read_text(encoding="utf-8") if known.exists() else "")
    total = int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total // jax.local_device_count()


def mesh(num_rows: int | None = None) -> Mesh:
    """Returns a mesh of devices of this process with one axis, `devices`.

    Args:
      num_rows: number of rows; the mesh has as many devices as possible whose number divides it. By default it has
        all devices.
    """
    local = jax.local_devices()
    num = len(local) if num_rows is None else max(n for n in range(1, len(local) + 1) if num_rows % n == 0)
    return _one_axis(local[:num])


def mesh_of_all(batch_size: int) -> Mesh:
    """Returns a mesh of devices of all processes with one axis, `devices`.

    Args:
      batch_size: number of rows; every process has an equal part, which its number of devices divides.

    Raises:
      ValueError: if the number of processes does not divide the rows.
    """
    num_processes = jax.process_count()
    if batch_size % num_processes:
        raise ValueError(
            f"batch_size is {batch_size}; it must be a multiple of the number of processes, {num_processes}"
        )
    num = mesh(batch_size // num_processes).size
    own = [[x for x in jax.devices() if x.process_index == process][:num] for process in range(num_processes)]
    return _one_axis([device for devices in own for device in devices])


def _one_axis(devices: list[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def to_global(rows: Rows, mesh: Mesh) -> Rows:
    """Returns global arrays over the devices of all processes, of which this process contributes its rows."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device of the mesh holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def pad(rows: Rows, multiple: int) -> Rows:
    """Appends copies of the last row until the number of rows is a multiple of `multiple`."""
    num_rows = len(jax.tree.leaves(rows)[0])
    if num_rows % multiple == 0:
        return rows
    place = np.minimum(np.arange(-(-num_rows // multiple) * multiple), num_rows - 1)
    return jax.tree.map(lambda x: x[place], rows)


def map_blocks(fn: Callable[[Shared, Rows], Rows], shared: Shared, rows: Rows, block: int, mesh: Mesh) -> Rows:
    """Applies a function to rows in blocks of a fixed size, distributed over the devices.

    Rounding depends on the shape for which a program is compiled. Therefore the size of a block does not depend on
    the number of rows or devices: the last blocks are padded with copies of the last row, and the results of the
    copies are dropped. On one kind of device the result of a row is then bit-identical wherever it is computed.

    Args:
      fn: (shared, block of rows) -> pytree; leaves of rows and result are [block, ...].
      shared: pytree that `fn` gets whole for every block.
      rows: pytree of leaves [rows, ...].
      block: number of rows that a device computes at a time.
      mesh: devices, along one axis.

    Returns:
      The results, leaves [rows, ...].
    """

    def on_device(shared: Shared, rows: Rows) -> Rows:
        blocks = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), rows)
        mapped = lax.map(lambda rows: fn(shared, rows), blocks)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped)

    return _split(on_device, shared, rows, block * mesh.size, mesh)


def map_devices(fn: Callable[[Shared, Rows], Rows], shared: Shared, rows: Rows, mesh: Mesh) -> Rows:
    """Applies a function to rows, an equal part of them on every device.

    Args:
      fn: (shared, rows of a device) -> pytree; leaves of rows and result are [rows of the device, ...].
      shared: pytree that `fn` gets whole on every device.
      rows: pytree of leaves [rows, ...].
      mesh: devices, along one axis.

    Returns:
      The results, leaves [rows, ...].
    """
    return _split(fn, shared, rows, mesh.size, mesh)


def _split(fn: Callable[[Shared, Rows], Rows], shared: Shared, rows: Rows, multiple: int, mesh: Mesh) -> Rows:
    """Pads the rows to a multiple, splits them over the devices, and drops the results of the padding."""
    num_rows = len(jax.tree.leaves(rows)[0])
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)(
        shared, pad(rows, multiple)
    )
    return jax.tree.map(lambda x: x[:num_rows], mapped)
