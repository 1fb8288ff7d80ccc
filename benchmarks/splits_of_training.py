"""The contraction beside the DEQ on digits, on training images that neither has seen, over several splits.

The 360 test digits are few: at radius 0 both are right on nearly all of them. Here both recipes are trained on
four fifths of the training images, and certify the other fifth, for every seed of the split again (an image may be
in the held-out part of several splits). No test image is used.

    python benchmarks/splits_of_training.py --sigma 0.25 --out results/splits_of_training
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import tyro

import deqsmooth as ds
from deqsmooth import devices
from deqsmooth.certificates import statements
from deqsmooth.config import presets
from deqsmooth.training import splits

_HELD_OUT = 5
_RADII = (0.0, 0.1, 0.25, 0.5)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train both recipes on parts of the training images of digits, and certify the rest.

    Attributes:
      sigma: standard deviation of the noise.
      contraction: recipe of the contraction; its start does not matter, because votes settle from zero.
      seeds: of the splits, and of the trainings.
      num_estimation: samples of an image.
      budget: evaluations of the DEQ from zero.
      out: folder of the results.
    """

    sigma: float = 0.25
    contraction: str = "contraction-consistency"
    seeds: tuple[int, ...] = (0, 1, 2)
    num_estimation: int = 1000
    budget: int = 8
    out: pathlib.Path = pathlib.Path("runs/splits_of_training")


def main() -> None:
    """Trains and certifies, and writes a line for each recipe and split, and one of all of them."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    common = {
        "sigma": arguments.sigma,
        "sampler": "independent",
        "num_estimation": arguments.num_estimation,
        "bound": "two-sided",
    }
    ways = {
        "DEQ": ("digits", ds.Smoothing(**common, budget=arguments.budget, solver="sketched-anderson")),
        "contraction": (arguments.contraction, ds.Smoothing(**common, settle="proof", start="zero")),
    }
    found: dict[str, list[ds.Certificate]] = {name: [] for name in ways}
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / f"digits-{arguments.sigma:g}.jsonl").open("w") as file:

        def note(**line) -> None:
            print(json.dumps(line), file=sys.stderr, flush=True)
            file.write(json.dumps(line) + "\n")
            file.flush()

        for seed in arguments.seeds:
            for name, (recipe, settings) in ways.items():
                new = certified(presets.TRAINING[recipe], seed, settings)
                found[name] += new
                note(run=f"{name}, seed {seed}", **numbers(new))
        for name, certificates in found.items():
            note(run=f"{name}, all", **numbers(certificates))
        for radius in _RADII:
            compared = statements.compare(*found.values(), radius)
            counts = {"only_first": compared.only_first, "only_second": compared.only_second}
            note(run=f"DEQ, contraction at {radius:g}", **counts)


def certified(recipe, seed: int, settings: ds.Smoothing) -> list[ds.Certificate]:
    """Trains a recipe without the held-out images of a seed, and returns certificates of these."""
    dataset = ds.load_dataset("digits", "train")
    training = dataclasses.replace(recipe, sigma=settings.sigma, held_out=_HELD_OUT, seed=seed)
    classifier = ds.train(recipe.model, dataset, training)
    images, labels = (held := splits.split(dataset, None, training)[1]).take(range(len(held)))
    # Numbers that no other split has, so that both recipes are compared image by image.
    indices = range(seed * len(dataset), seed * len(dataset) + len(images))
    return list(ds.certify(classifier, images, settings, labels=labels, indices=indices))


def numbers(certificates: list[ds.Certificate]) -> dict[str, float]:
    """Returns certified accuracies in percent and the average certified radius."""
    shares = {f"r {r:g}": 100 * statements.certified_accuracy(certificates, r) for r in _RADII}
    return {"images": len(certificates), **shares, "ACR": statements.average_certified_radius(certificates)}


if __name__ == "__main__":
    main()
