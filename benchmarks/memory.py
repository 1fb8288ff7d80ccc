"""Memory of serial and of independent sampling with the paper's settings, on one device.

Compiles every program of a certification for one block of lanes, without running it, and reports the temporary
memory that XLA reserves.

    python benchmarks/memory.py --model mdeq-large --settings mdeq-30a srs-mdeq-3a srs-mdeq-1a
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import tyro

from deqsmooth import devices, models
from deqsmooth.config import presets
from deqsmooth.models import classifiers
from deqsmooth.smoothing import cost, layout, sampler

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare the memory of serial with that of independent sampling.

    Attributes:
      model: name of the model; it is not trained.
      settings: names of the settings to compare.
      solver: solver to use instead of the one in the settings.
      out: file to which a line a settings name is appended.
    """

    model: str = "mdeq-large"
    settings: tuple[str, ...] = ("mdeq-30a", "srs-mdeq-3a", "srs-mdeq-1a")
    solver: str | None = None
    out: pathlib.Path = pathlib.Path("runs/memory.jsonl")


def main() -> None:
    """Compiles the programs and writes a line for each settings name."""
    arguments = tyro.cli(Benchmark)
    size = presets.MODELS[arguments.model]
    model = models.build(size)
    variables = jax.device_get(model.init(jax.random.key(0)))
    checkpoint = classifiers.of_size(size, variables)
    image = jax.ShapeDtypeStruct((1, *size.image_shape), "float32")
    state = jax.eval_shape(lambda x: model.initial_state(model.inject(variables, x, None)[0]), image)
    lane = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.settings:
        settings = presets.SMOOTHING[name]
        settings = dataclasses.replace(
            settings, images_per_batch=1, block=settings.lanes, solver=arguments.solver or settings.solver
        )
        programs = sampler.compile_programs(
            checkpoint, layout.resolve(settings), size.image_shape, devices.mesh(num_rows=1)
        )
        line = json.dumps(
            {
                "model": arguments.model,
                "settings": name,
                "solver": settings.solver,
                "device": jax.local_devices()[0].device_kind,
                "jax": jax.__version__,
                "lanes": settings.lanes,
                "state_gib": settings.lanes * lane / _GIB,
                **{f"{phase}_gib": num_bytes / _GIB for phase, num_bytes in cost.memory(programs).items()},
            }
        )
        with arguments.out.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
