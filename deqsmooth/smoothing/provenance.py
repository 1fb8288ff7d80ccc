"""Provenance: code, device, data, model and settings of certificates, as the header of their file."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from typing import Any

import jax

from deqsmooth import config, data
from deqsmooth.certificates import bound, record
from deqsmooth.config import serialization
from deqsmooth.models import classifiers
from deqsmooth.smoothing import layout
from deqsmooth.statistics import bounds

_PACKAGES = ("deqsmooth", "jax", "jaxlib", "flax", "jaxopt", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of this package and of those that it computes with."""
    return {name: metadata.version(name) for name in _PACKAGES}


def header(
    checkpoint: classifiers.Classifier,
    selection: config.Selection,
    settings: config.Smoothing,
    data_identity: str,
    before: dict[str, Any] | None = None,
    *,
    num_images: int | None = None,
) -> dict[str, Any]:
    """The header of a file of certificates: everything that its lines have in common.

    Two runs with equal headers make equal certificates, except for the seconds. `sha256` is the digest of the
    other entries.

    Args:
      checkpoint: the model.
      selection: of the images; how many and where they lie are no part of the header.
      settings: of the certificates.
      data_identity: `data.Dataset.identity` of the images.
      before: header of the certificates that these are made from; None if they are made anew.
      num_images: number of images of the data set; None if it is not known.
    """
    settings = layout.fill(settings)
    serial = settings.sampler == "serial"
    # The number of images side by side follows from the machine and changes no result.
    smoothing_settings = serialization.to_json(settings)
    del smoothing_settings["images_per_batch"]
    solve = {
        "solver": settings.solver,
        "budget": settings.reference_budget if serial else settings.budget,
        "tolerance": None if serial else settings.tolerance,
        "start": "zero" if serial else settings.start,
    }
    if not checkpoint.solves:
        solve = dict.fromkeys(solve)
        smoothing_settings |= solve
    entries = {
        "kind": "header",
        "schema": record.SCHEMA,
        "versions": versions(),
        "device": jax.local_devices()[0].device_kind,
        "selection": serialization.to_json(dataclasses.replace(selection, data_dir=None, max_images=None)),
        "data": data_identity,
        "num_images": num_images,
        "smoothing": smoothing_settings,
        "reference": {
            "checkpoint": checkpoint.sha256,
            **solve,
            "dtype": settings.dtype,
        },
        "model": checkpoint.size and serialization.to_json(checkpoint.size),
        "training": checkpoint.training and serialization.to_json(checkpoint.training),
        "start_training": checkpoint.start_training and serialization.to_json(checkpoint.start_training),
    }
    if before is not None:
        entries["before"] = {name: before[name] for name in ("sha256", "versions", "device", "reference")}
    if settings.bound in bounds.AUDITED and not bounds.AUDITED[settings.bound].is_valid:
        entries["warning"] = bound.NOT_VALID
    return {**entries, "sha256": serialization.digest(entries)}


def agree(header: dict[str, Any], checkpoint: classifiers.Classifier, dataset: data.Dataset) -> None:
    """Raises `ValueError` unless model and data are those that a header names, and its settings still exist."""
    serialization.check_retired(config.Smoothing, header["smoothing"])
    for name, stated, given in (
        ("the model", header["reference"].get("checkpoint"), checkpoint.sha256),
        ("the data set", header.get("data"), dataset.identity),
    ):
        if stated != given:
            about = stated or "one that they do not name"
            raise ValueError(f"{name} is {given}; the certificates are about {about}")
