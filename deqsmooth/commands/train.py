"""Command `deqsmooth-train`: trains a model, or with `--phase start` the start of a trained one."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Literal

import rich.console
import tyro

from deqsmooth import config
from deqsmooth.commands import flags
from deqsmooth.commands import main as commands


@dataclasses.dataclass(frozen=True)
class Flags:
    """Train a deep equilibrium model under Gaussian noise; with `--phase start`, the start of a trained one.

    Attributes:
      settings: how it is trained.
      phase: `model`, or `start`, which has settings of its own: see `--phase start --help`.
      preset: named settings that the other flags then change: a recipe of `deqsmooth.config.presets`.
      workdir: folder of metrics, states and the trained model; by default one in `runs/`.
      resume: go on where the run in the folder stopped.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      distributed: this is one of several processes that train together, over the devices of all: TPU pods, SLURM,
        Open MPI and Kubernetes are recognised. The folder must be one that all of them share.
    """

    settings: Annotated[tyro.conf.AvoidSubcommands[config.Training], flags.Flat] = dataclasses.field(
        default_factory=config.Training
    )
    phase: Literal["model", "start"] = "model"
    preset: str | None = None
    workdir: pathlib.Path | None = None
    resume: bool = False
    download: bool = False
    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class StartFlags:
    """Learn where the solves of a trained model begin, so that a few evaluations do what 30 did.

    Attributes:
      settings: how it is learned.
      phase: `start`; without it, a model is trained.
      preset: named settings that the other flags then change: a recipe of `deqsmooth.config.presets`.
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      workdir: folder of metrics, states and the model with its start; by default one in `runs/`.
      resume: go on where the run in the folder stopped.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      distributed: this is one of several processes that train together, over the devices of all: TPU pods, SLURM,
        Open MPI and Kubernetes are recognised. The folder must be one that all of them share.
    """

    settings: Annotated[config.StartTraining, flags.Flat] = dataclasses.field(default_factory=config.StartTraining)
    phase: Literal["start"] = "start"
    preset: str | None = None
    checkpoint: pathlib.Path | None = None
    workdir: pathlib.Path | None = None
    resume: bool = False
    download: bool = False
    distributed: bool = False


def main() -> int:
    """Command `deqsmooth-train`; returns the exit status."""
    if flags.value_of("--phase") == "start":
        return commands.run(StartFlags, run_start, prog="deqsmooth-train", preset=_start_preset)
    return commands.run(Flags, run, prog="deqsmooth-train", preset=_preset)


def _preset(name: str) -> Flags:
    from deqsmooth.config import presets

    return Flags(settings=presets.find("preset", name, presets.TRAINING), preset=name)


def _start_preset(name: str) -> StartFlags:
    from deqsmooth.config import presets

    return StartFlags(settings=presets.find("preset", name, presets.START_TRAINING), preset=name)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Trains a model, or goes on with it."""
    from deqsmooth.commands import fitting

    return fitting.train_model(arguments, console)


def run_start(arguments: StartFlags, console: rich.console.Console) -> int:
    """Learns the start of a trained model, or fine-tunes both, or goes on with it."""
    from deqsmooth.commands import fitting

    return fitting.train_start(arguments, console)
