"""What a certification will cost elsewhere: a model of seconds, fitted to kept runs, with its errors there.

    seconds of an image = a * samples + b * (evaluations - samples) + c * samples from a learned start

is fitted to the certificates of each folder: a sample's first evaluation, after which there is nothing to mix,
counts with the sample. Its error is that of every row predicted from the others. For another model the cell's
share is scaled by what its convolutions compute (CPU) or move (GPU, TPU), from one cell.

    python benchmarks/cost.py --certificates results/certification/digits-* --cells results/evaluation/*.jsonl
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import evaluation
import numpy as np
import rich.console
import rich.table
import tyro
from scipy import optimize

import deqsmooth as ds

_MEASURED = "mdeq-small"
_SOLVER = "anderson"
_IMAGENET = "mdeq-small-imagenet"
_NUM_IMAGES = 50_000
# Names of the machines, how many devices, and how much faster than the measured one each moves data. A v5e has
# 819 GB/s by its maker; an H200 4,800.
_MACHINES = (("8 x NVIDIA H200", 8, 1.0), ("TPU v5e-256, 64 hosts", 256, 819 / 4800))
# The paper's settings for ImageNet (samples, evaluations of one), and ours that keep plain Cohen's bound.
_SETTINGS = (
    ("30 evaluations from zero", ds.Smoothing(sampler="independent")),
    ("5 evaluations from zero", ds.Smoothing(sampler="independent", budget=5)),
    ("14 evaluations, the paper's", ds.Smoothing(sampler="independent", solver="broyden", budget=14)),
)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A model of cost, and its error.

    Attributes:
      certificates: folders of one run each, whose seconds can be compared, and of one model.
      cells: measurements of `benchmarks/evaluation.py`; the last cell and sample of a GPU count.
      out: folder that results are written to.
    """

    certificates: tuple[pathlib.Path, ...]
    cells: tuple[pathlib.Path, ...]
    out: pathlib.Path = pathlib.Path("runs/cost")


def main() -> None:
    """Fits, predicts, and writes lines and tables."""
    arguments = tyro.cli(Benchmark)
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = rich.console.Console(record=True, width=130)
    with (arguments.out / "cost.jsonl").open("w") as file:
        for folder in arguments.certificates:
            rows = list(fitted(folder))
            console.print(evaluation.table(f"seconds of an image, {folder.name}", rows))
            file.writelines(json.dumps({"folder": folder.name, **row}) + "\n" for row in rows)
        scaled = list(between_models(arguments.cells))
        console.print(evaluation.table("a cell predicted from another model's", scaled))
        predicted = list(imagenet(arguments.cells))
        console.print(evaluation.table(f"{_NUM_IMAGES:,} images of ImageNet, N 10,000, not run", predicted))
        file.writelines(json.dumps(row) + "\n" for row in (*scaled, *predicted))
    (arguments.out / "cost.txt").write_text(console.export_text())


def fitted(folder):
    """Each row of a folder: seconds that were measured, and that the other rows predict."""
    runs = [(path.stem, *ds.read(path)) for path in sorted(folder.glob("*.jsonl"))]
    features = np.array([np.mean([_features(c) for c in found], 0) for _, _, found in runs])
    # The first images of a run pay for what is slow once.
    measured = np.array([np.median([c.seconds for c in found]) for _, _, found in runs])
    for place, (name, _, found) in enumerate(runs):
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
    """Coefficients, not negative, of the least relative errors."""
    return optimize.nnls(features / measured[:, None], np.ones(len(measured)))[0]


def between_models(paths):
    """Cells of other models as the measured one predicts them, on the same machine."""
    for path in paths:
        cells = [row for row in _lines(path) if row["kind"] == "cell" and row["how"].startswith("ours")]
        known = [row for row in cells if row["model"] == _MEASURED]
        for row in cells:
            if row["model"] != _MEASURED and known:
                work = "mflop_per_lane" if _is_cpu(path) else "bytes_per_lane"
                predicted = known[-1]["us_per_lane"] * _work(row, work) / _work(known[-1], work)
                yield {
                    "machine": path.stem,
                    "model": row["model"],
                    "measured us": row["us_per_lane"],
                    "predicted us": predicted,
                    "error %": 100 * (predicted / row["us_per_lane"] - 1),
                }


def imagenet(paths):
    """Hours for all validation images of ImageNet, from what a GPU needs for CIFAR-10."""
    for path in paths:
        lines = _lines(path)
        # Lines written before there was a choice of solvers name none.
        samples = [row for row in lines if row["kind"] == "sample" and row.get("solver", _SOLVER) == _SOLVER]
        parts = {row["part"]: row["microseconds"] for row in samples}
        if _is_cpu(path) or not parts:
            continue
        # All parts move states, whose size grows as the cell's traffic does.
        traffic = _bytes(_IMAGENET) / _bytes(_MEASURED)
        cell = next(parts[name] for name in parts if name.endswith("evaluations of the cell")) / 30
        rest = (parts["the whole"] - 30 * cell) / 30
        for name, settings in _SETTINGS:
            each = 1e-6 * traffic * (cell + rest) * settings.evaluations
            for machine, devices, speed in _MACHINES:
                yield {
                    "settings": name,
                    "machine": machine,
                    "evaluations an image": settings.evaluations,
                    "us an evaluation": 1e6 * each / settings.evaluations / speed,
                    "hours": _NUM_IMAGES * each / speed / devices / 3600,
                }


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _is_cpu(path) -> bool:
    return path.stem.startswith("cpu")


def _work(row, name) -> float:
    return row[name] if name in row else _bytes(row["model"])


def _bytes(name) -> float:
    """What the convolutions of an evaluation read and write."""
    rates = evaluation.rates(name, 1, 1, 1.0)
    return 1e9 * rates["conv_gbs"]


if __name__ == "__main__":
    main()
