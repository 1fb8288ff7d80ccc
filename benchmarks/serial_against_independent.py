"""Serial and independent sampling at equal numbers of samples and at equal cost, measured in one run.

Certifies the same images in three ways: standard randomized smoothing (independent samples, 30 evaluations each
from zero); serialized randomized smoothing (SRS) with a few evaluations a sample and an audit; and standard
smoothing with fewer samples, so that it costs as many evaluations as each serial row. Writes the certificates and
a table with the cost as a ratio to the first row.

    python benchmarks/serial_against_independent.py --sigma 0.5
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import record
import rich.console
import rich.table
import tyro

import deqsmooth as ds
from deqsmooth import config, devices
from deqsmooth.certificates import rounding, statements


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare serial with independent sampling.

    Attributes:
      dataset: name of a data set that has a shipped model.
      data_dir: its TFDS data directory.
      sigma: standard deviation of the noise.
      stride: every `stride`-th test image is certified.
      num_estimation: number of samples of the baseline and of the serial rows.
      num_audit: number of audited votes in the serial rows.
      budgets: evaluations a sample of the serial rows.
      out: folder of the table and the certificates; the same command resumes an interrupted run.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    sigma: float = 0.5
    stride: int = 8
    num_estimation: int = 10_000
    num_audit: int = 1000
    budgets: tuple[int, ...] = (1, 2, 3)
    out: pathlib.Path = pathlib.Path("runs/serial_against_independent")


def main() -> None:
    """Runs every row and writes the table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    selection = config.Selection(dataset=arguments.dataset, data_dir=arguments.data_dir, stride=arguments.stride)
    dataset = ds.load_dataset(selection.dataset, selection.split, selection.data_dir)
    checkpoint = ds.load_checkpoint(arguments.dataset, arguments.sigma)
    out = arguments.out / f"{arguments.dataset}-{arguments.sigma:g}"
    independent = config.Smoothing(
        sigma=arguments.sigma,
        sampler="independent",
        solver="anderson",
        num_estimation=arguments.num_estimation,
    )
    rows = {"independent 30": record.certify("independent 30", independent, selection, checkpoint, dataset, out)}
    for budget in arguments.budgets:
        serial = config.Smoothing(
            sigma=arguments.sigma,
            solver="anderson",
            budget=budget,
            num_estimation=arguments.num_estimation,
            num_audit=arguments.num_audit,
        )
        name = f"serial {budget}, audited"
        rows[name] = record.certify(name, serial, selection, checkpoint, dataset, out)
        paid = round(np.mean([c.evaluations for c in rows[name]]))
        same_cost = dataclasses.replace(
            independent, num_estimation=paid // independent.budget - independent.num_selection
        )
        name = f"independent 30 at the cost of serial {budget}"
        rows[name] = record.certify(name, same_cost, selection, checkpoint, dataset, out)
    console = rich.console.Console(record=True, width=160)
    console.print(table(rows, arguments))
    (out / "table.txt").write_text(console.export_text())


def table(rows, arguments) -> rich.table.Table:
    """Returns a table with a line a row: cost, its ratio to the first row, mismatches, and certified accuracy."""
    baseline = next(iter(rows.values()))
    shown = rich.table.Table(
        title=f"{arguments.dataset}, sigma {arguments.sigma:g}, {len(baseline)} images, "
        f"alpha {baseline[0].alpha:g}, audit {arguments.num_audit:,}"
    )
    radii = statements.radii(arguments.sigma, max(c.radius for found in rows.values() for c in found))
    for heading in ("", "N", "evaluations", "ratio", "s/image", "ratio", "mismatch %", "ACR"):
        shown.add_column(heading, justify="right" if heading else "left")
    for radius in radii:
        shown.add_column(f"r {radius:g}", justify="right")

    def mean(found, name):
        return np.mean([getattr(c, name) for c in found])

    for name, found in rows.items():
        audited = sum(c.num_audit for c in found)
        shown.add_row(
            name,
            f"{found[0].num_estimation:,}",
            f"{mean(found, 'evaluations'):,.0f}",
            f"{mean(baseline, 'evaluations') / mean(found, 'evaluations'):.2f}",
            f"{mean(found, 'seconds'):.2f}",
            f"{mean(baseline, 'seconds') / mean(found, 'seconds'):.2f}",
            f"{100 * sum(c.mismatches for c in found) / audited:.2f}" if audited else "",
            rounding.radius(statements.average_certified_radius(found)),
            *(rounding.percent(statements.certified_accuracy(found, radius)) for radius in radii),
        )
    return shown


if __name__ == "__main__":
    main()
