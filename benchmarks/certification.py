"""Certified accuracy and cost of starts, budgets, looks and audited serial sampling, measured in one run.

Certifies the same images with the settings of every row and writes a file of certificates a row. From these files
it makes a table and, if matplotlib is installed, a plot of certified accuracy against cost. The same command
resumes an interrupted run.

    python benchmarks/certification.py --sigma 0.5
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys

import numpy as np
import record
import rich.console
import rich.table
import tyro

import deqsmooth as ds
from deqsmooth import config, devices
from deqsmooth.certificates import rounding, statements
from deqsmooth.config import checks
from deqsmooth.models import checkpoints

# Smallest height of a panel of the plot, in percent.
_LEAST_SPAN = 20.0


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare ways to certify by cost and certified accuracy.

    Attributes:
      dataset: name of the data set.
      data_dir: its TFDS data directory.
      checkpoint: folder of a model with a trained start; by default the shipped one.
      sigma: standard deviation of the noise.
      stride: every `stride`-th test image is certified.
      num_estimation: largest number of samples of an image, in every row.
      num_audit: number of audited votes in the serial rows.
      looks: looks of the rows that have them; the last one is `num_estimation`.
      stop_gain: see `config.Smoothing`; for the rows with looks.
      rows: names of the rows to run; all by default.
      solver: of the rows that name no other.
      dtype: floating point type of the cell.
      block: see `config.Smoothing`.
      out: folder of the results.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    checkpoint: pathlib.Path | None = None
    sigma: float = 0.5
    stride: int = 8
    num_estimation: int = 10_000
    num_audit: int = 1000
    looks: tuple[int, ...] = (500, 2000, 10_000)
    stop_gain: float = 0.02
    rows: tuple[str, ...] = ()
    solver: str = "anderson"
    dtype: str = "float32"
    block: int | None = None
    out: pathlib.Path = pathlib.Path("runs/certification")


def settings_by_row(arguments: Benchmark, is_contraction: bool) -> dict[str, config.Smoothing]:
    """Returns the settings of every row by name; the first row is the baseline.

    A contraction also has rows whose votes are settled by proof.
    """
    common = {
        "sigma": arguments.sigma,
        "solver": arguments.solver,
        "num_estimation": arguments.num_estimation,
        "dtype": arguments.dtype,
        "block": arguments.block,
    }
    plain = {**common, "sampler": "independent"}
    rows = {"zero 30": config.Smoothing(**plain)}
    rows |= {f"zero {k}": config.Smoothing(**plain, budget=k) for k in (1, 2, 3, 5, 8)}
    rows["zero 30, tolerance 1e-3"] = config.Smoothing(**plain, tolerance=1e-3)
    for start in ("constant", "learned"):
        rows |= {f"{start} {k}": config.Smoothing(**plain, start=start, budget=k) for k in (1, 2, 3, 5)}
    looks = {"looks": arguments.looks, "stop_gain": arguments.stop_gain}
    if is_contraction:
        starts = ("zero", "previous", "clean", "learned")
        rows |= {
            f"settled {start}": config.Smoothing(**{**plain, "solver": "plain"}, settle="proof", start=start)
            for start in starts
        }
    rows |= {f"{name}, looks": dataclasses.replace(settings, **looks) for name, settings in rows.items()}
    for k in (1, 2, 3):
        rows[f"serial {k}, audited"] = config.Smoothing(**common, budget=k, num_audit=arguments.num_audit)
    for name in arguments.rows:
        checks.known("row", name, rows)
    return {name: x for name, x in rows.items() if name in (arguments.rows or rows)}


def table(rows, radii, title) -> rich.table.Table:
    """Returns a table with a line a row: cost, its ratio to the first row, and certified accuracy."""
    first = next(iter(rows.values()))
    shown = rich.table.Table(title=title)
    for heading in ("", "samples", "evaluations", "fewer", "s/image", "less", "mismatch %", "ACR"):
        shown.add_column(heading, justify="right" if heading else "left")
    for radius in radii:
        shown.add_column(f"r {radius:g}", justify="right")
    for name, found in rows.items():
        audited = sum(c.num_audit for c in found)
        shown.add_row(
            name,
            f"{mean(found, 'num_estimation'):,.0f}",
            f"{mean(found, 'evaluations'):,.0f}",
            f"{mean(first, 'evaluations') / mean(found, 'evaluations'):.1f}x",
            f"{mean(found, 'seconds'):.2f}",
            f"{mean(first, 'seconds') / mean(found, 'seconds'):.1f}x",
            f"{100 * sum(c.mismatches for c in found) / audited:.2f}" if audited else "",
            rounding.radius(statements.average_certified_radius(found)),
            *(rounding.percent(statements.certified_accuracy(found, radius)) for radius in radii),
        )
    return shown


def plot(rows, radii, path) -> None:
    """Plots certified accuracy against evaluations, one panel a radius.

    The number at a point is the budget. Rows with looks have dashed lines.
    """
    from matplotlib import pyplot

    kinds: dict[str, list] = {}
    for name, found in rows.items():
        kinds.setdefault(re.sub(r" \d+", "", name, count=1), []).append(found)
    ways = list(dict.fromkeys(kind.removesuffix(", looks") for kind in kinds))
    figure, panels = pyplot.subplots(1, len(radii), figsize=(4.2 * len(radii), 4.2), squeeze=False)
    for panel, radius in zip(panels[0], radii, strict=True):
        for kind, chosen in kinds.items():
            points = sorted(
                (mean(found, "evaluations"), 100 * statements.certified_accuracy(found, radius), found[0].budget)
                for found in chosen
            )
            way = kind.removesuffix(", looks")
            color = f"C{ways.index(way)}"
            evaluations, certified, _ = zip(*points, strict=True)
            if kind == way:
                panel.plot(evaluations, certified, marker="o", color=color, label=kind)
                for x, y, budget in points:
                    panel.annotate(str(budget), (x, y), (0, 5), textcoords="offset points", color=color)
            else:
                panel.plot(evaluations, certified, "o--", markerfacecolor="white", color=color, label=kind)
        low, high = panel.get_ylim()
        middle, half = (low + high) / 2, max(high - low, _LEAST_SPAN) / 2
        panel.set_ylim(middle - half, middle + half)
        panel.set(xscale="log", title=f"radius {radius:g}", xlabel="cell evaluations an image")
    panels[0][0].set_ylabel("certified accuracy, %")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path)


def mean(found, name) -> float:
    """Returns the mean of a field over certificates."""
    return float(np.mean([getattr(c, name) for c in found]))


def main() -> None:
    """Runs every row, then writes the table and the plot."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    selection = config.Selection(dataset=arguments.dataset, data_dir=arguments.data_dir, stride=arguments.stride)
    dataset = ds.load_dataset(selection.dataset, selection.split, selection.data_dir)
    checkpoint = checkpoints.load_or_shipped(arguments.checkpoint, arguments.dataset, arguments.sigma)
    is_contraction = checkpoint.model.contraction is not None
    name = f"{arguments.dataset}-{arguments.sigma:g}"
    out = arguments.out / name
    rows = {
        row: record.certify(row, settings, selection, checkpoint, dataset, out)
        for row, settings in settings_by_row(arguments, is_contraction).items()
    }
    radii = statements.radii(arguments.sigma, max(c.radius for found in rows.values() for c in found))
    console = rich.console.Console(record=True, width=160)
    console.print(table(rows, radii, f"{name}, {len(next(iter(rows.values())))} images"))
    (out / "table.txt").write_text(console.export_text())
    try:
        plot(rows, radii[:4], out / "accuracy-against-cost.svg")
    except ImportError:
        print("no plot: pip install matplotlib", file=sys.stderr)


if __name__ == "__main__":
    main()
