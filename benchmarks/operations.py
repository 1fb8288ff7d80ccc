"""Shares of the parts of a sample in its time: noise, injection, start, cell, mixing, readout.

The profiler measures every operation of the compiled program. The name of an operation says from which part it
comes, and that of a fusion is the name of its last operation. `evaluation.py` subtracts the times of programs
instead, which needs a quiet machine.

    python benchmarks/operations.py --out results/operations
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
import tempfile

import jax
import numpy as np
import rich.console
import rich.table
import tyro

import deqsmooth as ds
from deqsmooth import devices
from deqsmooth.smoothing import certification, noise

# Parts in the order of a sample, and what the names of their operations contain.
_PARTS = {
    "noise": "fold_in|_normal|erf_inv|noise",
    "injection": "_Inject|_inject",
    "start": "_Pointwise|_Elementwise|_Network",
    "cell": "_Cell|_cell",
    "readout": "_Readout|_readout",
}
_REST = "mixing, residual, rest"
# Operations that contain others.
_CONTAINERS = ("while", "call", "conditional")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Divide the time of a sample among its parts.

    Attributes:
      models: names of shipped models with a learned start.
      repeats: calls of 200 samples that are profiled together.
      out: folder of the results.
    """

    models: tuple[str, ...] = ("digits-0.5-short", "cifar10-0.5-short")
    repeats: int = 3
    out: pathlib.Path = pathlib.Path("runs/operations")


def main() -> None:
    """Profiles every method, and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    lines = [
        measured(name, start, budget, arguments.repeats)
        for name in arguments.models
        for start, budget in (("zero", 30), ("learned", 1))
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "cpu.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shown = rich.table.Table(title="percent of the time of a sample")
    for column in ("", *_PARTS, _REST):
        shown.add_column(column, justify="right" if column else "left")
    for line in lines:
        shown.add_row(line["method"], *(f"{line[part]:.1f}" for part in (*_PARTS, _REST)))
    console = rich.console.Console(record=True, width=110)
    console.print(shown)
    (arguments.out / "cpu.txt").write_text(console.export_text())


def measured(name: str, start: str, budget: int, repeats: int) -> dict[str, object]:
    """Returns the line of a method with a model."""
    classifier = ds.load(name)
    shape = classifier.size.image_shape
    settings = ds.Smoothing(
        sampler="independent", start=start, budget=budget, sigma=classifier.training.sigma, images_per_batch=2
    )
    programs = certification.prepare(classifier, settings, shape, 2)
    samples = np.stack([np.arange(programs.settings.lanes)] * 2)
    images = np.full((2, *shape), 0.5, np.float32)
    draw = (images, np.arange(2), np.full(2, noise.ESTIMATION), samples)
    programs(*draw)
    with tempfile.TemporaryDirectory() as folder:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        options.host_tracer_level = 3
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(repeats):
                programs(*draw)
        (trace,) = pathlib.Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(trace))
    (program,) = programs.compiled.values()
    parts = part_by_operation(program.as_text())
    spent = collections.Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in parts:
                    spent[parts[event.name]] += event.duration_ns
    return {
        "method": f"{name}, {start} {budget}",
        **{part: 100 * spent[part] / spent.total() for part in (*_PARTS, _REST)},
        "microseconds": spent.total() / 1e3 / samples.size / repeats,
        "block": programs.settings.block,
        "devices": jax.local_device_count(),
        "jax": jax.__version__,
    }


def part_by_operation(text: str) -> dict[str, str]:
    """Returns the part of every operation of a compiled program that contains no others."""
    found = {}
    for name, opcode, rest in re.findall(r"^ +(?:ROOT )?%([\w.-]+) = .*? ([\w-]+)\((.*)$", text, re.MULTILINE):
        if opcode not in _CONTAINERS:
            given = re.search(r'op_name="([^"]*)"', rest)
            matches = (part for part, words in _PARTS.items() if given and re.search(words, given[1]))
            found[name] = next(matches, _REST)
    return found


if __name__ == "__main__":
    main()
