"""Seconds of an image by one evaluation from the learned start, beside thirty from zero, in turn.

A round certifies images in every way, one after the other, so that a slow minute of the machine affects all of
them. A way that takes less time certifies more images. Every way is compiled before.

    python benchmarks/short_solve.py --out results/short_solve
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
import rich.console
import rich.table
import timing
import tyro

import deqsmooth as ds
from deqsmooth import devices


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare short solves with long ones.

    Attributes:
      model: name of a shipped model with a learned start.
      data_dir: TFDS data directory of its data set.
      num_estimation: largest number of samples of an image.
      images: test images that a way certifies in a round: from zero, from the learned start, and so with looks.
      repeats: rounds.
      out: folder of the results.
    """

    model: str = "digits-0.5-short"
    data_dir: str | None = None
    num_estimation: int = 10_000
    images: tuple[int, int, int] = (3, 30, 60)
    repeats: int = 7
    out: pathlib.Path = pathlib.Path("runs/short_solve")


def main() -> None:
    """Times every way, and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    classifier = ds.load(arguments.model)
    dataset = ds.load_dataset(classifier.training.dataset, "test", arguments.data_dir)
    spent = timing.rounds(ways(classifier, dataset, arguments), arguments.repeats)
    lines = []
    for (way, seconds), num in zip(spent.items(), arguments.images, strict=True):
        an_image = np.array(seconds) / num
        times = np.array(next(iter(spent.values()))) / arguments.images[0] / an_image
        lines.append(
            {
                "way": way,
                "least seconds": min(an_image),
                "median seconds": float(np.median(an_image)),
                "times less": float(np.median(times)),
                "least times less": min(times),
                "most times less": max(times),
                "seconds": list(an_image),
                "images": num,
                "samples": arguments.num_estimation,
                "model": arguments.model,
                "devices": jax.local_device_count(),
                "jax": jax.__version__,
            }
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.model}.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write(lines, path.with_suffix(".txt"))


def ways(classifier, dataset, arguments: Benchmark) -> dict:
    """Returns a call by way: it certifies the images of a round."""
    common = {
        "sampler": "independent",
        "sigma": classifier.training.sigma,
        "num_estimation": arguments.num_estimation,
    }
    learned = {**common, "start": "learned", "budget": 1}
    looks = (arguments.num_estimation // 20, arguments.num_estimation // 5, arguments.num_estimation)
    settings = {
        "zero 30": ds.Smoothing(**common),
        "learned 1": ds.Smoothing(**learned),
        "learned 1, looks": ds.Smoothing(**learned, looks=looks, stop_gain=0.02),
    }
    calls = {}
    for (way, chosen), num in zip(settings.items(), arguments.images, strict=True):
        pixels, _ = dataset.take(range(0, len(dataset), len(dataset) // num)[:num])
        calls[way] = timing.certifying(classifier, pixels, chosen)
    return calls


def write(lines, path: pathlib.Path) -> None:
    """Writes a table of the lines."""
    shown = rich.table.Table(title=f"seconds of an image, N {lines[0]['samples']:,}")
    for heading in ("", "least", "median", "times less", "in the rounds"):
        shown.add_column(heading, justify="right" if heading else "left")
    for line in lines:
        shown.add_row(
            line["way"],
            f"{line['least seconds']:.4g}",
            f"{line['median seconds']:.4g}",
            f"{line['times less']:.1f}",
            f"{line['least times less']:.1f} to {line['most times less']:.1f}",
        )
    console = rich.console.Console(record=True, width=100)
    console.print(shown)
    path.write_text(console.export_text())


if __name__ == "__main__":
    main()
