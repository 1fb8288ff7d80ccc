"""Agreement of short solves with long ones, by start, solver and budget.

Solves the same noisy test images from every start that is a function of the noisy input, with every solver and
budget, and compares the classes with those of 30 evaluations with Anderson mixing from zero. Writes a line a
combination, and a table.

    python benchmarks/starts.py --sigma 0.5
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import tyro

import deqsmooth as ds
from deqsmooth import devices, models, solvers
from deqsmooth.models import base_classifier, checkpoints, starts
from deqsmooth.smoothing import noise

_BLOCK = 100


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare starts, solvers and budgets.

    Attributes:
      dataset: name of the data set.
      data_dir: its TFDS data directory.
      checkpoint: folder of a model with a trained start; by default the shipped one.
      sigma: standard deviation of the noise.
      num_images: approximate number of test images, evenly spaced.
      num_draws: number of noise draws of each image.
      solvers: solvers of the short solves, by their names for `--solver` of `certify.py`.
      budgets: evaluations of the short solves.
      reference_budget: evaluations of the long solve.
      out: folder of the results.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    checkpoint: pathlib.Path | None = None
    sigma: float = 0.5
    num_images: int = 360
    num_draws: int = 20
    solvers: tuple[str, ...] = ("plain", "anderson")
    budgets: tuple[int, ...] = (1, 2, 3, 5, 8)
    reference_budget: int = 30
    out: pathlib.Path = pathlib.Path("runs/starts")


def main() -> None:
    """Measures every combination and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    checkpoint = checkpoints.load_or_shipped(arguments.checkpoint, arguments.dataset, arguments.sigma)
    dataset = ds.load_dataset(arguments.dataset, "test", arguments.data_dir)
    images, labels = dataset.take(range(0, len(dataset), max(1, len(dataset) // arguments.num_images)))
    labels_of = labeller(checkpoint, arguments, images)
    truth = np.tile(labels, arguments.num_draws)
    reference = labels_of("zero", "anderson", arguments.reference_budget)
    combinations = [
        (start, solver, budget)
        for start in ("zero", "constant", "learned")
        for solver in arguments.solvers
        for budget in arguments.budgets
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"{arguments.dataset}-{arguments.sigma:g}"
    shown = rich.table.Table(
        title=f"{name}: {len(truth):,} noisy images, reference accuracy {100 * np.mean(reference == truth):.2f} %"
    )
    for heading in ("start", "solver", "evaluations", "agreement %", "accuracy %"):
        shown.add_column(heading, justify="left" if heading in ("start", "solver") else "right")
    with (arguments.out / f"{name}.jsonl").open("w") as file:
        for start, solver, budget in combinations:
            found = labels_of(start, solver, budget)
            agreement, accuracy = float(np.mean(found == reference)), float(np.mean(found == truth))
            row = {
                "start": start,
                "solver": solver,
                "budget": budget,
                "agreement": agreement,
                "accuracy": accuracy,
                "reference_accuracy": float(np.mean(reference == truth)),
                "samples": len(truth),
                "checkpoint": checkpoint.sha256,
            }
            file.write(json.dumps(row) + "\n")
            shown.add_row(start, solver, str(budget), f"{100 * agreement:.2f}", f"{100 * accuracy:.2f}")
    console = rich.console.Console(record=True, width=100)
    console.print(shown)
    (arguments.out / f"{name}.txt").write_text(console.export_text())


def labeller(checkpoint, arguments, images):
    """Returns a function (start, solver, budget) -> classes of all noisy images [draws * images], int32."""
    model, variables = checkpoint.model, jax.tree.map(jnp.asarray, checkpoint.variables)
    network = models.build_start(checkpoint.start_training.network, model)
    begins = {
        "zero": lambda variables: starts.zero(model),
        "constant": lambda variables: starts.constant(model, variables["start"]["mean"]),
        "learned": lambda variables: starts.learned(network, variables["start"]["network"]),
    }
    place = np.tile(np.arange(len(images), dtype=np.int32), arguments.num_draws)
    rows = {"place": place, "draw": np.arange(len(place), dtype=np.int32)}
    mesh = devices.mesh()

    def labels_of(start, solver, budget):
        solve = solvers.build(solver, budget)

        def on_block(shared, rows):
            variables, images = shared
            keys = jnp.stack([noise.phase_key(0, 0, noise.SELECTION)] * _BLOCK)
            noisy = images[rows["place"]] + arguments.sigma * noise.gaussian(keys, rows["draw"], images.shape[1:])
            output = base_classifier.classify(model, variables, solve, noisy, begins[start](variables))
            return jnp.argmax(output.logits, -1)

        @jax.jit
        def run(variables, images):
            return devices.map_blocks(on_block, (variables, images), rows, _BLOCK, mesh)

        return np.asarray(run(variables, images))

    return labels_of


if __name__ == "__main__":
    main()
