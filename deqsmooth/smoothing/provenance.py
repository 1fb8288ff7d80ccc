"""Provenance: code, device, data, model and settings of certificates, as the header of their file."""

from __future__ import annotations

import dataclasses
import math
from importlib import metadata
from typing import Any

from deqsmooth import arithmetic, config, data
from deqsmooth.certificates import bound, headers, record
from deqsmooth.config import serialization
from deqsmooth.models import classifiers
from deqsmooth.smoothing import layout, proof
from deqsmooth.statistics import bounds

_PACKAGES = ("deqsmooth", "jax", "jaxlib", "flax", "jaxopt", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of this package and of those that it computes with."""
    return {name: metadata.version(name) for name in _PACKAGES}


def header(
    classifier: classifiers.Classifier,
    selection: config.Selection,
    settings: config.Smoothing,
    dataset: data.Dataset,
    image_shape: tuple[int, ...],
    *,
    before: dict[str, Any] | None = None,
    skip_soundness_check: bool = False,
) -> dict[str, Any]:
    """The header of a file of certificates: everything that its lines have in common.

    Two runs with equal headers make equal certificates, except for the seconds. `sha256` is the digest of the
    other entries.

    Args:
      classifier: from `ds.classifier`, `ds.load` or `ds.train`.
      selection: of the images; how many and where they lie are no part of the header.
      settings: of the certificates, with a sampler.
      dataset: the images.
      image_shape: (height, width, channels) of the images.
      before: header of the certificates that these are made from by `ds.recertify`; None if they are made anew.
      skip_soundness_check: see `ds.certify_dataset`.
    """
    settings, identity = layout.fill(settings), classifiers.identity(classifier, image_shape)
    serial = settings.sampler == "serial"
    # The number of images side by side follows from the machine and changes no result.
    smoothing_settings = serialization.to_json(settings)
    del smoothing_settings["images_per_batch"]
    solve: dict[str, Any] = {
        "solver": settings.solver,
        "budget": settings.reference_budget if serial else settings.budget,
        "tolerance": None if serial else settings.tolerance,
        "start": "zero" if serial else settings.start,
    }
    if settings.settle is not None:
        # The exact equilibrium, wherever and however long it is solved for.
        solve = {"solver": "equilibrium", "budget": None, "tolerance": None, "start": None}
        solve["factor"] = proof.proof(classifier).factor
    if not classifier.solves:
        solve = dict.fromkeys(solve)
        smoothing_settings |= solve
    entries = {
        "kind": "header",
        "schema": record.SCHEMA,
        "versions": versions(),
        **arithmetic.description(),
        "selection": serialization.to_json(dataclasses.replace(selection, data_dir=None, max_images=None)),
        "data": dataset.identity,
        "num_images": len(dataset),
        "image_shape": list(image_shape),
        "classifier": classifier.name,
        "soundness_check": "skipped" if skip_soundness_check else "passed",
        "smoothing": smoothing_settings,
        "noise": headers.noise(settings, image_shape),
        "reference": {
            "checkpoint": identity.sha256,
            "program": identity.program,
            **solve,
            "dtype": settings.dtype,
        },
        **_settings_of(classifier),
    }
    if before is not None:
        entries["before"] = {name: before[name] for name in ("sha256", "versions", "device", "reference")}
    if settings.bound in bounds.AUDITED and not bounds.AUDITED[settings.bound].is_valid:
        entries["warning"] = bound.NOT_VALID
    return {**entries, "sha256": serialization.digest(entries)}


def agree(header: dict[str, Any], classifier: classifiers.Classifier, dataset: data.Dataset) -> None:
    """Raises `ValueError` unless classifier and data are those of a header, and its settings still exist."""
    serialization.check_retired(config.Smoothing, header["smoothing"])
    identity = classifiers.identity(classifier, header.get("image_shape") or classifier.image_shape or ())
    of_classifier = {"classifier": classifier.name, **_settings_of(classifier)}
    for name, stated, given, entries in (
        ("the model", header["reference"].get("checkpoint"), identity.sha256, of_classifier),
        ("the data set", header.get("data"), dataset.identity, {"num_images": len(dataset)}),
    ):
        if stated != given:
            about = stated or "one that they do not name"
            words = _different(header, entries)
            raise ValueError(
                f"{name} is {given}; the certificates are about {about}{words}: give the one of the run"
            )
    stated = header["reference"].get("factor")
    if stated is not None or header["smoothing"].get("settle") is not None:
        _check_factor(stated, classifier)
    # Another version traces the same code to another program.
    program = header["reference"].get("program", identity.program)
    if header["versions"] == versions() and program != identity.program:
        raise ValueError(f"the code of {classifier.name} is not the code that the certificates are about")


def _check_factor(stated: float | None, classifier: classifiers.Classifier) -> None:
    """Raises `ValueError` if votes were settled with a constant that is not that of the classifier's cell."""
    own = proof.proof(classifier).factor
    if stated is None:
        raise ValueError("reference.factor is not given; votes that were settled by proof need one")
    # Machines that round kernels differently may be a step apart.
    if not math.isclose(stated, own, rel_tol=0, abs_tol=1.01 * proof.FACTOR_STEP):
        raise ValueError(f"votes were settled with a Lipschitz bound of {stated:g}; that of the cell is {own:g}")


def _settings_of(classifier: classifiers.Classifier) -> dict[str, Any]:
    """The entries of a header that hold the size of a classifier and the settings of its trainings."""
    return {
        "model": classifier.size and serialization.to_json(classifier.size),
        "training": classifier.training and serialization.to_json(classifier.training),
        "start_training": classifier.start_training and serialization.to_json(classifier.start_training),
    }


def _different(header: dict[str, Any], entries: dict[str, Any]) -> str:
    """Which entries of a header are not these, for a message; of settings that one lacks, only that it does."""
    pairs = {name: (header[name], value) for name, value in entries.items() if name in header}
    lacking = {name: tuple("given" if x else None for x in pair) for name, pair in pairs.items() if None in pair}
    stated, given = ({name: pair[i] for name, pair in {**pairs, **lacking}.items()} for i in range(2))
    words = headers.differences(stated, given, "in the file", "of the one given")
    return f" ({words})" if words else ""
