"""The flags of the commands as settings: what a user may say, and how it is read."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import re
import secrets
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro

from deqsmooth import config
from deqsmooth.config import architecture

_Flat = tyro.conf.arg(name="")
_LIST = re.compile(r"[\d.]+(,[\d.]+)+")


@dataclasses.dataclass(frozen=True)
class Certify:
    """Certify the L2 robustness of a deep equilibrium model on a data set.

    Every setting has a default: without flags, handwritten digits are certified with the model that
    comes with the package. Running the same command again resumes it.

    Attributes:
      selection: which images.
      smoothing: how they are certified.
      preset: named settings that the other flags then change: `mdeq-30a`, `srs-mdeq-3a`, ... (the paper's).
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      predict: only the smoothed class, without a radius, for those who use the classifier (see `ds.predict`).
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      share: `I/N`: this process takes every N-th image from the I-th on, into a file of its own, `….I-of-N.jsonl`;
        `deqsmooth-merge` brings them together. On a TPU pod every host takes its share by itself.
      distributed: this is one of several processes that share the images, as JAX knows them: TPU pods, SLURM, Open
        MPI and Kubernetes are recognised.
      out: file that certificates are appended to; by default one in `runs/` named after the settings. Predictions
        go to a file of their own.
    """

    selection: Annotated[config.Selection, _Flat]
    smoothing: Annotated[config.Smoothing, _Flat]
    preset: str | None = None
    checkpoint: pathlib.Path | None = None
    predict: bool = False
    share: str | None = None
    distributed: bool = False
    download: bool = False
    out: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Find the cheapest settings that certify a radius with a model, from a pilot on a few images.

    Attributes:
      planning: what is to be certified.
      dataset: name of the data set.
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file.
      split: by default `test`, for imagenet `validation`.
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
    """

    planning: Annotated[config.Planning, _Flat]
    dataset: str = "digits"
    data_dir: str | None = None
    split: str | None = None
    checkpoint: pathlib.Path | None = None
    download: bool = False


@dataclasses.dataclass(frozen=True)
class Train:
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

    settings: Annotated[tyro.conf.AvoidSubcommands[config.Training], _Flat] = dataclasses.field(
        default_factory=config.Training
    )
    phase: Literal["model", "start"] = "model"
    preset: str | None = None
    workdir: pathlib.Path | None = None
    resume: bool = False
    download: bool = False
    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class Convert:
    """Convert a PyTorch checkpoint into a model that certifies.

    Attributes:
      file: `.pth.tar` file with a state dict, alone or under `state_dict` (needs PyTorch), or `.npz` file of it.
      out: folder that the model is written to.
      preset: name of the model; the other flags then change its size.
      model: size of the model.
      check: file of recorded outputs; the converted model must reproduce them.
    """

    file: tyro.conf.Positional[pathlib.Path]
    out: pathlib.Path
    preset: str = "mdeq-small"
    model: tyro.conf.AvoidSubcommands[architecture.MdeqModel | architecture.ResnetModel] = dataclasses.field(
        default_factory=architecture.MdeqModel
    )
    check: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class TrainStart:
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

    settings: Annotated[config.StartTraining, _Flat] = dataclasses.field(default_factory=config.StartTraining)
    phase: Literal["start"] = "start"
    preset: str | None = None
    checkpoint: pathlib.Path | None = None
    workdir: pathlib.Path | None = None
    resume: bool = False
    download: bool = False
    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class Recertify:
    """Certify another network from the certificates of one: a quantised, fine-tuned or shorter solved copy.

    Attributes:
      file: certificates of the independent sampler.
      checkpoint: folder of the network to certify; by default the one that the certificates are about.
      before: folder of the one that they are about; by default the one shipped for the data set and sigma.
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file.
      solver: of the network to certify; this and what follows is by default as in the certificates.
      budget: its evaluations.
      tolerance: its relative residual to stop at.
      start: where its solves begin.
      dtype: floating point type of its cell.
      num_pairs: samples of an image on which both are evaluated.
      alpha_pairs: the part of alpha that the pairs take; by default a tenth.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      out: file that certificates are appended to; by default one in `runs/` named after the settings.
    """

    file: tyro.conf.Positional[pathlib.Path]
    checkpoint: pathlib.Path | None = None
    before: pathlib.Path | None = None
    data_dir: str | None = None
    solver: str | None = None
    budget: int | None = None
    tolerance: float | None = None
    start: str | None = None
    dtype: str | None = None
    num_pairs: int = 1000
    alpha_pairs: float | None = None
    download: bool = False
    out: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Run an experiment of the paper, keep its records, and write its page.

    Attributes:
      name: of the experiment; `list` shows all.
      scale: `full` is the paper's; `small` takes minutes to hours on a laptop, `smoke` seconds.
      dataset: name of the data set.
      sigma: standard deviations of the noise.
      checkpoint: folders of the models, one for each sigma; by default those shipped for the data set.
      data_dir: TFDS data directory, by default its own.
      out: folder of records and pages; what is there already is not run again.
    """

    name: tyro.conf.Positional[str] = "list"
    scale: Literal["smoke", "small", "full"] = "small"
    dataset: str = "digits"
    sigma: tuple[float, ...] = (0.25, 0.5)
    checkpoint: tuple[pathlib.Path, ...] = ()
    data_dir: str | None = None
    out: pathlib.Path = pathlib.Path("runs/reproduce")


@dataclasses.dataclass(frozen=True)
class Attack:
    """Attack the images of certificates, and see whether any certificate is refuted.

    Attributes:
      file: certificates of the independent sampler.
      attack: how they are attacked.
      radii: within which the attacks are to stay; by default those of the table of the certificates.
      max_images: how many of them at most.
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      data_dir: TFDS data directory, by default its own; for `arrays` the `.npz` file.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      out: file that what came of every attack is written to; by default one in `runs/`.
    """

    file: tyro.conf.Positional[pathlib.Path]
    attack: Annotated[config.Attack, _Flat] = dataclasses.field(default_factory=config.Attack)
    radii: tuple[float, ...] | None = None
    max_images: int | None = None
    checkpoint: pathlib.Path | None = None
    data_dir: str | None = None
    download: bool = False
    out: pathlib.Path | None = None


def parse(arguments: type, preset: Callable[[str], dict[str, Any]] | None = None) -> Any:
    """Flags as settings; a preset gives the defaults that the other flags change.

    Args:
      arguments: one of the classes above.
      preset: name -> settings with that name; None if the command has none.
    """
    name = None if preset is None else flag("--preset")
    # Lists of numbers may be written with commas.
    words = [part for word in sys.argv[1:] for part in (word.split(",") if _LIST.fullmatch(word) else [word])]
    for place, word in enumerate(words[:-1]):
        if word == "--seed" and words[place + 1] == "random":
            words[place + 1] = str(secrets.randbelow(2**32))
    if preset is None or name is None:
        return tyro.cli(arguments, args=words)
    required = {
        Certify: {"selection": tyro.MISSING_NONPROP},
        Convert: {"file": tyro.MISSING, "out": tyro.MISSING},
    }.get(arguments, {})
    return tyro.cli(arguments, args=words, default=arguments(**required, **preset(name), preset=name))


def flag(name: str) -> str | None:
    """A flag that decides what the others are."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(name, dest="value")
    return finder.parse_known_args()[0].value
