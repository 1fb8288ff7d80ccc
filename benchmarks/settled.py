"""Seconds and evaluations of an image with votes settled by proof, against the shipped model, in one run.

Certifies the same images by every way in turn, several times, so that a slow period of the machine affects all of
them. The least seconds of each image and way count.

    python benchmarks/settled.py --sigma 0.5
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import rich.console
import rich.table
import tyro

import deqsmooth as ds
from deqsmooth import config, devices
from deqsmooth.models import checkpoints


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare votes settled by proof with the shipped model of the same data set.

    Attributes:
      dataset: name of the data set.
      data_dir: its TFDS data directory.
      checkpoint: folder of a contraction; by default the shipped one.
      sigma: standard deviation of the noise.
      stride: every `stride`-th test image is certified.
      num_estimation: samples of an image.
      block: rows of a call of the settled ways; see `config.Smoothing`.
      repeats: how often every way certifies the images, after one that compiles.
      out: folder of the results.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    checkpoint: pathlib.Path | None = None
    sigma: float = 0.5
    stride: int = 60
    num_estimation: int = 10_000
    block: int | None = None
    repeats: int = 3
    out: pathlib.Path = pathlib.Path("runs/settled")


def main() -> None:
    """Certifies by every way in turn, and writes a table and its numbers."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    selection = config.Selection(dataset=arguments.dataset, data_dir=arguments.data_dir, stride=arguments.stride)
    dataset = ds.load_dataset(selection.dataset, selection.split, selection.data_dir)
    indices = selection.indices(len(dataset))
    shipped = ds.load_checkpoint(arguments.dataset, arguments.sigma)
    contraction = checkpoints.load_or_shipped(arguments.checkpoint, arguments.dataset, arguments.sigma, "proof")
    plain = {"sigma": arguments.sigma, "sampler": "independent", "num_estimation": arguments.num_estimation}
    proof = {**plain, "settle": "proof", "block": arguments.block}
    ways = {
        "shipped, zero 30": (shipped, config.Smoothing(**plain, solver="anderson")),
        "shipped, learned 1": (shipped, config.Smoothing(**plain, start="learned", budget=1, solver="plain")),
        **{
            f"settled, {start}": (contraction, config.Smoothing(**proof, start=start))
            for start in ("zero", "previous", "clean", "learned")
        },
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    found: dict[str, list[ds.Certificate]] = {}
    for _ in range(arguments.repeats + 1):
        for name, (classifier, settings) in ways.items():
            found[name] = list(ds.certify_dataset(classifier, dataset, indices, settings))
            seconds[name].append([one.seconds for one in found[name]])
    least = {name: float(np.min(runs[1:], 0).mean()) for name, runs in seconds.items()}
    samples = arguments.num_estimation + config.Smoothing().num_selection
    baseline = least["shipped, zero 30"]
    lines = [
        {
            "way": name,
            "evaluations a sample": float(np.mean([one.evaluations for one in found[name]]) / samples),
            "unsettled %": float(100 * np.mean([one.counts[-1] / one.num_estimation for one in found[name]])),
            "s/image": least[name],
            "less time": baseline / least[name],
            "equal counts": [one.counts for one in found[name]] == [one.counts for one in found["settled, zero"]],
        }
        for name in ways
    ]
    name = f"{arguments.dataset}-{arguments.sigma:g}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(line) for line in lines)
    (arguments.out / f"{name}.jsonl").write_text(text + "\n")
    shown = rich.table.Table(title=f"{name}, {len(indices)} images, N {arguments.num_estimation:,}")
    for heading in ("", "evaluations a sample", "unsettled %", "s/image", "less time"):
        shown.add_column(heading, justify="right" if heading else "left")
    for line in lines:
        shown.add_row(
            line["way"],
            f"{line['evaluations a sample']:.2f}",
            f"{line['unsettled %']:.3f}",
            f"{line['s/image']:.3f}",
            f"{line['less time']:.1f}x",
        )
    console = rich.console.Console(record=True, width=100)
    console.print(shown)
    (arguments.out / f"{name}.txt").write_text(console.export_text())


if __name__ == "__main__":
    main()
