"""Command `deqsmooth-reproduce`: from the name of an experiment to its models, its records and its page."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar, Literal

import rich.console
import rich.table
import tyro

from deqsmooth.commands import listing
from deqsmooth.commands import main as commands
from deqsmooth.config import checks


@dataclasses.dataclass(frozen=True)
class Flags:
    """Run an experiment of the paper, keep its records, and write its page.

    Attributes:
      name: name of the experiment; `list` lists all experiments.
      scale: `full` is the paper's scale; `small` takes minutes to hours on a laptop, `smoke` seconds.
      dataset: name of the data set.
      sigma: standard deviations of the noise.
      checkpoint: folders or names of the models, one for each sigma; by default the shipped ones for the data set.
      data_dir: TFDS data directory; by default that of TFDS.
      out: folder of models, records and pages; models and records that it has are used again.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which experiment": ("name scale", ""),
        "which images": ("dataset data_dir", ""),
        "which models and noise": ("checkpoint sigma", ""),
        "output": ("out", ""),
    }

    name: tyro.conf.Positional[str] = "list"
    scale: Literal["smoke", "small", "full"] = "small"
    dataset: str = "digits"
    sigma: tuple[float, ...] = (0.25, 0.5)
    checkpoint: tuple[pathlib.Path, ...] = ()
    data_dir: str | None = None
    out: pathlib.Path = pathlib.Path("runs/reproduce")

    def __post_init__(self) -> None:
        for sigma in self.sigma:
            checks.finite_positive("sigma", sigma)


def main() -> int:
    """Command `deqsmooth-reproduce`; returns the exit status: 1 if an attack refutes a certificate."""
    return commands.run(Flags, run, prog="deqsmooth-reproduce", resumes="the same command")


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Lists the experiments, or runs one."""
    if arguments.name == "list":
        console.print(_list())
        return 0
    from deqsmooth.commands import experiment

    return experiment.run(experiment.Request(**vars(arguments)), console)


def _list() -> rich.table.Table:
    """Table of the experiments with their numbers of models and rows."""
    from deqsmooth.experiments import definitions, scales

    shown = rich.table.Table("experiment", "question", "models", "rows of each")
    for experiment in definitions.EXPERIMENTS.values():
        scale = scales.SCALES["small"]
        models = "given"
        if experiment.models is not None:
            models = f"{len(experiment.models(scales.recipe('digits', scale, None)))}, trained"
        shown.add_row(experiment.name, experiment.question, models, str(len(experiment.rows(scale))))
    return shown
