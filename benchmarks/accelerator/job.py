"""What the jobs of this folder share: flags, the clock, models from one job to the next, and the curve."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time

import data
import jax
import jax.numpy as jnp
import packed

import deqsmooth as ds
from deqsmooth import devices, models

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import evaluation
import timing

_BEGUN = time.perf_counter()


@dataclasses.dataclass(frozen=True)
class Job:
    """A job on an accelerator. It stops by itself, saves what it has, and the same command goes on from there.

    Attributes:
      data: CIFAR-10, as `data.py` writes it.
      out: folder of the results: a few files below 16 MiB.
      state: folder of everything that is needed to go on exactly; it may be large.
      last: folder of the results of earlier jobs, from which this one begins where `state` has nothing.
      minutes: after which the job stops.
      smoke: run on made-up images and a tiny model, in seconds.
    """

    data: pathlib.Path | None = None
    out: pathlib.Path = pathlib.Path("runs/accelerator/results")
    state: pathlib.Path = pathlib.Path("runs/accelerator/state")
    last: pathlib.Path = pathlib.Path("results/accelerator")
    minutes: float = 7.5
    smoke: bool = False

    def seconds_left(self) -> float:
        """Seconds until the job stops."""
        return 60 * self.minutes - seconds()

    def images(self) -> tuple[ds.Dataset, ds.Dataset]:
        """The training and the test images; also configures JAX.

        Raises:
          ValueError: there is no file of them.
        """
        if self.data is None and not self.smoke:
            raise ValueError("data is missing; it must be the file that benchmarks/accelerator/data.py writes")
        devices.start()
        # Most of the seconds of a smoke run are those of compilation.
        jax.config.update("jax_disable_most_optimizations", self.smoke)
        say(f"on {jax.local_device_count()} x {jax.local_devices()[0].device_kind}, jax {jax.__version__}")
        return data.load(None if self.smoke else self.data)

    def model(self, name: str) -> ds.Classifier | None:
        """The packed model of a training job: this folder's, or an earlier one; None if there is none."""
        for folder in (self.out, self.state, self.last):
            path = folder / name / "model.npz"
            if path.is_file():
                say(f"model of {path}")
                return packed.load(path)
        return None


def seconds() -> float:
    """Seconds since this process began."""
    return time.perf_counter() - _BEGUN


def say(text: str) -> None:
    """Prints a line with the seconds since the beginning."""
    print(f"[{seconds():6.1f}] {text}", flush=True)


def write(path: pathlib.Path, values: dict) -> None:
    """Writes values as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


def read(path: pathlib.Path) -> dict:
    """Reads values of a JSON file; none if it does not exist."""
    return json.loads(path.read_text()) if path.is_file() else {}


def matrix_product(size: int) -> float:
    """Returns the TFLOP/s of a square matrix product in bfloat16."""
    left, right = (
        jax.random.normal(key, (size, size), jnp.bfloat16) for key in jax.random.split(jax.random.key(0))
    )
    return 2 * size**3 / timing.seconds(jax.jit(jnp.matmul), left, right, repeats=3) / 1e12


def costs(size) -> dict[str, float]:
    """Returns MFLOP an image of injection, cell and readout of a model, and the millions of its parameters."""
    model = models.build(size)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *size.image_shape), jnp.float32)
    u = jax.eval_shape(lambda v, x: model.inject(v, x, None)[0], variables, image)
    z, bound = jax.eval_shape(model.initial_state, u), jax.eval_shape(model.bind, variables)
    programs = {
        "injection": (lambda v, x: model.inject(v, x, None)[0], variables, image),
        "cell": (model.cell, bound, z, u),
        "readout": (lambda v, z: model.readout(v, z, False)[0], variables, z),
    }
    found = {name: evaluation.flops(*program) / 1e6 for name, program in programs.items()}
    return {**found, "parameters": sum(x.size for x in jax.tree.leaves(variables["params"])) / 1e6}


def forward(size, budget: int) -> float:
    """Returns the FLOP of the classification of an image by some evaluations of the cell."""
    found = costs(size)
    return 1e6 * (found["injection"] + budget * found["cell"] + found["readout"])


def draw(lines: list[dict], path: pathlib.Path, title: str) -> None:
    """Draws loss and accuracies of a training, if matplotlib is installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    updates = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "noisy_accuracy" in line]
    left.plot([x["update"] for x in updates], [x["loss"] for x in updates], linewidth=0.8)
    left.set(xlabel="update", ylabel="loss")
    right.plot(
        [x["update"] for x in updates], [100 * x["accuracy"] for x in updates], linewidth=0.6, label="training"
    )
    for name, label in (("noisy_accuracy", "held out, noisy"), ("clean_accuracy", "held out, clean")):
        right.plot([x["update"] for x in evaluations], [100 * x[name] for x in evaluations], "o-", label=label)
    right.set(xlabel="update", ylabel="accuracy, %")
    right.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def finished(name: str, is_finished: bool) -> None:
    """Says how the job ended."""
    say(f"{name}: finished" if is_finished else f"{name}: stopped by its clock; the same command goes on")
