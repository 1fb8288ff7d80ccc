"""Command `deqsmooth-train`: from settings to a trained model, or with `--phase start` to its start."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, ClassVar, Literal

import rich.console
import tyro

from deqsmooth import config
from deqsmooth.commands import flags, listing
from deqsmooth.commands import main as commands


@dataclasses.dataclass(frozen=True)
class Flags:
    """Train a deep equilibrium model under Gaussian noise; with `--phase start`, the start of a trained model.

    Attributes:
      settings: settings of the training.
      phase: `model`, or `start`, which has other flags: see `--phase start --help`.
      preset: named settings, which the other flags then change: a recipe of `deqsmooth.config.presets`.
      test_data: with data set `arrays`, `.npz` file of the images to evaluate on; by default every tenth image of
        `data_dir` is held out, or as `held_out` says.
      workdir: folder for metrics, states and the trained model; by default a folder in `runs/`.
      resume: continue the run in the folder from its newest state.
      download: let TFDS download and prepare a missing data set (needs TensorFlow).
      distributed: this process is one of several that train together on all their devices; TPU pods, SLURM, Open
        MPI and Kubernetes are detected. All processes must share the folder.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which images": ("dataset data_dir test_data", "held_out augment download"),
        "which model": ("preset", "initial dtype injection_dtype model"),
        "noise and loss": (
            "sigma",
            "loss loss_weight draws adversarial_radius adversarial_steps adversarial_epochs jacobian_weight "
            "jacobian_frequency jacobian_budget jacobian_increment jacobian_interval jacobian_epochs",
        ),
        "optimisation": (
            "epochs batch_size learning_rate",
            "optimiser final_learning_rate warmup weight_decay clip_norm ema accumulation rematerialise "
            "pretraining_epochs pretraining_budget pretraining_jacobian_weight",
        ),
        "the solve": ("budget", "solver gradient gradient_budget reference_budget"),
        "running it": ("phase resume", "evaluation_interval updates_per_call seed distributed"),
        "output": ("workdir", ""),
    }

    settings: Annotated[tyro.conf.AvoidSubcommands[config.Training], listing.Flat] = dataclasses.field(
        default_factory=config.Training
    )
    phase: Literal["model", "start"] = "model"
    preset: str | None = None
    test_data: pathlib.Path | None = None
    workdir: pathlib.Path | None = None
    resume: bool = False
    download: bool = False
    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class StartFlags:
    """Train the start of a trained model: a network that predicts equilibria, so that solves need few evaluations.

    Attributes:
      settings: settings of the training.
      phase: `start`; by default a model is trained.
      preset: named settings, which the other flags then change: a recipe of `deqsmooth.config.presets`.
      checkpoint: folder of the model, or name of a shipped one; by default that for the data set and sigma.
      test_data: with data set `arrays`, `.npz` file of the images to evaluate on; by default every tenth image of
        `data_dir` is held out, or as `held_out` says.
      workdir: folder for metrics, states and the model with its start; by default a folder in `runs/`.
      resume: continue the run in the folder from its newest state.
      download: let TFDS download and prepare a missing data set (needs TensorFlow).
      distributed: this process is one of several that train together on all their devices; TPU pods, SLURM, Open
        MPI and Kubernetes are detected. All processes must share the folder.
    """

    GROUPS: ClassVar[listing.Groups] = {
        "which images": ("dataset data_dir test_data", "held_out augment download"),
        "which model": ("checkpoint fine_tune", "dtype network"),
        "noise and loss": ("sigma", "distance_weight settle_weight"),
        "optimisation": (
            "preset epochs batch_size learning_rate",
            "optimiser final_learning_rate warmup weight_decay clip_norm ema accumulation",
        ),
        "the solve": ("budget", "solver reference_budget"),
        "running it": ("phase resume", "evaluation_interval updates_per_call seed distributed"),
        "output": ("workdir", ""),
    }

    settings: Annotated[config.StartTraining, listing.Flat] = dataclasses.field(
        default_factory=config.StartTraining
    )
    phase: Literal["start"] = "start"
    preset: str | None = None
    checkpoint: pathlib.Path | None = None
    test_data: pathlib.Path | None = None
    workdir: pathlib.Path | None = None
    resume: bool = False
    download: bool = False
    distributed: bool = False


def main() -> int:
    """Command `deqsmooth-train`; returns the exit status."""
    if flags.value_of("--phase") == "start":
        return commands.run(
            StartFlags,
            run_start,
            prog="deqsmooth-train",
            resumes="the same command with --resume",
            preset=_start_preset,
        )
    return commands.run(
        Flags, run, prog="deqsmooth-train", resumes="the same command with --resume", preset=_preset
    )


def _preset(name: str) -> Flags:
    from deqsmooth.config import presets

    return Flags(settings=presets.find("preset", name, presets.TRAINING), preset=name)


def _start_preset(name: str) -> StartFlags:
    from deqsmooth.config import presets

    return StartFlags(settings=presets.find("preset", name, presets.START_TRAINING), preset=name)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Trains a model, or resumes its training."""
    from deqsmooth.commands import fitting

    return fitting.train_model(
        arguments.settings,
        console,
        test_data=arguments.test_data,
        workdir=arguments.workdir,
        resume=arguments.resume,
        download=arguments.download,
        distributed=arguments.distributed,
    )


def run_start(arguments: StartFlags, console: rich.console.Console) -> int:
    """Trains the start of a trained model, or fine-tunes both, or resumes this."""
    from deqsmooth.commands import fitting

    return fitting.train_start(
        arguments.settings,
        console,
        folder=arguments.checkpoint,
        test_data=arguments.test_data,
        workdir=arguments.workdir,
        resume=arguments.resume,
        download=arguments.download,
        distributed=arguments.distributed,
    )
