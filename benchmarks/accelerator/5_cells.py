"""Speed of a cell evaluation beside the matrix product of the machine, and beside PyTorch if it is installed."""

from __future__ import annotations

import dataclasses
import json

import job
import tyro

import evaluation  # isort: skip

_MODELS = ("contraction-cifar10-gpu", "mdeq-small", "mdeq-large")
_DTYPES = ("float32", "tensorfloat32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Cells(job.Job):
    """Time evaluations of cells.

    Attributes:
      models: names of models or recipes; they are not trained.
      lanes: number of samples that a device evaluates at a time.
    """

    models: tuple[str, ...] = _MODELS
    lanes: int = 1000


def main() -> None:
    """Makes the measurements that earlier runs have not made, and writes all as lines."""
    arguments = tyro.cli(Cells)
    arguments.images()
    path = arguments.state / "cells" / "cells.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    benchmark = evaluation.Benchmark(
        dtypes=_DTYPES[:1] if arguments.smoke else _DTYPES,
        matrix=256 if arguments.smoke else 8192,
        samples=10_000,
        block=arguments.lanes,
        copy_mib=1 if arguments.smoke else 512,
        repeats=1 if arguments.smoke else 5,
    )
    lanes = 2 if arguments.smoke else arguments.lanes
    work = {"machine": lambda: list(evaluation.machine(benchmark))}
    for model in ("contraction",) if arguments.smoke else arguments.models:
        for dtype in benchmark.dtypes:
            work[f"{model}, {dtype}"] = lambda m=model, d=dtype: [evaluation.cell(m, d, lanes, benchmark)]
        if not arguments.smoke:
            work[f"{model}, whole solves"] = lambda m=model: list(evaluation.sample(m, "float32", benchmark))
        work[f"{model}, PyTorch"] = lambda m=model: list(evaluation.pytorch(m, lanes, benchmark))
    left = [name for name in work if name not in {row["work"] for row in rows}]
    with path.open("a") as file:
        while left and arguments.seconds_left() > 0:
            name = left.pop(0)
            job.say(name)
            for row in work[name]():
                rows.append({"work": name, **row})
                job.say(json.dumps(row))
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    out = arguments.out / "cells"
    out.mkdir(parents=True, exist_ok=True)
    (out / "cells.jsonl").write_text(path.read_text())
    job.finished("cells", not left)


if __name__ == "__main__":
    main()
