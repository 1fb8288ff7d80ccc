"""Memory of serial against independent sampling: what XLA reserves for the programs, and what a run takes.

Compiles both samplers for one device and one block of lanes, states the memory of each program, then samples one
block of noise and states the largest resident size of the process before and after.

    python benchmarks/memory.py --preset mdeq-large --lanes 400
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pathlib
import resource

import jax
import numpy as np
import tyro

from deqsmooth import checkpoints, config, distributed, models, noise, presets, sampling

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Memory of serial against independent sampling.

    Attributes:
      preset: name of the model, with its first weights.
      lanes: samples side by side.
      budget: evaluations of a serial sample.
      reference_budget: evaluations of an independent sample, and of the audit.
      out: file that a line is appended to for each sampler.
    """

    preset: str = "mdeq-large"
    lanes: int = 400
    budget: int = 3
    reference_budget: int = 30
    out: pathlib.Path = pathlib.Path("runs/memory.jsonl")


def measure(arguments: Benchmark, sampler: str) -> dict[str, object]:
    """Memory of one sampler, in a process of its own."""
    size = presets.MODELS[arguments.preset]
    model = models.build(size)
    variables = jax.device_get(model.init(jax.random.key(0)))
    serial = sampler == "serial"
    settings = config.Smoothing(
        sampler=sampler,
        budget=arguments.budget if serial else arguments.reference_budget,
        reference_budget=arguments.reference_budget if serial else None,
        num_selection=arguments.lanes,
        num_estimation=arguments.lanes,
        num_audit=arguments.lanes if serial else None,
        lanes=arguments.lanes,
        images_per_batch=1,
        block=arguments.lanes,
    )
    checkpoint = checkpoints.Checkpoint(model, variables, size, None, "")
    programs = sampling.Programs(checkpoint, settings, distributed.mesh(dividing=1), size.image_shape)
    before = _peak()
    images = np.full((1, *size.image_shape), 0.5, np.float32)
    samples = np.arange(arguments.lanes)[None]
    programs(images, np.zeros(1, int), noise.ESTIMATION, samples)
    if serial:
        programs(images, np.zeros(1, int), noise.ESTIMATION, samples, reference=True)
    return {
        **{name: x for name, x in vars(arguments).items() if name != "out"},
        "sampler": sampler,
        "device": jax.local_devices()[0].device_kind,
        "state_gib": arguments.lanes * _state_bytes(model, variables) / _GIB,
        "program_gib": programs.memory() / _GIB,
        "resident_before_gib": before / _GIB,
        "resident_after_gib": _peak() / _GIB,
    }


def _state_bytes(model, variables) -> int:
    """Bytes of one lane's state."""
    image = jax.ShapeDtypeStruct((1, *model.image_shape), np.float32)
    state = jax.eval_shape(lambda x: model.initial_state(model.inject(variables, x, None)[0]), image)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measures both samplers and writes their lines."""
    arguments = tyro.cli(Benchmark)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for sampler in ("independent", "serial"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            line = json.dumps(pool.apply(measure, (arguments, sampler)))
        with arguments.out.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
