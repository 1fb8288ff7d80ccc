"""Seconds from an image to its certificate beside PyTorch, with the MDEQ-SMALL shipped for short solves."""

from __future__ import annotations

import dataclasses
import json

import jax
import job
import tyro

import deqsmooth as ds
from deqsmooth import config
from deqsmooth.config import architecture

import against_pytorch  # isort: skip

_TINY = ds.MdeqModel(image_shape=(8, 8, 3), channels=(8, 16), head_channels=(4, 4), final_channels=8)


@dataclasses.dataclass(frozen=True)
class Whole(job.Job):
    """Time whole certifications.

    Attributes:
      lanes: samples that a device evaluates at a time.
      repeats: timings of every way; the least counts.
    """

    lanes: int = 1000
    repeats: int = 3


def main() -> None:
    """Makes the rows that earlier runs have not made, and writes all as lines."""
    arguments = tyro.cli(Whole)
    train, test = arguments.images()
    benchmark = against_pytorch.Benchmark(
        num_estimation=200 if arguments.smoke else 10_000,
        block=8 if arguments.smoke else arguments.lanes,
        lanes=8 if arguments.smoke else arguments.lanes,
        repeats=1 if arguments.smoke else arguments.repeats,
    )
    path = arguments.state / "whole" / "whole.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    classifier = tiny(train) if arguments.smoke else ds.load("cifar10-0.5-short")
    lines = against_pytorch.kept(path, classifier)
    left = [row for row in against_pytorch.rows(benchmark) if row not in {line["row"] for line in lines}]
    pixels, _ = test.take(range(1))
    ways = against_pytorch.of_pytorch(classifier, pixels[0], benchmark) if left else {}
    with path.open("a") as file:
        while left and arguments.seconds_left() > 0:
            for line in against_pytorch.timed(left.pop(0), classifier, ways, pixels, benchmark):
                job.say(json.dumps(line))
                file.write(json.dumps(line) + "\n")
            file.flush()
    out = arguments.out / "whole"
    out.mkdir(parents=True, exist_ok=True)
    (out / "whole.jsonl").write_text(path.read_text())
    job.finished("whole", not left)


def tiny(train: ds.Dataset) -> ds.Classifier:
    """Returns an untrained model with a start."""
    start = config.StartTraining(
        dataset="cifar10", epochs=1, batch_size=64, reference_budget=2, network=architecture.StartModel(width=None)
    )
    classifier = ds.classifier(_TINY, ds.build(_TINY).init(jax.random.key(0)))
    return ds.train_start(classifier, train, start)


if __name__ == "__main__":
    main()
