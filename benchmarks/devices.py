"""How work divides: the same images on 1, 2, 4, 8 simulated devices, and over 1, 2, 4 processes.

Simulated devices share the cores, so that seconds say little. What can be seen is whether work is repeated or
filled up, and what part of the time the host spends between calls: strong scaling keeps the images, weak scaling
the images a device. Every measurement has processes of its own, which share the images and know nothing more.

    python benchmarks/devices.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import evaluation
import rich.console
import tyro

import deqsmooth as ds
from deqsmooth import devices
from deqsmooth.smoothing import certification, sampler

_WEAK = 3


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Certification of digits on simulated devices.

    Attributes:
      devices: numbers of devices of one process.
      processes: numbers of processes with one device each.
      images: images in all of strong scaling.
      worker: measure in this process: how many images in all, and the share of it as `I/N`.
      out: folder that results are written to.
    """

    devices: tuple[int, ...] = (1, 2, 4, 8)
    processes: tuple[int, ...] = (1, 2, 4)
    images: int = 24
    worker: tuple[int, str] | None = None
    out: pathlib.Path = pathlib.Path("runs/devices")


def main() -> None:
    """Measures everything and writes lines and tables, or one thing and prints it."""
    arguments = tyro.cli(Benchmark)
    if arguments.worker is not None:
        print(json.dumps(measure(*arguments.worker)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = rich.console.Console(record=True, width=130)
    with (arguments.out / "devices.jsonl").open("w") as file:
        for kind, sizes in (("devices", arguments.devices), ("processes", arguments.processes)):
            for scaling in ("strong", "weak"):
                rows = []
                for num in sizes:
                    total = arguments.images if scaling == "strong" else _WEAK * num
                    shares = ["0/1"] if kind == "devices" else [f"{i}/{num}" for i in range(num)]
                    num_devices = num if kind == "devices" else 1
                    rows.append({kind: num, **_together([_start(total, share, num_devices) for share in shares])})
                    file.write(json.dumps({"scaling": scaling, **rows[-1]}) + "\n")
                    file.flush()
                console.print(evaluation.table(f"{scaling} scaling over {kind}", rows))
    (arguments.out / "devices.txt").write_text(console.export_text())


def measure(total: int, share: str) -> dict[str, float]:
    """Certifies a share of the images, and says what was computed for it."""
    begun = time.perf_counter()
    devices.start()
    number, count = devices.share(share)
    calls = []

    class Counted(sampler.Programs):
        def __call__(self, *arguments, **options):
            called = time.perf_counter()
            votes = super().__call__(*arguments, **options)
            calls.append(time.perf_counter() - called)
            return votes

    sampler.Programs = Counted
    dataset, checkpoint = ds.load_dataset("digits"), ds.load_checkpoint("digits", 0.5)
    indices = range(0, 8 * total, 8)[number::count]
    settings = ds.Smoothing(sampler="independent", num_estimation=2000)
    programs = certification.prepare(checkpoint, settings, dataset[0][0].shape, len(indices))
    ready = time.perf_counter()
    found = list(ds.certify_dataset(checkpoint, dataset, list(indices), settings, programs=programs))
    spent = time.perf_counter() - ready
    rows = programs.settings.block * devices.mesh().size
    batch = programs.settings.images_per_batch * programs.settings.lanes
    return {
        "images": len(found),
        "evaluations": sum(c.evaluations for c in found),
        "samples": sum(c.num_selection + c.num_estimation for c in found),
        "computed": len(calls) * -(-batch // rows) * rows,
        "seconds in calls": sum(calls),
        "seconds between": spent - sum(calls),
        "seconds to start": ready - begun,
    }


def _start(total, share, num_devices):
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", str(total), share],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(num_devices)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _together(processes):
    """What some processes did, added up, and what of it was needed."""
    found = [json.loads(process.communicate()[0]) for process in processes]
    total = {name: sum(one[name] for one in found) for name in found[0]}
    return {
        **total,
        "needed %": 100 * total["samples"] / total["computed"],
        "host %": 100 * total["seconds between"] / (total["seconds between"] + total["seconds in calls"]),
    }


if __name__ == "__main__":
    main()
