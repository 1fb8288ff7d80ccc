"""What a start network costs, and how often one evaluation from its start gives the class of a long solve.

For every width of the start network it trains a start of a trained model, then model and start together. It
compares the classes of one evaluation with those of the first model's thirty from zero, on noisy test images and
on training images that were left out, and certifies the test images. Choices belong on the training images.

    python benchmarks/start_cost.py --sigma 0.5 --out results/start_cost
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import evaluation
import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import starts
import timing
import tyro

import deqsmooth as ds
from deqsmooth import config, devices, solvers
from deqsmooth.certificates import statements
from deqsmooth.config import architecture
from deqsmooth.models import base_classifier, checkpoints, classifiers
from deqsmooth.models import starts as model_starts
from deqsmooth.training import splits

_LANES = 200


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train start networks of several widths, and compare cost and agreement.

    Attributes:
      dataset: name of the data set.
      data_dir: its TFDS data directory.
      checkpoint: folder of a model; by default the shipped one.
      sigma: standard deviation of the noise.
      widths: of the start networks; see `StartModel`.
      epochs: of the training of the start, and of model and start together.
      reference_budget: evaluations of the teacher in the trainings; it is compared with thirty.
      batch_size: images of an update.
      held_out: one of so many training images is left out.
      num_images: approximate number of images of each kind, evenly spaced.
      num_draws: noise draws of each image.
      num_estimation: samples with which each test image is certified.
      repeats: number of timings; the least counts.
      out: folder of the results.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    checkpoint: pathlib.Path | None = None
    sigma: float = 0.5
    widths: tuple[int | None, ...] = (32, 16, 8, None, 0)
    epochs: int = 40
    reference_budget: int = 30
    batch_size: int = 128
    held_out: int = 10
    num_images: int = 360
    num_draws: int = 20
    num_estimation: int = 1000
    repeats: int = 5
    out: pathlib.Path = pathlib.Path("runs/start_cost")


def main() -> None:
    """Trains, compares, and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    teacher = checkpoints.load_or_shipped(arguments.checkpoint, arguments.dataset, arguments.sigma)
    dataset = ds.load_dataset(arguments.dataset, "train", arguments.data_dir)
    base = config.StartTraining(
        dataset=arguments.dataset,
        sigma=arguments.sigma,
        epochs=arguments.epochs,
        reference_budget=arguments.reference_budget,
        batch_size=arguments.batch_size,
        held_out=arguments.held_out,
        evaluation_interval=arguments.epochs,
    )
    held = splits.split(dataset, None, base)[1]
    kinds = {"held-out": held, "test": ds.load_dataset(arguments.dataset, "test", arguments.data_dir)}
    images = {
        kind: some.take(range(0, len(some), max(1, len(some) // arguments.num_images)))
        for kind, some in kinds.items()
    }
    reference = {
        kind: starts.labeller(teacher, arguments, x)("zero", "anderson", 30) for kind, (x, _) in images.items()
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"{arguments.dataset}-{arguments.sigma:g}"
    lines = []
    for width in arguments.widths:
        settings = dataclasses.replace(base, network=architecture.StartModel(width=width))
        started = ds.train_start(teacher, dataset, settings)
        tuned = dataclasses.replace(settings, fine_tune=1.0, learning_rate=settings.learning_rate / 3)
        for trained, classifier in (
            ("alone", started),
            ("with the model", ds.train_start(started, dataset, tuned)),
        ):
            network = {None: "no hidden layers", 0: "no products"}.get(width, f"width {width}")
            line = {"start": f"{network}, {trained}", **costs(classifier, arguments)}
            found = {
                kind: starts.labeller(classifier, arguments, x)("learned", "plain", 1)
                for kind, (x, _) in images.items()
            }
            truth = np.tile(images["test"][1], arguments.num_draws)
            line |= {f"agreement, {kind}": 100 * float(np.mean(found[kind] == reference[kind])) for kind in kinds}
            line["accuracy, test"] = 100 * float(np.mean(found["test"] == truth))
            line["accuracy of thirty, test"] = 100 * float(np.mean(reference["test"] == truth))
            line |= certified(classifier, *images["test"], arguments)
            lines.append(line)
            print(json.dumps(line), file=sys.stderr, flush=True)
            (arguments.out / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    write(lines, name, arguments)


def certified(classifier: classifiers.Classifier, images, labels, arguments: Benchmark) -> dict[str, float]:
    """Returns certified accuracies in percent, and the average certified radius, with one evaluation."""
    settings = ds.Smoothing(
        sigma=arguments.sigma,
        sampler="independent",
        start="learned",
        budget=1,
        num_estimation=arguments.num_estimation,
    )
    found = list(ds.certify(classifier, images, settings, labels=labels))
    shares = {f"r {r:g}": 100 * statements.certified_accuracy(found, r) for r in (0.0, 0.25, 0.5)}
    return {**shares, "ACR": statements.average_certified_radius(found)}


def costs(classifier: classifiers.Classifier, arguments: Benchmark) -> dict[str, float]:
    """Returns operations of the start network in cells, and microseconds of a sample with one evaluation."""
    model, variables = classifier.model, classifier.variables
    begin = model_starts.build("learned", model, classifier.start_training)(variables)
    params = model.bind(variables)
    u, _ = model.inject(variables, jnp.zeros((1, *model.image_shape)), None)
    start = evaluation.flops(begin, u)
    cell = evaluation.flops(lambda z: model.cell(params, z, u), model.initial_state(u))
    solver = solvers.build("plain", 1)
    images = jax.random.uniform(jax.random.key(0), (_LANES, *model.image_shape))
    classify = jax.jit(lambda x: base_classifier.classify(model, variables, solver, x, begin).logits)
    seconds = timing.seconds(classify, images, repeats=arguments.repeats)
    return {"cells": start / cell, "microseconds": 1e6 * seconds / _LANES}


def write(lines: list[dict], name: str, arguments: Benchmark) -> None:
    """Writes a table of the lines."""
    shown = rich.table.Table(title=f"{name}, {arguments.epochs} epochs, one evaluation")
    columns = list(lines[0])
    for column in columns:
        shown.add_column(column, justify="left" if column == "start" else "right")
    for line in lines:
        shown.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in line.values()))
    console = rich.console.Console(record=True, width=150)
    console.print(shown)
    (arguments.out / f"{name}.txt").write_text(console.export_text())


if __name__ == "__main__":
    main()
