"""What the cell of a contraction adds, and what it costs: accuracy and evaluations against its Lipschitz constant.

For every constant it trains a contraction, a start, and both together, as the shipped ones were trained, without a
part of the training images. On these it counts the evaluations until a vote is settled, from three starts. With
constant 0 the network has no equilibrium: its state is the injection after relu.

    python benchmarks/contraction_factor.py --out results/contraction
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import tyro

import deqsmooth as ds
from deqsmooth import devices, models, solvers
from deqsmooth.config import presets
from deqsmooth.smoothing import proof
from deqsmooth.solvers import settled
from deqsmooth.training import splits

_HELD_OUT, _BUDGET = 5, 60


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train contractions of several Lipschitz constants on digits and settle votes of held-out images.

    Attributes:
      factors: Lipschitz constants of the cell.
      sigma: standard deviation of the noise.
      draws: noise draws of each held-out image.
      shorten: divides the epochs of every training, for a trial.
      out: folder of the results.
    """

    factors: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    sigma: float = 0.5
    draws: int = 20
    shorten: int = 1
    out: pathlib.Path = pathlib.Path("runs/contraction")


def trained(factor: float, arguments: Benchmark, dataset: ds.Dataset) -> ds.Classifier:
    """Returns a contraction that was trained by the three presets, without the images that are held out."""
    base = presets.TRAINING["contraction"]
    size = dataclasses.replace(base.model, factor=factor)
    # Enough unrolled evaluations that what is left is less than a hundredth of the first step.
    budget = max(4, int(np.ceil(np.log(0.01) / np.log(max(factor, 1e-3)))))
    shared = {"sigma": arguments.sigma, "held_out": _HELD_OUT}
    epochs = base.epochs // arguments.shorten
    settings = dataclasses.replace(
        base, **shared, epochs=epochs, pretraining_epochs=float(epochs), pretraining_budget=min(budget, 12)
    )
    classifier = ds.train(size, dataset, settings)
    for name in ("contraction", "contraction-fine-tuned"):
        start = presets.START_TRAINING[name]
        start = dataclasses.replace(start, **shared, epochs=start.epochs // arguments.shorten)
        classifier = ds.train_start(classifier, dataset, start)
    return classifier


def settle(classifier: ds.Classifier, images: np.ndarray, labels: np.ndarray, sigma: float, draws: int) -> dict:
    """Returns accuracy under noise, share of unsettled votes, and mean evaluations from each start.

    Args:
      classifier: with a learned start.
      images: clean images.
      labels: their classes.
      sigma: standard deviation of the noise.
      draws: noise draws of each image.
    """
    model, variables = classifier.model, classifier.variables
    constants, params = proof.proof(classifier), model.bind(variables)
    network = models.build_start(classifier.start_training.network, model)
    solver = settled.Solver(solvers.build("plain", _BUDGET).method, _BUDGET)
    key = jax.random.key(0)

    @jax.jit
    def run(noisy, last):
        u, _ = model.inject(variables, noisy, None)

        def decide(z, fz):
            return constants.verdict(z, fz, u, model.readout(variables, fz)[0])

        starts = {
            "zero": model.initial_state(u),
            "previous": last,
            "learned": network.apply(variables["start"]["network"], u),
        }
        solved = {name: solver.solve(lambda z: model.cell(params, z, u), z, decide) for name, z in starts.items()}
        votes = jnp.argmax(model.readout(variables, solved["zero"].value)[0], -1)
        return votes, {name: x.num_evaluations for name, x in solved.items()}, solved["zero"]

    def noisy(draw):
        return images + sigma * jax.random.normal(jax.random.fold_in(key, draw), images.shape)

    last = run(noisy(draws), model.initial_state(model.inject(variables, images, None)[0]))[2].value
    right, unsettled, evaluations = [], [], {}
    for draw in range(draws):
        votes, spent, solution = run(noisy(draw), last)
        last = solution.value
        right.append(np.asarray(votes) == labels)
        unsettled.append(~np.isfinite(np.asarray(solution.residual)))
        for name, x in spent.items():
            evaluations.setdefault(name, []).append(np.asarray(x))
    return {
        "proved": constants.factor,
        "accuracy under noise %": float(100 * np.mean(right)),
        "unsettled %": float(100 * np.mean(unsettled)),
        **{name: float(np.mean(x)) for name, x in evaluations.items()},
    }


def table(found: list[dict]) -> rich.table.Table:
    """Returns a table with a line for each constant."""
    shown = rich.table.Table(title="contractions on held-out training digits")
    for heading in ("constant", "accuracy under noise %", "unsettled %", "zero", "previous", "learned"):
        shown.add_column(heading, justify="right")
    for one in found:
        evaluations = (f"{one[name]:.2f}" for name in ("zero", "previous", "learned"))
        numbers = (f"{one['accuracy under noise %']:.1f}", f"{one['unsettled %']:.3f}")
        shown.add_row(f"{one['constant']:g}", *numbers, *evaluations)
    return shown


def plot(found: list[dict], path: pathlib.Path) -> None:
    """Plots accuracy under noise against evaluations until a vote is settled; numbers are the constants."""
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(5.6, 3.8))
    for name in ("zero", "previous", "learned"):
        x, y = [one[name] for one in found], [one["accuracy under noise %"] for one in found]
        panel.plot(x, y, marker="o", label=f"from {name}")
        for one, *place in zip(found, x, y, strict=True):
            panel.annotate(f"{one['constant']:g}", place, (0, 5), textcoords="offset points", fontsize=8)
    panel.set(xlabel="cell evaluations a sample", ylabel="accuracy under noise, %", xscale="log")
    panel.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Trains, settles, and writes the table, the numbers and the plot."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    dataset = ds.load_dataset("digits", "train")
    found = []
    for factor in arguments.factors:
        print(f"factor {factor:g}", file=sys.stderr, flush=True)
        classifier = trained(factor, arguments, dataset)
        held = splits.split(dataset, None, classifier.training)[1]
        line = settle(classifier, *held.take(range(len(held))), arguments.sigma, arguments.draws)
        found.append({"constant": factor, **line})
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(one) for one in found]
    (arguments.out / "factors.jsonl").write_text("\n".join(lines) + "\n")
    console = rich.console.Console(record=True, width=100)
    console.print(table(found))
    (arguments.out / "factors.txt").write_text(console.export_text())
    plot(found, arguments.out / "factors.svg")


if __name__ == "__main__":
    main()
