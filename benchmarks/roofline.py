"""How far an evaluation of the cell is from what the machine allows, from kept measurements of `evaluation.py`.

The least time of an evaluation is the larger of two: that of its operations at the rate of the machine's matrix
product, and that of its least traffic at the rate of a copy. The least traffic reads the state, the injection and
the weights once, and writes the state once. Rates and times are those of one run.

    python benchmarks/roofline.py --out results/roofline
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import deqsmooth as ds
from deqsmooth.config import presets

_RUNS = {"cpu.jsonl": "two CPU cores", "cpu-large-100.jsonl": "two CPU cores", "nvidia-h200.jsonl": "H200"}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare kept times of evaluations with the least possible ones.

    Attributes:
      records: archive of `evaluation.py`.
      out: folder of the results.
    """

    records: pathlib.Path = pathlib.Path("results/evaluation/records.tar.gz")
    out: pathlib.Path = pathlib.Path("runs/roofline")


def least_bytes(name: str, lanes: int) -> float:
    """Returns the bytes that an evaluation must move, a lane, in float32."""
    model = ds.build(presets.MODELS[name])

    def arrays(key):
        variables = model.init(key)
        u = model.inject(variables, jnp.zeros((1, *model.image_shape)), None)[0]
        return model.bind(variables), u, model.initial_state(u)

    weights, u, z = (
        sum(4 * math.prod(x.shape) for x in jax.tree.leaves(part))
        for part in jax.eval_shape(arrays, jax.random.key(0))
    )
    return 2 * z + u + weights / lanes


def compared(lines: list[dict], machine: str) -> list[dict]:
    """Returns a line for each model and number of lanes of a run, with microseconds a lane."""
    flops, copied = (next(one[rate] for one in lines if rate in one) for rate in ("tflops", "gbs"))
    found = []
    for one in lines:
        if one["kind"] != "cell" or not one["how"].startswith("ours"):
            continue
        bytes_, operations = least_bytes(one["model"], one["lanes"]), 1e6 * one["mflop_per_lane"]
        of_flops, of_bytes = 1e6 * operations / (1e12 * flops), 1e6 * bytes_ / (1e9 * copied)
        least = max(of_flops, of_bytes)
        found.append(
            {
                "cell": f"{one['model'].upper()}, {machine}, {one['lanes']} lanes",
                "MFLOP": one["mflop_per_lane"],
                "kB": bytes_ / 1e3,
                "operations": of_flops,
                "traffic": of_bytes,
                "taken": one["us_per_lane"],
                "times the least": one["us_per_lane"] / least,
                "rates": {"TFLOP/s": flops, "GB/s": copied},
                "machine": machine,
            }
        )
    return found


def plot(found: list[dict], path: pathlib.Path) -> None:
    """Plots operations a second against operations a byte of least traffic, below the roofs of the machines."""
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6, 4))
    intensity = np.geomspace(1, 1e4, 200)
    for number, one in enumerate(found):
        colour, rates = f"C{number}", one["rates"]
        roof = np.minimum(1e12 * rates["TFLOP/s"], 1e9 * rates["GB/s"] * intensity)
        panel.plot(intensity, roof, color=colour, linewidth=0.8)
        place = 1e3 * one["MFLOP"] / one["kB"], 1e12 * one["MFLOP"] / one["taken"]
        panel.plot(*place, marker="o", linestyle="", color=colour, label=one["cell"])
    panel.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="operations a second")
    panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Writes the lines and the plot."""
    arguments = tyro.cli(Benchmark)
    found = []
    with tarfile.open(arguments.records) as archive:
        for name, machine in _RUNS.items():
            file = archive.extractfile(name)
            assert file is not None
            found += compared([json.loads(line) for line in file], machine)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "roofline.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in found))
    plot(found, arguments.out / "roofline.svg")
    for one in found:
        print(json.dumps(one))


if __name__ == "__main__":
    main()
