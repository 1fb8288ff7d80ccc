"""A cost model of certification: fitted to finished runs, with its errors, and applied to ImageNet.

    seconds of an image = a * samples + b * (evaluations - samples) + c * samples from a learned start

is fitted to the certificates of each folder. The first evaluation of a sample belongs to the term of a, because
nothing is mixed after it. The error of a row is that of its prediction from the other rows. The cell of another
model is predicted from one measured cell, in proportion to what the convolutions compute (CPU) or to the bytes
they read and write (GPU, TPU).

    python benchmarks/cost.py --certificates results/certification/digits-* --cells results/evaluation
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import evaluation
import numpy as np
import record
import rich.console
import tyro
from scipy import optimize

import deqsmooth as ds
from deqsmooth.certificates import jsonl
from deqsmooth.smoothing import layout

_MEASURED = "mdeq-small"
_SOLVER = "anderson"
_IMAGENET = "mdeq-small-imagenet"
_NUM_IMAGES = 50_000
# Name of the machine, number of devices, and memory bandwidth of a device as a ratio to that of the measured GPU.
# A v5e has 819 GB/s and an H200 4,800 GB/s, according to their makers.
_MACHINES = (("8 x NVIDIA H200", 8, 1.0), ("TPU v5e-256, 64 hosts", 256, 819 / 4800))
# Settings of independent sampling, with the bound of Cohen et al. (2019). The last are the paper's for ImageNet.
_SETTINGS = (
    ("30 evaluations from zero", ds.Smoothing(sampler="independent", solver=_SOLVER)),
    ("5 evaluations from zero", ds.Smoothing(sampler="independent", solver=_SOLVER, budget=5)),
    ("14 evaluations, the paper's", ds.Smoothing(sampler="independent", solver="broyden", budget=14)),
)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Fit and check a model of cost.

    Attributes:
      certificates: folders with certificates, loose or packed. Those of a folder are of one model and were made in
        one run, so that their seconds are comparable.
      cells: folders with measurements of `benchmarks/evaluation.py`, loose or packed. Of a GPU the last cell and
        the last sample count.
      out: folder of the results.
    """

    certificates: tuple[pathlib.Path, ...]
    cells: tuple[pathlib.Path, ...]
    out: pathlib.Path = pathlib.Path("runs/cost")


def main() -> None:
    """Fits, predicts, and writes lines and tables."""
    arguments = tyro.cli(Benchmark)
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = rich.console.Console(record=True, width=130)
    measured = {
        name: jsonl.objects(name, text)
        for folder in arguments.cells
        for name, text in record.texts(folder).items()
    }
    with (arguments.out / "cost.jsonl").open("w") as file:
        for folder in arguments.certificates:
            rows = list(fitted(folder))
            console.print(evaluation.table(f"seconds of an image, {folder.name}", rows))
            file.writelines(json.dumps({"folder": folder.name, **row}) + "\n" for row in rows)
        scaled = list(between_models(measured))
        console.print(evaluation.table("a cell predicted from another model's", scaled))
        predicted = list(imagenet(measured))
        console.print(evaluation.table(f"{_NUM_IMAGES:,} images of ImageNet, N 10,000, not run", predicted))
        file.writelines(json.dumps(row) + "\n" for row in (*scaled, *predicted))
    (arguments.out / "cost.txt").write_text(console.export_text())


def fitted(folder):
    """Yields the measured seconds of an image of every file, and the seconds predicted from the other files."""
    runs = {name: jsonl.parse(name, text).certificates for name, text in record.texts(folder).items()}
    features = np.array([np.mean([_features(c) for c in found], 0) for found in runs.values()])
    # The first images of a run are slower; the median is not affected by them.
    measured = np.array([np.median([c.seconds for c in found]) for found in runs.values()])
    for place, (name, found) in enumerate(runs.items()):
        others = np.arange(len(runs)) != place
        predicted = float(features[place] @ _fit(features[others], measured[others]))
        yield {
            "run": name,
            "evaluations": float(np.mean([c.evaluations for c in found])),
            "measured s": float(measured[place]),
            "predicted s": predicted,
            "error %": 100 * (predicted / float(measured[place]) - 1),
        }


def _features(certificate) -> tuple[float, float, float]:
    samples = certificate.num_selection + certificate.num_estimation
    return samples, certificate.evaluations - samples, samples * (certificate.start == "learned")


def _fit(features, measured):
    """Returns the nonnegative coefficients with the least squared relative errors."""
    return optimize.nnls(features / measured[:, None], np.ones(len(measured)))[0]


def between_models(measured):
    """Yields the times of other models' cells, predicted from that of MDEQ-SMALL on the same machine.

    Args:
      measured: rows of `benchmarks/evaluation.py` by machine.
    """
    for machine, rows in measured.items():
        cells = [row for row in rows if row["kind"] == "cell" and row["how"].startswith("ours")]
        known = [row for row in cells if row["model"] == _MEASURED]
        for row in cells:
            if row["model"] != _MEASURED and known:
                work = "mflop_per_lane" if _is_cpu(machine) else "bytes_per_lane"
                predicted = known[-1]["us_per_lane"] * _work(row, work) / _work(known[-1], work)
                yield {
                    "machine": machine,
                    "model": row["model"],
                    "measured us": row["us_per_lane"],
                    "predicted us": predicted,
                    "error %": 100 * (predicted / row["us_per_lane"] - 1),
                }


def imagenet(measured):
    """Yields the hours for all validation images of ImageNet, predicted from measurements of a GPU on CIFAR-10.

    Args:
      measured: rows of `benchmarks/evaluation.py` by machine.
    """
    for machine, rows in measured.items():
        # Older rows do not name their solver, which was Anderson's.
        samples = [row for row in rows if row["kind"] == "sample" and row.get("solver", _SOLVER) == _SOLVER]
        parts = {row["part"]: row["microseconds"] for row in samples}
        if _is_cpu(machine) or not parts:
            continue
        # Every part moves states, whose size grows in proportion to the memory traffic of the cell.
        traffic = _bytes(_IMAGENET) / _bytes(_MEASURED)
        cell = next(parts[name] for name in parts if name.endswith("evaluations of the cell")) / 30
        rest = (parts["the whole"] - 30 * cell) / 30
        for name, settings in _SETTINGS:
            evaluations = layout.resolve(settings).evaluations
            each = 1e-6 * traffic * (cell + rest) * evaluations
            for target, devices, speed in _MACHINES:
                yield {
                    "settings": name,
                    "machine": target,
                    "evaluations an image": evaluations,
                    "us an evaluation": 1e6 * each / evaluations / speed,
                    "hours": _NUM_IMAGES * each / speed / devices / 3600,
                }


def _is_cpu(machine) -> bool:
    return machine.startswith("cpu")


def _work(row, name) -> float:
    return row[name] if name in row else _bytes(row["model"])


def _bytes(name) -> float:
    """Returns the number of bytes that the convolutions of an evaluation read and write."""
    rates = evaluation.rates(name, 1, 1, 1.0)
    return 1e9 * rates["conv_gbs"]


if __name__ == "__main__":
    main()
