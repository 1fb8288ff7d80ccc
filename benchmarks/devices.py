"""Scaling of a certification over 1, 2, 4 and 8 simulated devices, and over 1, 2 and 4 processes.

Simulated devices share the CPU cores, so the seconds do not show a speed-up. The benchmark shows whether samples
are computed twice or as padding, and which part of the time the host spends between calls. Strong scaling keeps
the number of images, weak scaling the number of images a device. Every measurement starts new processes, each of
which certifies its share of the images without communication.

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
import numpy as np
import rich.console
import tyro

import deqsmooth as ds
from deqsmooth import devices
from deqsmooth.smoothing import arrangement, certification, sampler

# Images a device or process in weak scaling.
_WEAK = 3


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Certify digits on simulated devices.

    Attributes:
      devices: numbers of devices of a single process.
      processes: numbers of processes with one device each.
      images: total number of images in strong scaling.
      worker: measure in this process only: the total number of images, and this process's share as `I/N`.
      out: folder of the results.
    """

    devices: tuple[int, ...] = (1, 2, 4, 8)
    processes: tuple[int, ...] = (1, 2, 4)
    images: int = 24
    worker: tuple[int, str] | None = None
    out: pathlib.Path = pathlib.Path("runs/devices")


def main() -> None:
    """Makes all measurements and writes lines and tables; as a worker, makes one measurement and prints it."""
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
    """Certifies a share of the images; returns the samples and evaluations, the rows computed, and the seconds."""
    begun = time.perf_counter()
    devices.start()
    number, count = devices.share(share)
    calls, computed = [], []

    class Timed(sampler.Programs):
        def __call__(self, *arguments, **options):
            called = time.perf_counter()
            votes = super().__call__(*arguments, **options)
            calls.append(time.perf_counter() - called)
            own, mesh = self.settings, devices.mesh()
            places = arrangement.places(len(arguments[0]), own.images_per_batch, mesh.size)
            on_device = np.bincount(places // -(-own.images_per_batch // mesh.size), minlength=mesh.size)
            computed.append(int(np.sum(-(-on_device * own.lanes // own.block) * own.block)))
            return votes

    dataset, checkpoint = ds.load_dataset("digits"), ds.load_checkpoint("digits", 0.5)
    indices = range(0, 8 * total, 8)[number::count]
    settings = ds.Smoothing(sampler="independent", solver="anderson", num_estimation=2000)
    compiled = certification.prepare(checkpoint, settings, dataset[0][0].shape, len(indices))
    programs = Timed(**vars(compiled))
    certification.check(checkpoint, settings, dataset[0][0])
    ready = time.perf_counter()
    coming = ds.certify_dataset(
        checkpoint, dataset, list(indices), settings, programs=programs, skip_soundness_check=True
    )
    found = list(coming)
    spent = time.perf_counter() - ready
    return {
        "images": len(found),
        "evaluations": sum(c.evaluations for c in found),
        "samples": sum(c.num_selection + c.num_estimation for c in found),
        "computed": sum(computed),
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
    """Returns sums over processes, the needed share of computed samples, and the host's share of the seconds."""
    found = [json.loads(process.communicate()[0]) for process in processes]
    total = {name: sum(one[name] for one in found) for name in found[0]}
    return {
        **total,
        "needed %": 100 * total["samples"] / total["computed"],
        "host %": 100 * total["seconds between"] / (total["seconds between"] + total["seconds in calls"]),
    }


if __name__ == "__main__":
    main()
