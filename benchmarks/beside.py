"""Classification beside another busy process: blocks divided in advance, or handed out as cores become free.

The package divides the blocks of a call among the devices inside one program. The other way has a program for each
device, and a thread for each that takes the next block when it has finished one. Both ways run in turn, first
alone and then beside a process that keeps one core busy. The least time of each counts.

    python benchmarks/beside.py --out results/beside
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import rich.console
import rich.table
import timing
import tyro

from deqsmooth import devices, models, solvers
from deqsmooth.config import presets
from deqsmooth.models import base_classifier, starts

_BUSY = "while True: pass"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare two ways to distribute blocks over the cores.

    Attributes:
      model: name of the model; it is not trained.
      lanes: samples of a block.
      blocks: number of blocks.
      budget: cell evaluations of a sample.
      repeats: how often each way is timed.
      out: folder of the results.
    """

    model: str = "mdeq-small"
    lanes: int = 100
    blocks: int = 16
    budget: int = 3
    repeats: int = 3
    out: pathlib.Path = pathlib.Path("runs/beside")


def main() -> None:
    """Times both ways alone and beside a busy process, and writes lines and a table."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    model = models.build(presets.MODELS[arguments.model])
    variables = model.init(jax.random.key(0))
    num = arguments.lanes * arguments.blocks
    images = np.random.default_rng(0).random((num, *model.image_shape), np.float32)
    solver, start = solvers.build("sketched-anderson", arguments.budget), starts.zero(model)

    def classify(variables, images):
        return base_classifier.classify(model, variables, solver, images, start).logits

    mesh = devices.mesh()
    whole = jax.jit(lambda v, x: devices.map_blocks(classify, v, x, arguments.lanes, mesh))
    one = jax.jit(classify)
    local = jax.local_devices()
    placed = [jax.device_put(variables, device) for device in local]

    def divided():
        return np.asarray(whole(variables, images))

    def handed_out():
        pending, found = iter(range(arguments.blocks)), [None] * arguments.blocks

        def work(device, variables):
            # The threads share the iterator.
            for index in pending:
                rows = images[index * arguments.lanes : (index + 1) * arguments.lanes]
                found[index] = np.asarray(one(variables, jax.device_put(rows, device)))

        with concurrent.futures.ThreadPoolExecutor(len(local)) as pool:
            list(pool.map(work, local, placed))
        return np.concatenate(found)

    np.testing.assert_allclose(divided(), handed_out(), rtol=1e-4, atol=1e-4)
    ways = {"divided": divided, "handed out": handed_out}
    alone = timing.seconds_in_turn(ways, arguments.repeats)
    busy = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        beside = timing.seconds_in_turn(ways, arguments.repeats)
    finally:
        busy.kill()
        busy.wait()
    lines = [
        {
            "way": way,
            "cores": len(local),
            "alone, s": alone[way],
            "beside, s": beside[way],
            "longer": beside[way] / alone[way],
        }
        for way in ways
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "cpu.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shown = rich.table.Table(title=f"{num:,} samples of {arguments.model}, {arguments.budget} evaluations")
    for heading in lines[0]:
        shown.add_column(heading)
    for line in lines:
        shown.add_row(*(f"{x:.3g}" if isinstance(x, float) else str(x) for x in line.values()))
    console = rich.console.Console(record=True, width=100)
    console.print(shown)
    (arguments.out / "cpu.txt").write_text(console.export_text())


if __name__ == "__main__":
    main()
