"""Cost of a sample against the number of samples, lanes, images per batch, block, resolution and budget.

An untrained single-scale model certifies random images, because the cost of a solve with a fixed budget does not
depend on its input. Varies one quantity at a time. Measures compilation, memory and time a sample separately, and
writes a line a measurement and a table.

    python benchmarks/scaling.py
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
import tyro

import deqsmooth as ds
from deqsmooth import devices, models
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, cost

_MIB = 2**20
_VARIED = ("samples", "lanes", "side_by_side", "block", "resolution", "budget")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure the cost of a sample by size.

    The first value of each quantity is its base value, which it keeps while another quantity varies.

    Attributes:
      samples: values of the number of samples N.
      lanes: values of the number of lanes.
      side_by_side: values of `images_per_batch`, see `config.Smoothing`; None for its default.
      block: values of the number of rows in one compiled evaluation.
      resolution: values of height and width of the images.
      budget: values of the number of evaluations of a solve.
      sampler: `independent` or `serial`.
      num_images: number of images to certify for each measurement; the fastest one counts.
      out: folder of the results.
    """

    samples: tuple[int, ...] = (1000, 4000, 16_000)
    lanes: tuple[int, ...] = (100, 20, 400)
    side_by_side: tuple[int | None, ...] = (None, 1, 2, 8)
    block: tuple[int, ...] = (100, 25, 50, 200)
    resolution: tuple[int, ...] = (8, 16, 32)
    budget: tuple[int, ...] = (30, 1, 5)
    sampler: str = "independent"
    num_images: int = 3
    out: pathlib.Path = pathlib.Path("runs/scaling")


def main() -> None:
    """Makes every measurement, and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    base = {varied: getattr(arguments, varied)[0] for varied in _VARIED}
    devices.start()
    # A program from the cache would not show the time of its compilation.
    jax.config.update("jax_enable_compilation_cache", False)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"{arguments.sampler}-{jax.local_devices()[0].device_kind.replace(' ', '-').lower()}"
    columns = ("varied", "value", "compile s", "temporary MiB", "us a sample", "us an evaluation")
    shown = rich.table.Table(title=f"{name}, otherwise {', '.join(f'{k} {x}' for k, x in base.items())}")
    for column in columns:
        shown.add_column(column, justify="left" if column == "varied" else "right")
    with (arguments.out / f"{name}.jsonl").open("w") as file:
        for varied in _VARIED:
            for value in getattr(arguments, varied):
                row = measure({**base, varied: value}, arguments)
                file.write(json.dumps({"varied": varied, "sampler": arguments.sampler, **row}) + "\n")
                file.flush()
                shown.add_row(
                    varied,
                    str(value),
                    f"{row['compile_seconds']:.1f}",
                    f"{row['temporary_bytes'] / _MIB:.1f}",
                    f"{1e6 * row['seconds_a_sample']:.1f}",
                    f"{1e6 * row['seconds_an_evaluation']:.2f}",
                )
    console = rich.console.Console(record=True, width=130)
    console.print(shown)
    (arguments.out / f"{name}.txt").write_text(console.export_text())


def measure(size: dict[str, Any], arguments: Benchmark) -> dict[str, Any]:
    """Returns one measurement: seconds of compilation, temporary bytes on a device, and seconds a sample."""
    shape = (size["resolution"], size["resolution"], 1)
    architecture = ds.ConvModel(image_shape=shape)
    model = models.build(architecture)
    variables = jax.device_get(model.init(jax.random.key(0)))
    checkpoint = classifiers.of_size(architecture, variables)
    settings = ds.Smoothing(
        sampler=arguments.sampler,
        solver="anderson",
        budget=size["budget"],
        num_estimation=size["samples"],
        lanes=size["lanes"],
        images_per_batch=size["side_by_side"],
        block=size["block"],
    )
    images = np.random.default_rng(0).random((arguments.num_images, *shape), np.float32)
    begun = time.perf_counter()
    programs = certification.prepare(checkpoint, settings, shape, len(images))
    compiled = time.perf_counter() - begun
    found = list(ds.certify(checkpoint, images, settings, programs=programs))
    least = min(found, key=lambda certificate: certificate.seconds)
    return {
        **size,
        "devices": jax.local_device_count(),
        "compile_seconds": compiled,
        "temporary_bytes": max(cost.memory(programs).values()),
        "seconds_a_sample": least.seconds / (settings.num_selection + settings.num_estimation),
        "seconds_an_evaluation": least.seconds / least.evaluations,
    }


if __name__ == "__main__":
    main()
