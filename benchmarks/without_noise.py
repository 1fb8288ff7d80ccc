"""Certificates without noise beside those of the smoothed classifier, of one model.

It trains a contraction, or a monotone operator DEQ (an LBEN), with a Lipschitz constant on digits, and certifies
the same test images in both ways. Of several settings it takes those with the largest mean radius without noise on
held-out training images, and trains once more with them, on all training images.

    python benchmarks/without_noise.py --out results/without_noise
    python benchmarks/without_noise.py --family monotone --lipschitz 1 2 4 --sigmas 0.1 --out results/lben
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import sys
from typing import Literal

import numpy as np
import tyro

import deqsmooth as ds
from deqsmooth import config, devices
from deqsmooth.certificates import rounding
from deqsmooth.config import presets
from deqsmooth.training import splits

_HELD_OUT = 5
_RADII = (0.0, 0.1, 0.25, 0.5, 0.75)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Certify digits by Lipschitz constants and by smoothing.

    Attributes:
      family: of the model.
      lipschitz: Lipschitz constants of the logits that are tried.
      sigmas: noise levels of training that are tried.
      smoothed: noise level of the smoothed classifier.
      stride: every `stride`-th test image is certified.
      num_estimation: samples of an image.
      shorten: divides the epochs of every training, for a trial.
      out: folder of the results.
    """

    family: Literal["contraction", "monotone"] = "contraction"
    lipschitz: tuple[float, ...] = (2.0, 4.0, 8.0)
    sigmas: tuple[float, ...] = (0.1, 0.25)
    smoothed: float = 0.25
    stride: int = 6
    num_estimation: int = 10_000
    shorten: int = 1
    out: pathlib.Path = pathlib.Path("runs/without_noise")


def trained(
    lipschitz: float,
    sigma: float,
    arguments: Benchmark,
    dataset: ds.Dataset,
    *,
    held_out: int | None = None,
    test: ds.Dataset | None = None,
) -> ds.Classifier:
    """Returns a model that was trained by the preset `lipschitz`."""
    base = presets.TRAINING["lipschitz"]
    size, budget = dataclasses.replace(base.model, lipschitz=lipschitz), base.pretraining_budget
    if arguments.family == "monotone":
        size, budget = ds.MonotoneModel(patch=size.patch, channels=size.channels, lipschitz=lipschitz), 12
    epochs = max(1, base.epochs // arguments.shorten)
    settings = dataclasses.replace(
        base,
        model=size,
        sigma=sigma,
        epochs=epochs,
        pretraining_epochs=float(epochs),
        pretraining_budget=budget,
        held_out=held_out,
    )
    return ds.train(size, dataset, settings, test=test)


def chosen(arguments: Benchmark, dataset: ds.Dataset) -> tuple[dict, list[dict]]:
    """Returns the best of the settings that are tried, and a line for each."""
    lines = []
    for lipschitz, sigma in itertools.product(arguments.lipschitz, arguments.sigmas):
        classifier = trained(lipschitz, sigma, arguments, dataset, held_out=_HELD_OUT)
        held = splits.split(dataset, None, classifier.training)[1]
        images, labels = held.take(range(len(held)))
        found = ds.certify_without_noise(classifier, images)
        right = found.labels == labels
        lines.append(
            {
                "trained": f"{lipschitz:g}, sigma {sigma:g}",
                "accuracy %": 100 * float(right.mean()),
                "mean radius": float(np.mean(right * found.radii)),
                "settings": {"lipschitz": lipschitz, "sigma": sigma},
            }
        )
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    return max(lines, key=lambda line: line["mean radius"])["settings"], lines


def shares(radii: np.ndarray) -> dict[str, float]:
    """Returns certified accuracy in percent at some radii, and ACR; a radius is 0 where nothing is certified."""
    at = {f"r {r:g}": float(rounding.percent(np.mean(radii >= max(r, 1e-9)))) for r in _RADII}
    return {**at, "ACR": float(rounding.radius(radii.mean()))}


def main() -> None:
    """Trains, certifies, and writes records and lines."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    training, test = ds.load_dataset("digits", "train"), ds.load_dataset("digits")
    settings, tried = chosen(arguments, training)
    classifier = trained(**settings, arguments=arguments, dataset=training, test=test)
    indices = range(0, len(test), arguments.stride)
    images, labels = test.take(indices)
    found = ds.certify_without_noise(classifier, images)
    lines = [
        {
            "index": i,
            "label": int(label),
            "prediction": int(of),
            "radius": float(radius),
            "evaluations": int(spent),
        }
        for i, label, of, radius, spent in zip(indices, labels, *found, strict=True)
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    smoothing = ds.Smoothing(
        sigma=arguments.smoothed, sampler="independent", settle="proof", num_estimation=arguments.num_estimation
    )
    selection = config.Selection(dataset="digits", stride=arguments.stride)
    out = arguments.out / "smoothed.jsonl"
    smoothed = list(ds.certify_dataset(classifier, test, indices, smoothing, out=out, selection=selection))
    radii = {
        "without noise": np.where(found.labels == labels, found.radii, 0),
        f"smoothed, sigma {arguments.smoothed:g}": np.array([one.correct * one.radius for one in smoothed]),
    }
    summary = [{"certificate": name, **shares(of)} for name, of in radii.items()]
    for name, written in (("tried", tried), ("without-noise", lines), ("summary", summary)):
        (arguments.out / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in written))


if __name__ == "__main__":
    main()
