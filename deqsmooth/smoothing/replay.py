"""Replay: certificates are sampled again; the same noise through the same model must give the same votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from deqsmooth import config, data
from deqsmooth.certificates import record
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, provenance

_COMPARED = ("label", "selected", "counts_selection", "counts", "num_audit", "mismatches", "evaluations")
TOLERANCE = 0.001
"""Largest share of an image's samples whose class may differ on another kind of device, by rounding."""


def replay(
    header: dict[str, Any],
    found: Sequence[record.Certificate],
    settings: config.Smoothing,
    checkpoint: classifiers.Classifier,
    dataset: data.Dataset,
    num: int,
    rng: np.random.Generator,
) -> list[str]:
    """Draws the votes of randomly chosen certificates of a file again, and compares them.

    On the kind of device and with the versions that the header names, all counts must be equal. Elsewhere a
    certificate passes if at most a thousandth of its estimation votes are for another class.

    Args:
      header: of the file.
      found: its certificates.
      settings: of the header.
      checkpoint: the model that the header names.
      dataset: the images that it names.
      num: number of certificates; all if there are fewer.
      rng: of the choice.

    Returns:
      Every difference.

    Raises:
      ValueError: model or data are not those of the header, or the certificates are paired.
    """
    provenance.agree(header, checkpoint, dataset)
    chosen = [found[i] for i in sorted(rng.choice(len(found), min(num, len(found)), replace=False))]
    if settings.bound == "paired":
        raise ValueError("the certificates were made from others; only those can be sampled again")
    indices = [certificate.index for certificate in chosen]
    again = {c.index: c for c in certification.certify_dataset(checkpoint, dataset, indices, settings)}
    exact = header["device"] == jax.local_devices()[0].device_kind and header["versions"] == provenance.versions()
    return [message for one in chosen for message in _differences(one, again[one.index], exact)]


def _differences(one: record.Certificate, other: record.Certificate, exact: bool) -> list[str]:
    if not exact:
        moved = np.abs(np.subtract(one.counts, other.counts)).sum() / 2
        if one.num_estimation == other.num_estimation and moved <= TOLERANCE * one.num_estimation:
            return []
    return [
        f"image {one.index}: {name} is {getattr(one, name)}; drawn again it is {getattr(other, name)}"
        for name in _COMPARED
        if getattr(one, name) != getattr(other, name)
    ]
