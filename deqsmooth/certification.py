"""The certification of images: selection, estimation, audit and bound, batch by batch.

The one module that knows devices and statistics both: it has the sampling programs compiled, once for a
data set, and makes certificates of the votes they return.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from deqsmooth import (
    certificates,
    checkpoints,
    config,
    data,
    distributed,
    noise,
    sampling,
    statistics,
    types,
)

_QUANTILES = (0.5, 0.9, 1.0)
_DEFAULT_LANES = 100
_BLOCK = {"cpu": 100}
_BLOCK_ELSEWHERE = 400


def certify(
    classifier: sampling.Classifier,
    images: np.ndarray,
    settings: config.Smoothing,
    *,
    labels: npt.ArrayLike | None = None,
    indices: npt.ArrayLike | None = None,
) -> Iterator[certificates.Certificate]:
    """Certifies images, in order, batch by batch.

    Everything is checked and compiled when the first certificate is asked for, before any sample.

    Args:
      classifier: a `checkpoints.Checkpoint`, or, with the independent sampler, any function from
        images [lanes, H, W, C] to logits [lanes, classes] that treats its lanes alike and apart. A
        `jax.tree_util.Partial` over its parameters keeps them out of the compiled program.
      images: float in [0, 1] [images, H, W, C].
      settings: of the certificates.
      labels: true classes; None if they are not known.
      indices: number of each image in its data set, on which its noise depends; by default 0, 1, ...

    Yields:
      A certificate for each image.

    Raises:
      ValueError: an argument breaks its rule.

    Example:
      >>> import deqsmooth as ds
      >>> images, labels = ds.load_dataset("digits").take(range(2))
      >>> settings = ds.Smoothing(sigma=0.5, num_estimation=1000, num_audit=100)
      >>> found = list(ds.certify(ds.load_checkpoint("digits", 0.5), images, settings))
      >>> [certificate.prediction for certificate in found] == labels.tolist()
      True
    """
    images = checked(classifier, images, settings)
    places = np.arange(len(images)) if indices is None else np.asarray(indices)
    truths = None if labels is None else np.asarray(labels)
    for name, values in (("labels", truths), ("indices", places)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name} has {len(values)} entries; there are {len(images)} images")

    def read(chosen):
        return images[chosen], None if truths is None else truths[chosen]

    yield from _certify(classifier, settings, images.shape[1:], places, read)


def certify_dataset(
    classifier: sampling.Classifier, dataset: data.Dataset, indices: npt.ArrayLike, settings: config.Smoothing
) -> Iterator[certificates.Certificate]:
    """Certifies images of a data set as `certify` does, but reads each batch when its turn comes.

    Args:
      classifier: see `certify`.
      dataset: the images and labels.
      indices: of the images.
      settings: of the certificates.

    Raises:
      ValueError: an argument or an image breaks its rule.
    """
    places = np.asarray(indices)

    def read(chosen):
        images, labels = dataset.take(places[chosen].tolist())
        return checked(classifier, images, settings), labels

    yield from _certify(classifier, settings, read([0])[0].shape[1:], places, read)


def _certify(classifier, settings, image_shape, indices, read):
    """Certificates of images with some indices; `read` gives images and labels by place."""
    mesh = distributed.mesh()
    settings = resolve(settings)
    settings = dataclasses.replace(settings, images_per_batch=min(settings.images_per_batch, len(indices)))
    programs = sampling.Programs(classifier, settings, mesh, image_shape)
    for first in range(0, len(indices), settings.images_per_batch):
        begun = time.perf_counter()
        chosen = np.arange(first, min(first + settings.images_per_batch, len(indices)))
        images, labels = read(chosen)
        found = _certify_batch(programs, settings, images, indices[chosen])
        seconds = (time.perf_counter() - begun) / len(chosen)
        for place, fields in enumerate(found):
            label = None if labels is None else int(labels[place])
            correct = None if label is None else fields["prediction"] == label
            yield certificates.Certificate(
                index=int(indices[chosen[place]]), label=label, correct=correct, seconds=seconds, **fields
            )


def checked(classifier: sampling.Classifier, images: np.ndarray, settings: config.Smoothing) -> np.ndarray:
    """Images as float32, if `certify` can take them with this classifier and these settings.

    Raises:
      ValueError: it cannot.
    """
    images = np.asarray(images)
    if images.ndim != 4 or len(images) == 0 or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; they must be floating point, "
            "[images, height, width, channels]"
        )
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images go from {images.min():g} to {images.max():g}; pixels must be finite numbers in [0, 1]"
        )
    if isinstance(classifier, checkpoints.Checkpoint):
        shape = classifier.model.image_shape
        if images.shape[1:] != shape:
            raise ValueError(f"images have shape {images.shape[1:]}; the model takes {shape}")
    if settings.sampler != "independent" and not solves(classifier):
        raise ValueError(
            f"sampler is {settings.sampler!r}; a classifier without an equilibrium has only 'independent'"
        )
    if settings.dtype != "float32" and not solves(classifier):
        raise ValueError(
            f"dtype is {settings.dtype!r}; it is that of the cell, which a classifier without an equilibrium lacks"
        )
    if settings.start in ("constant", "learned") and getattr(classifier, "start", None) is None:
        raise ValueError(
            f"start is {settings.start!r}; the checkpoint has no trained start: train.py --phase start makes one"
        )
    return images.astype(np.float32)


def solves(classifier: sampling.Classifier) -> bool:
    """Whether a classifier has an equilibrium to solve for."""
    return isinstance(classifier, checkpoints.Checkpoint) and isinstance(classifier.model, types.Model)


def resolve(settings: config.Smoothing) -> config.Smoothing:
    """Settings with the numbers that depend on the devices filled in.

    Raises:
      ValueError: the number of lanes was given and is no multiple of the number of devices.
    """
    num_devices = distributed.mesh().size
    lanes = settings.lanes
    if lanes is None:
        lanes = _DEFAULT_LANES
    elif lanes % num_devices:
        raise ValueError(
            f"lanes is {lanes}; it must be a multiple of the number of devices, {num_devices} "
            f"(left out, {_DEFAULT_LANES} lanes are spread over any number)"
        )
    block = settings.block or _BLOCK.get(jax.default_backend(), _BLOCK_ELSEWHERE)
    images_per_batch = settings.images_per_batch or max(1, -(-block * num_devices // lanes))
    return dataclasses.replace(settings, lanes=lanes, block=block, images_per_batch=images_per_batch)


def _certify_batch(programs, settings, images, indices) -> list[dict[str, Any]]:
    """Fields of the certificates of a batch, but for index, label, correct and seconds."""
    num_classes = programs.num_classes

    def sample(phase, num):
        return programs(images, indices, phase, np.tile(np.arange(num), (len(images), 1)))

    def count(votes):
        return np.stack([np.bincount(row, minlength=num_classes + 1) for row in votes])

    selection = sample(noise.SELECTION, settings.num_selection)
    estimation = sample(noise.ESTIMATION, settings.num_estimation)
    counts_selection, counts = count(selection.votes), count(estimation.votes)
    selected = np.argmax(counts_selection[:, :num_classes], 1)
    audits: list[dict[str, Any]] = [{}] * len(images)
    evaluations = selection.evaluations + estimation.evaluations
    fallbacks = selection.fallbacks + estimation.fallbacks
    if settings.sampler == "serial":
        audits, audit = _audit(programs, settings, images, indices, selected, estimation.votes)
        evaluations, fallbacks = evaluations + audit.evaluations, fallbacks + audit.fallbacks
    return [
        _fields(
            settings,
            programs.solves,
            selected=int(selected[i]),
            counts_selection=counts_selection[i],
            counts=counts[i],
            residual=estimation.residual[i],
            audit=audits[i],
            evaluations=int(evaluations[i]),
            fallbacks=int(fallbacks[i]),
        )
        for i in range(len(images))
    ]


def _audit(programs, settings, images, indices, selected, votes):
    """Solves votes for the selected class again with the reference; see `statistics.audited_lower`."""
    tables, sizes = [], []
    for index, chosen, row in zip(indices, selected, votes, strict=True):
        order = np.asarray(noise.audit_order(noise.phase_key(settings.seed, int(index), noise.AUDIT), len(row)))
        drawn = order[row[order] == chosen][: settings.num_audit]
        sizes.append(len(drawn))
        tables.append(np.pad(drawn, (0, settings.num_audit - len(drawn))))
    found = programs(images, indices, noise.ESTIMATION, np.stack(tables), reference=True)
    audits = [
        {
            "audited": size,
            "mismatches": int(np.sum(found.votes[i, :size] != selected[i])),
            "residual": found.residual[i, :size],
        }
        for i, size in enumerate(sizes)
    ]
    return audits, found


def _fields(
    settings, solves, *, selected, counts_selection, counts, residual, audit, evaluations, fallbacks
) -> dict[str, Any]:
    serial = settings.sampler == "serial"
    count = int(counts[selected])
    p_lower = statistics.lower_bound(
        count,
        settings.num_estimation,
        alpha=settings.alpha,
        mismatches=audit.get("mismatches", 0),
        audited=audit.get("audited"),
        alpha_audit=settings.alpha_audit or 0.0,
        bound=settings.bound or "exact",
    )
    return {
        "prediction": selected if p_lower > 0.5 else None,
        "radius": statistics.radius(p_lower, settings.sigma),
        "p_lower": p_lower,
        "selected": selected,
        "count": count,
        "counts_selection": tuple(counts_selection.tolist()),
        "counts": tuple(counts.tolist()),
        "num_selection": settings.num_selection,
        "num_estimation": settings.num_estimation,
        "num_audit": audit.get("audited", 0),
        "mismatches": audit.get("mismatches", 0),
        "bound": settings.bound if serial else "clopper-pearson",
        "warning": certificates.NOT_VALID if settings.bound == "reference-code" else None,
        "alpha": settings.alpha,
        "alpha_audit": settings.alpha_audit or 0.0,
        "sigma": settings.sigma,
        "sampler": settings.sampler,
        "start": settings.start if solves else None,
        "solver": settings.solver if solves else None,
        "budget": settings.budget if solves else None,
        "tolerance": settings.tolerance if solves else None,
        "warmup_budget": settings.warmup_budget,
        "reference_budget": settings.reference_budget if serial else settings.budget if solves else None,
        "lanes": settings.lanes,
        "seed": settings.seed,
        "dtype": settings.dtype,
        "evaluations": evaluations,
        "invalid": int(counts[-1]),
        "fallbacks": fallbacks,
        "residuals": _quantiles(residual),
        "reference_residuals": _quantiles(audit.get("residual", np.empty(0))),
    }


def _quantiles(residual: np.ndarray) -> tuple[float, ...] | None:
    finite = residual[np.isfinite(residual)]
    return tuple(np.quantile(finite, _QUANTILES).tolist()) if len(finite) else None
