"""Trained models on disk, in Orbax's format: reads and writes variables with the settings that made them."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from deqsmooth import arithmetic, config, devices, models, types
from deqsmooth.config import checks, serialization
from deqsmooth.models import classifiers, shipped

LARGEST = 2**33
"""Largest size of all variables of a model, in bytes."""
_MARKER = "_CHECKPOINT_METADATA"
# Seconds within which the other reads of a checkpoint fail after the first.
_LATE = 0.1

# Orbax logs every step at a lower level, through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)


def save(path: str | os.PathLike[str], classifier: classifiers.Classifier) -> None:
    """Writes a classifier to a folder, with the settings of its training, and replaces a model there.

    Of a model of the caller's own the variables are written, not the code.

    Args:
      path: the folder; it is made if it does not exist.
      classifier: from `ds.classifier`, `ds.train` or `ds.load`.

    Raises:
      ValueError: the folder holds something that is no model, or there are no variables; nothing is written then.

    Example:
      >>> import tempfile
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> folder = tempfile.mkdtemp() + "/model"
      >>> def scaled(variables, images):
      ...     return variables["scale"] * images.mean((1, 2)) @ np.array([[1, -1]])
      >>> ds.save(folder, ds.classifier(scaled, {"scale": np.float32(2)}))
      >>> float(ds.load(folder, scaled).variables["scale"])
      2.0
    """
    checks.kind("classifier", classifier, classifiers.Classifier, "a Classifier, made by ds.classifier")
    check_place(path)
    if not jax.tree.leaves(classifier.variables):
        raise ValueError(f"{classifier.name} has no variables, so that there is nothing to write")
    folder = pathlib.Path(path).resolve()
    variables = _plain(classifier.variables) if classifier.size is None else classifier.variables
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(
            folder,
            ocp.args.Composite(
                variables=ocp.args.StandardSave(variables),
                config=ocp.args.JsonSave(
                    {
                        "model": classifier.size and serialization.to_json(classifier.size),
                        "name": classifier.name,
                        "sha256": classifier.sha256,
                        "training": _training_to_json(classifier.training),
                        "start": _training_to_json(classifier.start_training),
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
    place = pathlib.Path(_path(path))
    if place.exists() and not (place / _MARKER).is_file() and not (place.is_dir() and not any(place.iterdir())):
        raise ValueError(f"{path} exists and is no model; a model must be written to a new or empty folder")


@arithmetic.standard()
def load(path: str | os.PathLike[str], model: Any = None) -> classifiers.Classifier:
    """Reads a classifier from its folder, or from the working folder of its training.

    Args:
      path: the folder; where there is none, the name of a model that the package contains, such as `digits-0.5`.
      model: for a model of the caller's own, what was given to `ds.classifier` in its place: the function, the
        module or the `ds.Model`, with a trained start too. Variables that are no nested dictionaries need a
        classifier whose variables have their structure. None for a model of this package.

    Returns:
      The classifier, with the settings of its training and the `sha256` of the one that was saved.

    Raises:
      ValueError: there is no checkpoint of this project, its variables do not fit the model, or `model` is missing
        or not needed.
    """
    folder = _folder_of(path)
    # Every process reads by itself and does not wait for others.
    number, _ = devices.share(None)
    options = ocp.options.MultiprocessingOptions(primary_host=number, active_processes={number})
    handler = ocp.CompositeCheckpointHandler()
    try:
        with quiet_reading(), ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
            encoded = checkpointer.restore(folder, ocp.args.Composite(config=ocp.args.JsonRestore())).config
            size = encoded["model"] and serialization.model_from_json(encoded["model"])
            training = encoded["training"] and serialization.from_json(config.Training, encoded["training"])
            # Checkpoints of version 0.1 have no entry for the start.
            start = encoded.get("start") and serialization.from_json(config.StartTraining, encoded["start"])
            shapes = _stored(folder) if size is None else classifiers.shapes(models.build(size), start)
            _check_size(shapes)
            template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
            arguments = ocp.args.Composite(variables=ocp.args.StandardRestore(template))
            variables = checkpointer.restore(folder, arguments).variables
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint of this project: {reason_of(error)}") from None
    if size is not None and model is not None:
        raise ValueError(f"{path} has a model of this package, which needs no `model`")
    try:
        if size is not None:
            made = classifiers.of_size(size, variables, training, start)
            # Checkpoints of version 0.1 have no name.
            return made._replace(name=encoded.get("name") or made.name)
        return _own(encoded, model, variables, training, start)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The path of a folder, if it is one; else raises `ValueError`."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"path is {path!r}; it must be the path of a folder")
    return path


def load_or_shipped(
    path: str | os.PathLike[str] | None, dataset: str, sigma: float, settle: str | None = None
) -> classifiers.Classifier:
    """Loads a model from a folder, by default from that which `shipped.folder` returns; raises what they raise."""
    return load(path or shipped.folder(dataset, sigma, settle))


def load_shipped(dataset: str, sigma: float, settle: str | None = None) -> classifiers.Classifier:
    """Reads the model that the package contains for a data set and sigma.

    Args:
      dataset: `digits` or `cifar10`.
      sigma: standard deviation of the noise that the model was trained with, 0.25 or 0.5.
      settle: `proof` for a model whose votes can be settled by proof, a contraction; none for cifar10 at 0.25.

    Returns:
      The classifier; it has a trained start.

    Raises:
      ValueError: there is none; the message names the shipped models.

    Example:
      >>> import deqsmooth as ds
      >>> model = ds.load_checkpoint("digits", 0.5)
      >>> model.image_shape, model.model.num_classes, model.training.sigma
      ((8, 8, 1), 10, 0.5)
    """
    return load(shipped.folder(dataset, sigma, settle))


def _training_to_json(settings: config.Descent | None) -> dict[str, Any] | None:
    """Returns settings of a training as JSON values, without the data directory."""
    return None if settings is None else serialization.to_json(dataclasses.replace(settings, data_dir=None))


def _check_size(shapes: types.Variables) -> None:
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    checks.holds(size <= LARGEST, "size of the model", f"{size:,} bytes", f"at most {LARGEST:,}")


def _plain(variables: Any) -> Any:
    """Variables as Orbax writes and reads them alike: nested dictionaries, or the leaves of any other pytree."""

    def is_nested(tree: Any) -> bool:
        if isinstance(tree, dict):
            return all(isinstance(key, str) and is_nested(x) for key, x in tree.items())
        return isinstance(tree, np.ndarray)

    return variables if is_nested(variables) else {"leaves": jax.tree.leaves(variables)}


def _stored(folder: pathlib.Path) -> Any:
    """Returns the shapes and dtypes that a checkpoint says its variables have."""
    found = ocp.StandardCheckpointHandler().metadata(folder / "variables").tree
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), found)


def _own(
    encoded: dict[str, Any],
    model: Any,
    variables: Any,
    training: config.Training | None,
    start: config.StartTraining | None,
) -> classifiers.Classifier:
    """The classifier of a model of the caller's own, from what a checkpoint holds."""
    name = encoded["name"]
    if model is None:
        raise ValueError(
            f"it has the variables of {name}, a model of your own, whose code must be given: ds.load(path, model) "
            "in Python, --model module:function to deqsmooth-verify; other commands take only models of this "
            "package"
        )
    template = None
    if isinstance(model, types.Model | types.Explicit):
        template = classifiers.shapes(model, start)
    elif isinstance(model, classifiers.Classifier | nnx.Module):
        given = classifiers.classifier(model)
        model, template = given.model, given.variables
        if start is not None and given.start_training is None and isinstance(model, types.Model):
            template = {**template, "start": classifiers.shapes(model, start)["start"]}
    if template is None:
        made = classifiers.classifier(model, variables, name=name)
    else:
        expected, leaves = jax.tree.leaves(template), jax.tree.leaves(variables)
        if [x.shape for x in expected] != [x.shape for x in leaves]:
            raise ValueError("its variables have other shapes than those of the given model")
        made = classifiers.of_functions(model, jax.tree.unflatten(jax.tree.structure(template), leaves), name)
    if made.sha256 != encoded["sha256"]:
        raise ValueError("its variables have another structure than those of the given model")
    return made._replace(training=training, start_training=start)


def _folder_of(path: str | os.PathLike[str]) -> pathlib.Path:
    """The folder of a model, given that folder, the working folder of its training, or the name of a shipped one.

    Raises:
      ValueError: there is none; says what is there instead.
    """
    folder, rule = pathlib.Path(_path(path)).resolve(), "a checkpoint is a folder that deqsmooth-train wrote"
    if not folder.exists() and os.fspath(path) in shipped.names():
        return shipped.FOLDER / path
    if not folder.exists():
        names = ", ".join(shipped.names())
        raise ValueError(f"checkpoint {path} does not exist; {rule}, or the name of a shipped model ({names})")
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
    """Silences what Orbax and tensorstore's threads print if a file is damaged; the error is raised anyway."""
    hook, logs = sys.unraisablehook, [logging.getLogger(name) for name in ("asyncio", "absl")]
    levels = [log.level for log in logs]

    def ignore_closed(unraisable: sys.UnraisableHookArgs) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = ignore_closed
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception:
        time.sleep(_LATE)
        gc.collect()
        raise
    finally:
        sys.unraisablehook = hook
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
