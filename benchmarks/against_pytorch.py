"""Seconds from an image to its certificate: this package beside PyTorch, in one run on the same device.

Certifies the same images with an MDEQ of CIFAR-10 by thirty evaluations from zero, by audited serial sampling of
three, and by one from the learned start. PyTorch has the same weights, eager and compiled (`pytorch_sampling.py`).
It mixes six evaluations. This package is timed with its default of three, and with six. Before timing, both must
classify the same noisy images alike. The same command goes on with the rows that are missing.

    python benchmarks/against_pytorch.py --data-dir DIR --out results/against_pytorch
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import timing
import tyro

import deqsmooth as ds
from deqsmooth import arithmetic, config, devices, solvers
from deqsmooth.models import base_classifier, starts

# Rounding may change a class where two logits are nearly equal.
_LEAST_AGREEMENT = 0.98
_SIGMA = 0.5
# Samples before the timing, for which PyTorch compiles.
_FEW = 1000


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare whole certifications with PyTorch.

    Attributes:
      data_dir: TFDS data directory of CIFAR-10.
      checkpoint: folder or name of the model.
      num_images: test images, evenly spaced.
      num_estimation: samples of an image.
      block: rows of a call of this package; see `config.Smoothing`.
      lanes: samples that PyTorch evaluates at a time, and its number of chains; ours is so many on each device.
      repeats: rounds, in which every way certifies the images; the least time counts. PyTorch has compiled before.
      out: folder of the results.
    """

    data_dir: str | None = None
    checkpoint: str = "cifar10-0.5-short"
    num_images: int = 1
    num_estimation: int = 10_000
    block: int | None = None
    lanes: int = 100
    repeats: int = 1
    out: pathlib.Path = pathlib.Path("runs/against_pytorch")


def main() -> None:
    """Times every way, and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    dataset = ds.load_dataset("cifar10", "test", arguments.data_dir)
    pixels, _ = dataset.take(range(0, len(dataset), len(dataset) // arguments.num_images))
    classifier = ds.load(arguments.checkpoint)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "cifar10.jsonl"
    lines = kept(path, classifier)
    ways = of_pytorch(classifier, pixels[0], arguments)
    for row in [row for row in rows(arguments) if row not in {line["row"] for line in lines}]:
        lines += timed(row, classifier, ways, pixels[: arguments.num_images], arguments)
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        print(path.read_text(), flush=True)
    write(lines, arguments)


def kept(path: pathlib.Path, classifier) -> list[dict]:
    """Returns the lines that earlier runs with this classifier have written to a file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in lines if line["model"] == classifier.sha256]


def rows(arguments: Benchmark) -> dict[str, config.Smoothing]:
    """Returns the settings of every row by name."""
    plain = {
        "sigma": _SIGMA,
        "num_estimation": arguments.num_estimation,
        "lanes": arguments.lanes,
        "block": arguments.block,
    }
    learned = {**plain, "sampler": "independent", "start": "learned", "budget": 1}
    looks = (arguments.num_estimation // 20, arguments.num_estimation // 5, arguments.num_estimation)
    return {
        "zero 30": ds.Smoothing(**plain, sampler="independent"),
        # As many chains on every device as PyTorch has in a batch.
        "serial 3, audited": ds.Smoothing(
            **{**plain, "lanes": arguments.lanes * jax.local_device_count()}, sampler="serial"
        ),
        "learned 1": ds.Smoothing(**learned),
        "learned 1, looks": ds.Smoothing(**learned, looks=looks, stop_gain=0.02),
    }


def timed(row: str, classifier, ways: dict, pixels, arguments: Benchmark) -> list[dict]:
    """Returns the lines of a row: ours, and the ways of PyTorch, which have no looks."""
    settings = rows(arguments)[row]
    ours = {"ours": settings}
    if settings.budget > 1:
        ours["ours, Anderson of six"] = dataclasses.replace(settings, solver="anderson")
    runs: dict[str, Callable[[], object]] = {}
    for how, chosen in ours.items():
        runs[how] = timing.certifying(classifier, pixels, chosen)
    if settings.looks is None:
        few = dataclasses.replace(settings, num_estimation=min(_FEW, settings.num_estimation), num_audit=None)
        for how, way in ways.items():
            way.lower_bound(pixels[0], few)
            runs[f"PyTorch, {how}"] = functools.partial(bounded, way, pixels, settings)
    spent = {how: min(seconds) for how, seconds in timing.rounds(runs, arguments.repeats).items()}
    common = {
        "row": row,
        "samples": arguments.num_estimation,
        "lanes": arguments.lanes,
        "repeats": arguments.repeats,
        "device": jax.local_devices()[0].device_kind,
        "model": classifier.sha256,
    }
    return [
        {
            "way": f"{row}: {how}",
            **common,
            "how": how,
            "seconds an image": x / len(pixels),
            "times ours": x / spent["ours"],
        }
        for how, x in spent.items()
    ]


def of_pytorch(classifier, pixels, arguments: Benchmark) -> dict:
    """Returns the samplings of PyTorch, eager and compiled; none if it is not installed.

    Raises:
      ValueError: too few of the noisy copies of an image have the same class as here.
    """
    try:
        import pytorch_sampling
        import torch
    except ImportError:
        return {}
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    # Ours multiplies in full float32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    ways = {
        how: pytorch_sampling.Sampling(classifier, device, arguments.lanes, how == "compiled")
        for how in ("eager", "compiled")
    }
    model, variables = classifier.model, classifier.variables
    noise = np.random.default_rng(0).standard_normal((arguments.lanes, *pixels.shape), np.float32)
    noisy = pixels[None] + np.float32(_SIGMA) * noise
    start = starts.build("learned", model, classifier.start_training)(variables)
    for begin, budget in ((starts.zero(model), 30), (start, 1)):
        solver = solvers.build("anderson", budget)
        with arithmetic.standard():
            ours = base_classifier.classify(model, variables, solver, jnp.asarray(noisy), begin).logits
        given = torch.from_numpy(noisy).permute(0, 3, 1, 2)
        for how, way in ways.items():
            theirs = way.logits(given, budget, is_learned=begin is start).argmax(-1).cpu().numpy()
            agreement = float(np.mean(np.argmax(ours, -1) == theirs))
            if agreement < _LEAST_AGREEMENT:
                raise ValueError(f"{how}: only {agreement:.1%} of the classes agree with {budget} evaluations")
    return ways


def bounded(way, pixels, settings):
    """Bounds the probability of the class of every image in PyTorch."""
    return [way.lower_bound(one, settings) for one in pixels]


def write(lines, arguments) -> None:
    """Writes a table of the lines."""
    shown = rich.table.Table(title=f"seconds of an image, N {arguments.num_estimation:,}")
    for heading in ("", "how", "seconds", "times ours"):
        shown.add_column(heading, justify="right" if heading.startswith(("seconds", "times")) else "left")
    for line in lines:
        shown.add_row(line["row"], line["how"], f"{line['seconds an image']:.4g}", f"{line['times ours']:.2f}")
    console = rich.console.Console(record=True, width=100)
    console.print(shown)
    (arguments.out / "cifar10.txt").write_text(console.export_text())


if __name__ == "__main__":
    main()
