"""Trained models on disk, in Orbax's format: reads and writes variables with the settings that made them."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from deqsmooth import config, devices, models, types
from deqsmooth.config import architecture, checks, serialization

LARGEST = 2**33
"""Largest size of all variables of a model, in bytes."""
_SHIPPED = pathlib.Path(__file__).parent.parent / "shipped"
_MARKER = "_CHECKPOINT_METADATA"

# Orbax logs every step at a lower level, through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoint(NamedTuple):
    """A trained model.

    Attributes:
      model: functions of the model, with an equilibrium or explicit.
      variables: variables of the model, numpy float32. With a trained start they have the entry `start`: the
        parameters of its `network`, and the `mean` equilibrium, leaves [1, ...].
      size: size of the model, from which it is built.
      training: settings of the training; None for a model that was converted.
      sha256: SHA-256 of size and variables, hexadecimal; independent of the files' layout.
      start_training: settings of the training of its start, which with `fine_tune` also trained the model; None if
        it has no trained start.
    """

    model: types.Model | types.Explicit
    variables: types.Variables
    size: architecture.Model
    training: config.Training | None
    sha256: str
    start_training: config.StartTraining | None = None


def save(
    path: str | os.PathLike[str],
    variables: types.Variables,
    size: architecture.Model,
    training: config.Training | None = None,
    start: config.StartTraining | None = None,
) -> None:
    """Writes a model and the settings of its training and of its start to a folder, and replaces a model there.

    Raises:
      ValueError: if the folder holds something that is no model.
    """
    check_place(path)
    folder = pathlib.Path(path).resolve()
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(
            folder,
            ocp.args.Composite(
                variables=ocp.args.StandardSave(_to_numpy(variables)),
                config=ocp.args.JsonSave(
                    {
                        "model": serialization.to_json(size),
                        "training": _training_to_json(training),
                        "start": _training_to_json(start),
                    }
                ),
            ),
            force=True,
        )
    # Orbax's success markers hold the path of the folder, and nothing reads them: a finished folder is renamed
    # into place.
    for marker in folder.rglob("commit_success.txt"):
        marker.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raises `ValueError` if writing a model to a path would replace something that is no model."""
    place = pathlib.Path(path)
    if place.exists() and not (place / _MARKER).is_file() and not (place.is_dir() and not any(place.iterdir())):
        raise ValueError(f"{path} exists and is no model; a model must be written to a new or empty folder")


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a model from its folder, or from the working folder of its training.

    Raises:
      ValueError: if there is no checkpoint of this project, or its variables do not have the shapes of its size.
    """
    folder = pathlib.Path(path).resolve()
    if not folder.is_dir():
        raise ValueError(f"checkpoint {path} does not exist; it must be a folder that deqsmooth-train wrote")
    if (folder / "model").is_dir():
        folder = folder / "model"
    # Every process reads by itself and does not wait for others.
    number, _ = devices.share(None)
    options = ocp.options.MultiprocessingOptions(primary_host=number, active_processes={number})
    handler = ocp.CompositeCheckpointHandler()
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
            arguments = ocp.args.Composite(config=ocp.args.JsonRestore())
            encoded = checkpointer.restore(folder, arguments).config
            size = serialization.model_from_json(encoded["model"])
            training = encoded["training"] and serialization.from_json(config.Training, encoded["training"])
            # Checkpoints of version 0.1 have no entry for the start.
            start = encoded.get("start") and serialization.from_json(config.StartTraining, encoded["start"])
            model = models.build(size)
            shapes = _shapes(model, start)
            size_in_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
            checks.holds(
                size_in_bytes <= LARGEST, "size of the model", f"{size_in_bytes:,} bytes", f"at most {LARGEST:,}"
            )
            template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
            arguments = ocp.args.Composite(variables=ocp.args.StandardRestore(template))
            variables = checkpointer.restore(folder, arguments).variables
    except (ValueError, KeyError, OSError, TypeError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise ValueError(f"{path} is no checkpoint of this project: {reason}") from None
    _check_shapes(path, variables, template)
    return Checkpoint(model, variables, size, training, _digest(size, variables), start)


def shipped(dataset: str, sigma: float) -> pathlib.Path:
    """Returns the folder of the model that the package contains for a data set and sigma.

    Raises:
      ValueError: if there is none; the message names the shipped models.
    """
    folder = _SHIPPED / f"{dataset}-{sigma:g}"
    if not folder.is_dir():
        names = ", ".join(sorted(x.name for x in _SHIPPED.iterdir() if x.is_dir()))
        raise ValueError(
            f"no model is shipped for data set {dataset} at sigma {sigma:g} (shipped: {names}); "
            "train one with train.py or convert one with deqsmooth-convert, and give it as --checkpoint"
        )
    return folder


def load_or_shipped(path: str | os.PathLike[str] | None, dataset: str, sigma: float) -> Checkpoint:
    """Loads a model from a folder, or the shipped one for a data set and noise if no folder is given.

    Raises:
      ValueError: see `load` and `shipped`.
    """
    return load(path or shipped(dataset, sigma))


def load_shipped(dataset: str, sigma: float) -> Checkpoint:
    """Reads the model that the package contains for a data set and sigma; see `shipped`."""
    return load(shipped(dataset, sigma))


def _training_to_json(settings: config.Descent | None) -> dict[str, Any] | None:
    """Returns settings of a training as JSON values, without the data directory."""
    return None if settings is None else serialization.to_json(dataclasses.replace(settings, data_dir=None))


def _to_numpy(variables: types.Variables) -> types.Variables:
    """Converts variables to numpy, so that the checkpoint does not depend on the devices."""
    return jax.tree.map(np.asarray, variables)


def _shapes(model: types.Model | types.Explicit, start: config.StartTraining | None) -> types.Variables:
    """Returns the shapes and dtypes of all variables of a checkpoint."""
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key)
    if start is None or isinstance(model, types.Explicit):
        return variables
    network = models.build_start(start.network, model)
    return {**variables, "start": {"network": jax.eval_shape(network.init, key), "mean": network.state}}


def _check_shapes(path: str | os.PathLike[str], variables: types.Variables, template: types.Variables) -> None:
    found = {jax.tree_util.keystr(key): x.shape for key, x in jax.tree_util.tree_leaves_with_path(variables)}
    for key, x in jax.tree_util.tree_leaves_with_path(template):
        name = jax.tree_util.keystr(key)
        if found.get(name) != x.shape:
            raise ValueError(f"{path}: {name} has shape {found.get(name)}; it must have shape {x.shape}")


def _digest(size: architecture.Model, variables: types.Variables) -> str:
    """Returns the SHA-256 of size and variables, hexadecimal."""
    digest = hashlib.sha256(serialization.digest(serialization.to_json(size)).encode())
    for key, x in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(f"{jax.tree_util.keystr(key)} {x.dtype} {x.shape}".encode())
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()
