"""Trained models on disk, in Orbax's format: reads and writes variables with the settings that made them."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator
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
# Seconds within which the other reads of a checkpoint fail after the first.
_LATE = 0.1

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
      ValueError: if the folder holds something that is no model, or the variables are not finite or not those of a
        model of this size with this start; nothing is written then.
    """
    check_place(path)
    _check_variables("the model to be saved", variables, _shapes(models.build(size), start))
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
    folder = _folder_of(path)
    # Every process reads by itself and does not wait for others.
    number, _ = devices.share(None)
    options = ocp.options.MultiprocessingOptions(primary_host=number, active_processes={number})
    handler = ocp.CompositeCheckpointHandler()
    try:
        with quiet_reading(), ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
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
        raise ValueError(f"{path} is no checkpoint of this project: {reason_of(error)}") from None
    _check_variables(str(path), variables, template)
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


def _check_variables(what: str, variables: types.Variables, template: types.Variables) -> None:
    """Raises `ValueError` unless variables have the names and shapes of a template and are finite."""
    found = {jax.tree_util.keystr(key): x for key, x in jax.tree_util.tree_leaves_with_path(variables)}
    wanted = {jax.tree_util.keystr(key): x.shape for key, x in jax.tree_util.tree_leaves_with_path(template)}
    for name, shape in wanted.items():
        if name not in found:
            raise ValueError(f"{what} lacks {name}, which its size has")
        if np.shape(found[name]) != shape:
            raise ValueError(f"{what}: {name} has shape {np.shape(found[name])}; by its size it must have {shape}")
    for name, x in found.items():
        if name not in wanted:
            raise ValueError(f"{what} has {name}, which its size lacks")
        if not np.isfinite(x).all():
            raise ValueError(f"{what}: {name} has numbers that are not finite; such a model classifies nothing")


def _folder_of(path: str | os.PathLike[str]) -> pathlib.Path:
    """The folder of a model, given that folder or the working folder of its training.

    Raises:
      ValueError: there is none; says what is there instead.
    """
    folder, rule = pathlib.Path(path).resolve(), "a checkpoint is a folder that deqsmooth-train wrote"
    if not folder.exists():
        raise ValueError(f"checkpoint {path} does not exist; {rule}")
    if not folder.is_dir():
        raise ValueError(f"checkpoint {path} is a file; {rule}")
    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / "states").is_dir():
        raise ValueError(f"{path} has states of a training that has not finished and no model yet; {rule}")
    if not (folder / _MARKER).is_file():
        raise ValueError(f"{path} is a folder without a model, and no checkpoint of this project; {rule}")
    return folder


def reason_of(error: Exception) -> str:
    """The first sentence of an error of Orbax, without its technical appendix."""
    # The text of a KeyError is the representation of its argument.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text.strip().split("\n")[0].split(" [tensorstore_spec")[0][:300]


@contextlib.contextmanager
def quiet_reading() -> Iterator[None]:
    """Silences what tensorstore's threads print after an array could not be read: that others could not be either."""
    hook, log = sys.unraisablehook, logging.getLogger("asyncio")
    level = log.level

    def ignore_closed(unraisable: sys.UnraisableHookArgs) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = ignore_closed
    log.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception:
        time.sleep(_LATE)
        gc.collect()
        raise
    finally:
        sys.unraisablehook = hook
        log.setLevel(level)


def _digest(size: architecture.Model, variables: types.Variables) -> str:
    """Returns the SHA-256 of size and variables, hexadecimal."""
    digest = hashlib.sha256(serialization.digest(serialization.to_json(size)).encode())
    for key, x in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(f"{jax.tree_util.keystr(key)} {x.dtype} {x.shape}".encode())
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()
