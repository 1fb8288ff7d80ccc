"""The families with one equilibrium side by side: accuracy under noise, and evaluations until votes are settled.

It trains a contraction, a monotone operator DEQ and a subhomogeneous DEQ on digits, each with a start, without a
part of the training images, and settles votes of the images that were left out. The variables of the monotone
operator DEQ are settled by both splittings.

    python benchmarks/families.py --out results/families
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import contraction_factor
import tyro

import deqsmooth as ds
from deqsmooth import devices
from deqsmooth.config import presets
from deqsmooth.training import splits

_HELD_OUT = 5
_SHAPE = {"patch": 2, "channels": (32, 64), "width": 64}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train the families with one equilibrium on digits and settle votes of held-out images.

    Attributes:
      sigma: standard deviation of the noise.
      draws: noise draws of each held-out image.
      epochs: of the model; a third of them for its start.
      out: folder of the results.
    """

    sigma: float = 0.5
    draws: int = 20
    epochs: int = 30
    out: pathlib.Path = pathlib.Path("runs/families")


def with_start(classifier: ds.Classifier, dataset: ds.Dataset, arguments: Benchmark) -> ds.Classifier:
    """Returns the classifier with a learned start."""
    has_loss = not isinstance(classifier.size, ds.SubhomogeneousModel)
    settings = dataclasses.replace(
        presets.START_TRAINING["contraction"],
        sigma=arguments.sigma,
        held_out=_HELD_OUT,
        epochs=max(1, arguments.epochs // 3),
        settle_weight=1.0 if has_loss else None,
    )
    return ds.train_start(classifier, dataset, settings)


def main() -> None:
    """Trains, settles, and writes a line for each family."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    dataset = ds.load_dataset("digits", "train")
    resolvent = ds.MonotoneModel(splitting="peaceman-rachford", **_SHAPE)
    sizes = {
        "contraction": ds.ContractionModel(**_SHAPE),
        "monotone, Peaceman-Rachford": resolvent,
        "subhomogeneous": ds.SubhomogeneousModel(**_SHAPE),
    }
    found = []
    for name, size in sizes.items():
        base = presets.TRAINING["contraction"]
        epochs = {"epochs": arguments.epochs, "pretraining_epochs": float(arguments.epochs)}
        settings = dataclasses.replace(base, model=size, sigma=arguments.sigma, held_out=_HELD_OUT, **epochs)
        trained = ds.train(size, dataset, settings)
        held = splits.split(dataset, None, trained.training)[1]
        ways = {name: trained}
        if size is resolvent:
            # The equilibria are the same.
            forward = dataclasses.replace(resolvent, splitting="forward-backward")
            ways["monotone, forward-backward"] = ds.classifier(forward, trained.variables)
        for way, classifier in ways.items():
            started = with_start(classifier, dataset, arguments)
            images, labels = held.take(range(len(held)))
            line = contraction_factor.settle(started, images, labels, arguments.sigma, arguments.draws)
            found.append({"family": way, **line})
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "families.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in found))


if __name__ == "__main__":
    main()
