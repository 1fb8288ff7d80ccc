"""Convolutions of 3x3 by Winograd's method, and by strips, against XLA's convolution, on one core of a CPU.

Both ways in turn, for the layers of the models that this package ships or names. The least time of each counts.

    python benchmarks/convolution.py --out results/convolution
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import timing
import tyro

from deqsmooth import devices
from deqsmooth.models import layers, strips, winograd

_PADDING = ((1, 1), (1, 1))
# (side, channels, features) of the 3x3 convolutions of stride 1, first those by Winograd's method.
_WIDE = {
    "MDEQ-SMALL": [(32, 8, 40), (32, 40, 8), (16, 16, 80), (16, 80, 16), (8, 32, 160), (8, 160, 32)],
    "MDEQ-LARGE": [(32, 32, 160), (32, 160, 32), (16, 64, 320), (8, 128, 640), (4, 256, 1280)],
    "digits": [(8, 24, 72), (8, 72, 24)],
    "contraction, CIFAR-10": [(8, 48, 128), (8, 128, 128), (4, 128, 128)],
    "ResNet-110": [(32, 16, 16), (16, 32, 32), (8, 64, 64)],
}
_NARROW = {
    "MDEQ-SMALL": [(32, 3, 8), (32, 8, 8)],
    "ResNet-110": [(32, 3, 16)],
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare two ways of convolution.

    Attributes:
      lanes: images side by side.
      repeats: how often each way is timed; the least time counts.
      out: folder of the results.
    """

    lanes: int = 96
    repeats: int = 10
    out: pathlib.Path = pathlib.Path("runs/convolution")


def main() -> None:
    """Times every layer, and writes lines."""
    arguments = tyro.cli(Benchmark)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    devices.start()
    in_strips = functools.partial(strips.convolve, stride=1, padding=_PADDING)
    wide = [(layer, winograd.convolve) for layer in _layers(_WIDE)]
    lines = []
    for (model, side, channels, features), way in [*wide, *((layer, in_strips) for layer in _layers(_NARROW))]:
        name = f"{model}: {side}x{side}, {channels} to {features}"
        lines.append({"layer": name, **compare((side, channels, features), way, arguments)})
        print(json.dumps(lines[-1]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "layers.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _layers(models: dict[str, list[tuple[int, int, int]]]) -> list[tuple[str, int, int, int]]:
    """Returns (model, side, channels, features) of every layer."""
    return [(model, *shape) for model, shapes in models.items() for shape in shapes]


def compare(shape: tuple[int, int, int], way: Callable, arguments: Benchmark) -> dict[str, float]:
    """Returns how a way compares with XLA's convolution.

    Args:
      shape: side, channels and features of the layer.
      way: takes activations and kernel.
      arguments: of the benchmark.
    """
    side, channels, features = shape
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (arguments.lanes, side, side, channels))
    kernel = jax.random.normal(keys[1], (3, 3, channels, features)) / (9 * channels) ** 0.5
    ways = [jax.jit(lambda x, k: layers.convolve(x, k, 1, _PADDING)), jax.jit(way)]
    direct, fast = (way(x, kernel) for way in ways)
    runs = {str(i): functools.partial(way, x, kernel) for i, way in enumerate(ways)}
    plain, least = timing.seconds_in_turn(runs, arguments.repeats).values()
    operations = 2 * 9 * arguments.lanes * side**2 * channels * features
    is_wide = way is winograd.convolve
    used = winograd.suits(x, kernel.shape, 1, _PADDING) if is_wide else strips.suits(kernel.shape, 1)
    return {
        "used": int(used),
        "GFLOP/s of sums": round(operations / plain / 1e9),
        "less time": round(plain / least, 2),
        "difference": float(f"{jnp.abs(fast - direct).max() / direct.std():.1e}"),
    }


if __name__ == "__main__":
    main()
