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
"""Bytes of all variables of a model, at most."""
_SHIPPED = pathlib.Path(__file__).parent.parent / "shipped"
_MARK = "_CHECKPOINT_METADATA"

# Orbax narrates every step at this level through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoint(NamedTuple):
    """A trained model.

    Attributes:
      model: its functions; of an equilibrium model or an explicit one.
      variables: its variables, numpy float32. With a trained start they have the entry `start`: the parameters of
        its `network`, and the `mean` equilibrium, leaves [1, ...].
      size: the model's, from which it can be built again.
      training: the settings that made it; None for a model from elsewhere.
      sha256: digest of size and variables; independent of how they lie on disk.
      start: the settings that made its start, and with `fine_tune` trained the model on; None if it has no trained
        start.
    """

    model: types.Model | types.Explicit
    variables: types.Variables
    size: architecture.Model
    training: config.Training | None
    sha256: str
    start: config.StartTraining | None = None


def save(
    path: str | os.PathLike[str],
    variables: types.Variables,
    size: architecture.Model,
    training: config.Training | None = None,
    start: config.StartTraining | None = None,
) -> None:
    """Writes a model to a folder, replacing one that is there, with the settings that made it and its start.

    Raises:
      ValueError: the folder holds something else.
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
                        "training": _made_by(training),
                        "start": _made_by(start),
                    }
                ),
            ),
            force=True,
        )
    # Orbax renames a finished folder into place. Its marks of success name that place, and nothing reads them.
    for mark in folder.rglob("commit_success.txt"):
        mark.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raises `ValueError` if a model that is written to a path would replace something that is no model."""
    place = pathlib.Path(path)
    if place.exists() and not (place / _MARK).is_file() and not (place.is_dir() and not any(place.iterdir())):
        raise ValueError(f"{path} exists and is no model; a model is written to a folder of its own")


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a model from its folder, or from the working folder of the training that made it.

    Raises:
      ValueError: there is no checkpoint, or it is none of this project's, or its variables do not have
        the shapes that its configuration asks for.
    """
    folder = pathlib.Path(path).resolve()
    if not folder.is_dir():
        raise ValueError(f"checkpoint {path} does not exist; it must be a folder that deqsmooth-train wrote")
    if (folder / "model").is_dir():
        folder = folder / "model"
    # Each of several processes reads for itself and waits for no other.
    number, _ = devices.share(None)
    alone = ocp.options.MultiprocessingOptions(primary_host=number, active_processes={number})
    handler = ocp.CompositeCheckpointHandler()
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            asked = ocp.args.Composite(config=ocp.args.JsonRestore())
            described = checkpointer.restore(folder, asked).config
            size, made_by = serialization.model_from_json(described["model"]), described["training"]
            training = None if made_by is None else serialization.from_json(config.Training, made_by)
            # Checkpoints of version 0.1 have no entry for the start.
            start = described.get("start") and serialization.from_json(config.StartTraining, described["start"])
            model = models.build(size)
            shapes = _shapes(model, start)
            size_in_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
            checks.holds(
                size_in_bytes <= LARGEST, "size of the model", f"{size_in_bytes:,} bytes", f"at most {LARGEST:,}"
            )
            template = _template(shapes)
            asked = ocp.args.Composite(variables=ocp.args.StandardRestore(template))
            variables = checkpointer.restore(folder, asked).variables
    except (ValueError, KeyError, OSError, TypeError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise ValueError(f"{path} is no checkpoint of this project: {reason}") from None
    _check_shapes(path, variables, template)
    return Checkpoint(model, variables, size, training, _digest(size, variables), start)


def shipped(dataset: str, sigma: float) -> pathlib.Path:
    """Folder of the model that comes with the package for a data set and noise.

    Raises:
      ValueError: there is none; names those that there are.
    """
    folder = _SHIPPED / f"{dataset}-{sigma:g}"
    if not folder.is_dir():
        names = ", ".join(sorted(x.name for x in _SHIPPED.iterdir() if x.is_dir()))
        raise ValueError(
            f"no model is shipped for data set {dataset} at sigma {sigma:g} (shipped: {names}); "
            "train one with train.py, or convert one with deqsmooth-convert, and give it as --checkpoint"
        )
    return folder


def load_shipped(dataset: str, sigma: float) -> Checkpoint:
    """The model that comes with the package for a data set and noise; see `shipped`."""
    return load(shipped(dataset, sigma))


def _made_by(settings: config.Descent | None) -> dict[str, Any] | None:
    """Settings that made something; where the data lay is no part of them."""
    return None if settings is None else serialization.to_json(dataclasses.replace(settings, data_dir=None))


def _to_numpy(tree: Any) -> Any:
    """Arrays without their devices, so that a checkpoint is read alike on any number of them."""
    return jax.tree.map(np.asarray, tree)


def _template(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)


def _shapes(model: types.Model | types.Explicit, start: config.StartTraining | None) -> types.Variables:
    """Shapes of all variables of a checkpoint."""
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key)
    if start is None or isinstance(model, types.Explicit):
        return variables
    network = models.build_start(start.network, model)
    return {**variables, "start": {"network": jax.eval_shape(network.init, key), "mean": network.state}}


def _check_shapes(path: Any, variables: Any, template: Any) -> None:
    found = {jax.tree_util.keystr(key): x.shape for key, x in jax.tree_util.tree_leaves_with_path(variables)}
    for key, x in jax.tree_util.tree_leaves_with_path(template):
        name = jax.tree_util.keystr(key)
        if found.get(name) != x.shape:
            raise ValueError(f"{path}: {name} has shape {found.get(name)}; the model asks for {x.shape}")


def _digest(size: architecture.Model, variables: types.Variables) -> str:
    digest = hashlib.sha256(serialization.digest(serialization.to_json(size)).encode())
    for key, x in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(f"{jax.tree_util.keystr(key)} {x.dtype} {x.shape}".encode())
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()
