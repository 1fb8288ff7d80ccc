"""A model as one small file: its kernels in bfloat16, everything else in float32, with its settings.

python benchmarks/accelerator/packed.py results/accelerator/train-0.5/model.npz runs/cifar10-0.5
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import deqsmooth as ds
from deqsmooth import config, models
from deqsmooth.config import serialization
from deqsmooth.models import checkpoints, classifiers


@dataclasses.dataclass(frozen=True)
class Unpack:
    """Write a packed model as a checkpoint, which every command takes.

    Attributes:
      file: the packed model.
      folder: the checkpoint.
    """

    file: tyro.conf.Positional[pathlib.Path]
    folder: tyro.conf.Positional[pathlib.Path]


def rounded(classifier: ds.Classifier) -> ds.Classifier:
    """The classifier with kernels that bfloat16 holds exactly: the one that a packed file gives back."""
    variables = jax.tree.map(
        lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32) if _is_kernel(x) else x,
        classifier.variables,
    )
    made = classifiers.of_size(classifier.size, variables, classifier.training, classifier.start_training)
    return made._replace(name=classifier.name)


def save(path: pathlib.Path, classifier: ds.Classifier) -> None:
    """Writes a classifier of this package to a file."""
    settings = {
        "model": serialization.to_json(classifier.size),
        "training": serialization.to_json(dataclasses.replace(classifier.training, data_dir=None)),
        "start": classifier.start_training and serialization.to_json(classifier.start_training),
    }
    leaves = {
        f"{number:03}": np.asarray(jnp.asarray(x, jnp.bfloat16)).view(np.uint16)
        if _is_kernel(x)
        else np.asarray(x)
        for number, x in enumerate(jax.tree.leaves(classifier.variables))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, settings=json.dumps(settings), **leaves)


def load(path: pathlib.Path) -> ds.Classifier:
    """Reads a classifier from a file."""
    with np.load(path) as file:
        settings = json.loads(str(file["settings"]))
        leaves = [file[name] for name in sorted(set(file.files) - {"settings"})]
    size = serialization.model_from_json(settings["model"])
    training = serialization.from_json(config.Training, settings["training"])
    start = settings["start"] and serialization.from_json(config.StartTraining, settings["start"])
    shapes = classifiers.shapes(models.build(size), start)
    wide = [np.asarray(x.view(jnp.bfloat16), np.float32) if x.dtype == np.uint16 else x for x in leaves]
    variables = jax.tree.unflatten(jax.tree.structure(shapes), wide)
    return classifiers.of_size(size, variables, training, start)


def _is_kernel(x: np.ndarray) -> bool:
    return np.ndim(x) >= 2


if __name__ == "__main__":
    arguments = tyro.cli(Unpack)
    checkpoints.save(arguments.folder, load(arguments.file))
