"""Seconds of a sample by the number of rows that a device evaluates at a time.

Certifies an image with shipped models, by thirty evaluations from zero and by one from the learned start. All
sizes are timed in turn, and their calls have the same samples: only the size of the activations differs.

    python benchmarks/blocks.py --data-dir DIR --out results/blocks
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import rich.console
import rich.table
import timing
import tyro

import deqsmooth as ds
from deqsmooth import devices


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare sizes of blocks.

    Attributes:
      data_dir: TFDS data directory of CIFAR-10.
      models: names of shipped models with a learned start.
      blocks: numbers of rows, divisors of 100.
      samples: noise samples of the thirty evaluations and of the one.
      repeats: timings of each; the least counts.
      out: folder of the results.
    """

    data_dir: str | None = None
    models: tuple[str, ...] = ("digits-0.5-short", "cifar10-0.5-short")
    blocks: tuple[int, ...] = (100, 50, 25, 10, 5)
    samples: tuple[int, int] = (200, 3200)
    repeats: int = 5
    out: pathlib.Path = pathlib.Path("runs/blocks")


def main() -> None:
    """Times every size, and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    lines = [line for name in arguments.models for line in measured(name, arguments)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "cpu.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shown = rich.table.Table(title="microseconds of a sample by rows of a block")
    for column in ("", *map(str, arguments.blocks)):
        shown.add_column(column, justify="right" if column else "left")
    for line in lines:
        shown.add_row(line["method"], *(f"{line[str(block)]:.4g}" for block in arguments.blocks))
    console = rich.console.Console(record=True, width=100)
    console.print(shown)
    (arguments.out / "cpu.txt").write_text(console.export_text())


def measured(name: str, arguments: Benchmark):
    """Yields the line of each method with a model: microseconds of a sample by the size of the block."""
    classifier = ds.load(name)
    dataset = ds.load_dataset(classifier.training.dataset, "test", arguments.data_dir)
    images, _ = dataset.take(range(1))
    for (start, budget), samples in zip((("zero", 30), ("learned", 1)), arguments.samples, strict=True):
        runs = {}
        for block in arguments.blocks:
            settings = ds.Smoothing(
                sampler="independent",
                start=start,
                budget=budget,
                sigma=classifier.training.sigma,
                num_selection=100,
                num_estimation=samples - 100,
                block=block,
            )
            runs[str(block)] = timing.certifying(classifier, images, settings)
        spent = timing.seconds_in_turn(runs, arguments.repeats)
        yield {
            "method": f"{name}, {start} {budget}",
            **{block: 1e6 * seconds / samples for block, seconds in spent.items()},
            "samples": samples,
            "devices": jax.local_device_count(),
            "jax": jax.__version__,
        }


if __name__ == "__main__":
    main()
