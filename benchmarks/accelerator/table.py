"""The table jobs: certifies every 20th test image in several ways, row by row in the order of their worth."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import tarfile

import job
import packed
import rich.console
import tyro

import deqsmooth as ds
from deqsmooth import config
from deqsmooth.certificates import statements

import certification  # isort: skip
import pack  # isort: skip

ROWS = ("learned 2", "zero 3", "learned 1", "zero 30", "learned 1, looks", "learned 3", "zero 5", "zero 2")


@dataclasses.dataclass(frozen=True)
class Table(job.Job):
    """Certify CIFAR-10 with the model of a training job.

    Attributes:
      model_file: the packed model; by default that of the training job with this noise.
      rows: of the table, as `benchmarks/certification.py` names them.
      num_estimation: number of samples of an image.
      stride: every so many-th test image is certified.
      dtype: floating point type of the cell.
      block: rows of one compiled evaluation.
    """

    model_file: pathlib.Path | None = None
    rows: tuple[str, ...] = ROWS
    num_estimation: int = 10_000
    stride: int = 20
    dtype: str = "float32"
    block: int = 1000


def main(sigma: float) -> None:
    """Certifies at a noise level, or goes on with it."""
    run(tyro.cli(Table), sigma)


def run(arguments: Table, sigma: float) -> None:
    """Certifies at a noise level for the minutes of the job.

    Raises:
      ValueError: there is no model.
    """
    name = f"table-{sigma:g}"
    state, out = arguments.state / name, arguments.out / name
    _, test = arguments.images()
    model = packed.load(arguments.model_file) if arguments.model_file else arguments.model(f"train-{sigma:g}")
    if model is None:
        raise ValueError(f"there is no model train-{sigma:g}/model.npz; run the training job first")
    _unpack(arguments, name, state)
    rows, is_finished = {}, True
    for row, settings in _settings(arguments, sigma, model).items():
        job.say(row)
        found, is_whole = _certified(arguments, row, settings, model, test, state)
        is_finished &= is_whole
        if is_whole:
            rows[row] = found
            radii = statements.radii(sigma, max([sigma, *(one.radius for one in found)]))
            job.say(", ".join(f"{100 * statements.certified_accuracy(found, radius):.1f}" for radius in radii))
        if arguments.seconds_left() < 0:
            is_finished = is_finished and len(rows) == len(arguments.rows)
            break
    _report(rows, sigma, f"{name}, sigma {sigma:g}", state, out)
    job.finished(name, is_finished)


def _settings(arguments: Table, sigma: float, model: ds.Classifier) -> dict[str, ds.Smoothing]:
    """The settings of the rows, in their order; those from a learned start only for a model that has one."""
    num = 100 if arguments.smoke else arguments.num_estimation
    benchmark = certification.Benchmark(
        sigma=sigma,
        num_estimation=num,
        num_audit=min(1000, num),
        looks=(num // 20, num // 5, num),
        rows=arguments.rows,
        dtype=arguments.dtype,
        block=20 if arguments.smoke else arguments.block,
    )
    known = certification.settings_by_row(benchmark, False)
    has_start = model.start_training is not None
    return {row: known[row] for row in arguments.rows if has_start or not row.startswith("learned")}


def _certified(
    arguments: Table, row: str, settings: ds.Smoothing, model: ds.Classifier, test: ds.Dataset, state: pathlib.Path
) -> tuple[list[ds.Certificate], bool]:
    """The certificates of a row, with those of earlier runs, and whether they are all."""
    selection = config.Selection(dataset="cifar10", stride=8 if arguments.smoke else arguments.stride)
    indices = selection.indices(len(test))
    path = state / f"{row.replace(' ', '-').replace(',', '')}.jsonl"
    found = []
    for certificate in ds.certify_dataset(model, test, indices, settings, out=path, selection=selection):
        found.append(certificate)
        if arguments.seconds_left() < 0:
            break
    return found, len(found) == len(indices)


def _unpack(arguments: Table, name: str, state: pathlib.Path) -> None:
    """Takes the records that an earlier job left, if the state has none."""
    state.mkdir(parents=True, exist_ok=True)
    for folder in (arguments.out, arguments.last):
        archive = folder / name / pack.ARCHIVE
        if archive.is_file() and not any(state.glob("*.jsonl")):
            job.say(f"records of {archive}")
            with tarfile.open(archive) as file:
                file.extractall(state, filter="data")


def _report(
    rows: dict[str, list[ds.Certificate]], sigma: float, title: str, state: pathlib.Path, out: pathlib.Path
) -> None:
    """Writes the records and the table of the rows that are whole."""
    out.mkdir(parents=True, exist_ok=True)
    if any(state.glob("*.jsonl")):
        pack.pack(state)
        shutil.copy(state / pack.ARCHIVE, out / pack.ARCHIVE)
    if not rows:
        return
    radii = statements.radii(sigma, max(one.radius for found in rows.values() for one in found))
    console = rich.console.Console(record=True, width=160)
    console.print(certification.table(rows, radii, title))
    (out / "table.txt").write_text(console.export_text())
