"""Devices: how they are set up, and how rows of work are handed to them in whole blocks."""

from __future__ import annotations

import os
import pathlib
import re
import socket
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
"""Name of the only axis of every mesh."""
_ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start() -> None:
    """Prepares JAX for a run of the command line; must come before its first use in the process.

    On a machine without accelerators every CPU core becomes a device, since XLA runs a convolution on
    one thread. Compiled programs are kept in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR
    names another.
    """
    if jax.config.values["jax_num_cpu_devices"] < 1 and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        jax.config.update("jax_num_cpu_devices", len(allowed))
    if jax.config.values["jax_compilation_cache_dir"] is None:
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(base) / "deqsmooth" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def join() -> None:
    """Makes this process one of several that JAX knows of; must come before its first use in the process.

    TPU pods, SLURM, Open MPI and Kubernetes are recognised by their environment. Elsewhere each process gets
    JAX_COORDINATOR_ADDRESS (HOST:PORT of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      ValueError: the environment does not say which process this is, or the others cannot be reached.
    """
    address, num, number = (os.environ.get(name) for name in _ENVIRONMENT)
    try:
        if address and num and number:
            jax.distributed.initialize(address, int(num), int(number), cluster_detection_method="deactivate")
        else:
            jax.distributed.initialize()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"the processes of this run cannot be joined: {str(error).splitlines()[0]} (TPU pods, SLURM, Open MPI "
            f"and Kubernetes are recognised; elsewhere set {', '.join(_ENVIRONMENT)})"
        ) from None


def part() -> None:
    """Lets go of the other processes, whose end is then nobody's concern; who this one is stays known.

    Waits until all have joined.
    """
    jax.local_devices()
    jax.distributed.shutdown()


def share(given: str | None) -> tuple[int, int]:
    """Number of this process among those that share a run's images, from 0, and how many they are.

    Images are shared out, never samples, so that processes need not know of each other.

    Args:
      given: `I/N`; by default what JAX says, which knows the hosts of a TPU pod.

    Raises:
      ValueError: it is no such share.

    Example:
      >>> share("2/8")
      (2, 8)
    """
    if given is None:
        return jax.process_index(), jax.process_count()
    match = re.fullmatch(r"(\d+)/(\d+)", given)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(f"share is {given!r}; it must be I/N, a number from 0 and how many processes there are")
    return int(match[1]), int(match[2])


def who(number: int, count: int) -> str:
    """A process among those of a run, in words."""
    return f"process {number} of {count} on {socket.gethostname()}"


def has_company() -> bool:
    """Whether JAX knows of other processes of this run."""
    return jax.process_count() > 1


def is_preempted(step: int) -> bool:
    """Whether any process of the run was sent SIGTERM; all are told after the same step, if all ask after each."""
    return has_company() and multihost_utils.reached_preemption_sync_point(step)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a device has too little memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def memory() -> int:
    """Bytes that each device of this process has for a run."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None:
        return stats["bytes_limit"]
    # A CPU's devices share the memory that nobody uses; where that is not known, all.
    known = pathlib.Path("/proc/meminfo")
    found = re.search(r"MemAvailable: +(\d+) kB", known.read_text() if known.exists() else "")
    total = int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total // jax.local_device_count()


def mesh(dividing: int | None = None) -> Mesh:
    """The devices of this process along one axis, `devices`.

    Args:
      dividing: uses as many devices as divide this number of rows; by default all.
    """
    local = jax.local_devices()
    num = len(local) if dividing is None else max(n for n in range(1, len(local) + 1) if dividing % n == 0)
    return _along(local[:num])


def mesh_of_all(dividing: int) -> Mesh:
    """The devices of all processes along one axis, as many of each as divide its part of a number of rows.

    Raises:
      ValueError: the rows do not divide by the processes.
    """
    num_processes = jax.process_count()
    if dividing % num_processes:
        raise ValueError(f"batch_size is {dividing}; it must be a multiple of the processes, {num_processes}")
    num = mesh(dividing // num_processes).size
    own = [[x for x in jax.devices() if x.process_index == process][:num] for process in range(num_processes)]
    return _along([device for devices in own for device in devices])


def _along(devices) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def join_rows(rows: Any, mesh: Mesh) -> Any:
    """Rows of this process, leaves [rows, ...], as its part of arrays over the devices of all."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device of the mesh holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def fill(rows: Any, multiple: int) -> Any:
    """Rows with copies of the last one that make their number a multiple."""
    num_rows = len(jax.tree.leaves(rows)[0])
    if num_rows % multiple == 0:
        return rows
    place = np.minimum(np.arange(-(-num_rows // multiple) * multiple), num_rows - 1)
    return jax.tree.map(lambda x: x[place], rows)


def map_blocks(fn: Callable[[Any, Any], Any], shared: Any, rows: Any, block: int, mesh: Mesh) -> Any:
    """Applies a function to rows of work in blocks of one fixed size, divided over the devices.

    Float arithmetic depends on the shape that a program is compiled for, so the block never changes
    with the number of rows or devices: the last blocks are filled up with copies of the last row, whose
    results are dropped. A row's result is then bit-identical wherever it is computed on one kind of device.

    Args:
      fn: (shared, block of rows) -> pytree; the leaves of both have the leading axis [block].
      shared: pytree that every block sees whole.
      rows: pytree of leaves with one leading axis [rows].
      block: rows that a device computes at a time.
      mesh: devices, along one axis.

    Returns:
      The results, leaves with the leading axis [rows].
    """

    def on_device(shared, rows):
        blocks = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), rows)
        mapped = lax.map(lambda rows: fn(shared, rows), blocks)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped)

    return _split(on_device, shared, rows, block * mesh.size, mesh)


def map_devices(fn: Callable[[Any, Any], Any], shared: Any, rows: Any, mesh: Mesh) -> Any:
    """Applies a function to rows of work, an equal part of them on every device.

    Args:
      fn: (shared, rows of a device) -> pytree; the leaves of both have the leading axis [rows of the device].
      shared: pytree that every device sees whole.
      rows: pytree of leaves with one leading axis [rows].
      mesh: devices, along one axis.

    Returns:
      The results, leaves with the leading axis [rows].
    """
    return _split(fn, shared, rows, mesh.size, mesh)


def _split(fn, shared, rows, multiple, mesh):
    """Rows filled up to a multiple and split over the devices."""
    num_rows = len(jax.tree.leaves(rows)[0])
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)(
        shared, fill(rows, multiple)
    )
    return jax.tree.map(lambda x: x[:num_rows], mapped)
