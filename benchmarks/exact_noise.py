"""What exact noise costs: radii and seconds of a model, with ordinary and with exact noise in turns.

    python benchmarks/exact_noise.py > results/exact_noise/table.txt

Programs are compiled, and the classifier is checked, before the seconds are read.
"""

from __future__ import annotations

import dataclasses
import sys
import time

import numpy as np
import tyro

import deqsmooth as ds
from deqsmooth.smoothing import certification


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare certificates with ordinary and with exact noise.

    Attributes:
      dataset: of the shipped model, digits or cifar10. Of CIFAR-10 the images are random, since only seconds are
        read.
      sigma: standard deviation of the noise.
      budget: cell evaluations from the learned start.
      stride: every so many of the test images.
      max_images: largest number of images.
      num_estimation: samples of an image.
      repeats: turns of each noise; the least seconds count.
    """

    dataset: str = "digits"
    sigma: float = 0.5
    budget: int = 1
    stride: int = 6
    max_images: int = 60
    num_estimation: int = 10_000
    repeats: int = 3


def images_of(arguments: Benchmark) -> tuple[np.ndarray, np.ndarray, int]:
    """Images, labels and the grid on which the images are."""
    if arguments.dataset == "digits":
        dataset = ds.load_dataset("digits")
        return *dataset.take(list(range(0, len(dataset), arguments.stride))[: arguments.max_images]), 256
    rng, num = np.random.default_rng(0), arguments.max_images
    return rng.integers(0, 256, (num, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, num), 255


def main() -> int:
    """Prints the table."""
    arguments = tyro.cli(Benchmark)
    classifier = ds.load_checkpoint(arguments.dataset, arguments.sigma)
    images, labels, grid = images_of(arguments)
    base = ds.Smoothing(
        sigma=arguments.sigma,
        sampler="independent",
        start="learned",
        budget=arguments.budget,
        num_estimation=arguments.num_estimation,
    )
    settings = {"gaussian": base, "exact": dataclasses.replace(base, noise="exact", grid=grid)}
    programs = {
        name: certification.prepare(classifier, one, images.shape[1:], len(images))
        for name, one in settings.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    acr: dict[str, float] = {}
    for _ in range(arguments.repeats):
        for name, one in settings.items():
            begun = time.perf_counter()
            ready = programs[name]
            made = ds.certify(classifier, images, one, labels=labels, programs=ready, skip_soundness_check=True)
            found = list(made)
            seconds[name].append((time.perf_counter() - begun) / len(images))
            acr[name] = ds.summary(found).acr.value
            error = found[0].noise_error
    ratio = min(seconds["exact"]) / min(seconds["gaussian"])
    method = f"sigma {arguments.sigma:g}, {arguments.budget} from the learned start"
    amount = f"{len(images)} images, N {arguments.num_estimation:,}, grid 1/{grid}"
    print(f"{arguments.dataset}, {method}, {amount}")
    for name in settings:
        print(f"  {name:<9} ACR {acr[name]:.4f}, seconds an image {', '.join(f'{s:.3f}' for s in seconds[name])}")
    print(f"  ratio of the least seconds {ratio:.3f}; noise_error {error:.1e}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
