"""Replay: certificates are sampled again; the same noise through the same model must give the same votes.

Labels, which no vote depends on, are compared with those of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deqsmooth import arithmetic, config, data
from deqsmooth.certificates import jsonl, record, verification
from deqsmooth.config import checks
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, inputs, provenance
from deqsmooth.statistics import bounds

_COMPARED = ("selected", "counts_selection", "counts", "num_audit", "mismatches", "evaluations")
TOLERANCE = 0.001
"""Largest share of an image's samples whose class may differ on another kind of device, by rounding."""


def is_exact(header: dict[str, Any]) -> bool:
    """Whether this machine and code promise the votes of a file bit for bit, see `arithmetic.is_same`."""
    return arithmetic.is_same(header, {**arithmetic.description(), "versions": provenance.versions()})


def choice(found: Sequence[record.Certificate], num: int, rng: np.random.Generator) -> list[record.Certificate]:
    """The certificates, in the order of the file, that `replay` draws again with a generator in the same state."""
    return [found[place] for place in sorted(rng.choice(len(found), min(num, len(found)), replace=False))]


def verify(
    path: jsonl.Path,
    classifier: Any = None,
    dataset: data.Dataset | None = None,
    *,
    num: int = 3,
    seed: int | None = None,
) -> verification.Checked:
    """Checks a file of certificates: every value that follows from its votes, and with a classifier also votes.

    Without a classifier, the settings, the chain of lines, every bound, radius and prediction are computed again
    from the file. With one, every label is compared with that of the data set, for which the images are read, and
    the votes of `num` certificates are drawn again from their seeds. On a machine and with code that promise the
    same bits all counts must be equal. Elsewhere at most a thousandth of an image's votes may differ.

    Args:
      path: the file, which may be compressed (`.gz`).
      classifier: that the certificates are about, or anything that `ds.classifier` takes without variables; None
        to check the file alone.
      dataset: the images; by default the data set that the file names, in TFDS's default folder. Those of arrays
        must be given: see `ds.arrays`.
      num: number of certificates, chosen at random, whose samples are drawn and classified again.
      seed: of the choice; by default it is another one at each call, so that who made the file cannot know it.

    Returns:
      The content of the file and its differences; `differences` is empty if all holds.

    Raises:
      ValueError: it cannot be read, is no file of certificates, or is about another classifier or other images;
        `num` is below 1; an image cannot be read; or votes of recertified certificates are to be drawn again.

    Example:
      >>> import tempfile
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> import jax.numpy as jnp
      >>> def brightness(images):
      ...     score = images.mean((1, 2, 3)) - 0.3
      ...     return jnp.stack([score, -score], -1)
      >>> images, out = np.full((2, 8, 8, 1), 0.6), tempfile.mkdtemp() + "/run.jsonl"
      >>> settings = ds.Smoothing(sigma=0.25, num_estimation=200)
      >>> found = list(ds.certify(brightness, images, settings, out=out))
      >>> ds.verify(out, brightness, ds.arrays(images)).differences
      []
    """
    checks.holds(isinstance(num, int) and num >= 1, "num", num, "an integer, at least 1")
    is_seed = seed is None or (isinstance(seed, int) and seed >= 0)
    checks.holds(is_seed, "seed", seed, "an integer from 0, or None")
    checked = verification.verify(path)
    if classifier is None or not checked.found:
        return checked
    if dataset is None:
        selection = checked.selection
        if selection.dataset == "arrays":
            raise ValueError(f"{path} is about images of arrays; give them as `dataset`, made by ds.arrays")
        dataset = data.load(selection.dataset, selection.split)
    made, rng = classifiers.classifier(classifier), np.random.default_rng(seed)
    inputs.given(dataset, checked.settings)
    found = replay(checked.header, checked.found, checked.settings, made, dataset, num, rng)
    return checked.with_differences(found)


def replay(
    header: dict[str, Any],
    found: Sequence[record.Certificate],
    settings: config.Smoothing,
    checkpoint: classifiers.Classifier,
    dataset: data.Dataset,
    num: int,
    rng: np.random.Generator,
) -> list[tuple[int, str]]:
    """Compares the labels of a file with those of the data set, and votes of some certificates with new draws.

    On a machine and with code that promise the same bits, see `arithmetic.is_same`, all counts must be equal.
    Elsewhere a certificate passes if at most a thousandth of its estimation votes are for another class.

    Args:
      header: of the file.
      found: its certificates.
      settings: of the header.
      checkpoint: the model that the header names.
      dataset: the images that it names.
      num: number of certificates, chosen at random, whose votes are drawn again; all if there are fewer.
      rng: of the choice.

    Returns:
      Every difference, with the index of its image.

    Raises:
      ValueError: model or data are not those of the header, the certificates are paired, or an image cannot be
        read.
    """
    provenance.agree(header, checkpoint, dataset)
    chosen = choice(found, num, rng)
    if settings.bound == bounds.PAIRED:
        raise ValueError("the certificates were made from others; only those can be sampled again")
    labels = list(_mislabelled(found, dataset))
    indices = [certificate.index for certificate in chosen]
    again = {c.index: c for c in certification.certify_dataset(checkpoint, dataset, indices, settings)}
    # Whether a vote at the limit of the rounding is settled depends on where its solve begins.
    exact = is_exact(header) and not (settings.settle is not None and settings.start in config.SERIAL_STARTS)
    # With the start `previous`, evaluations until a vote is settled depend on other samples.
    names = [name for name in _COMPARED if settings.settle is None or name != "evaluations"]
    votes = [(one.index, x) for one in chosen for x in _differences(one, again[one.index], names, exact)]
    return [*labels, *votes]


def _mislabelled(found: Sequence[record.Certificate], dataset: data.Dataset) -> Iterator[tuple[int, str]]:
    """The certificates whose label is not that of the data set, as index and message."""
    for one in found:
        if one.index >= len(dataset):
            raise ValueError(f"image {one.index} is not in the data set, which has {len(dataset)} images")
        try:
            _, label = dataset.stored(one.index)
        except ValueError as error:
            raise ValueError(f"image {one.index}: {error}") from None
        if label != one.label:
            yield one.index, f"image {one.index}: label is {_shown(one.label)}; the data set has {_shown(label)}"


def _shown(label: int | None) -> str:
    return "none" if label is None else str(label)


def _differences(
    one: record.Certificate, other: record.Certificate, names: Sequence[str], exact: bool
) -> list[str]:
    if not exact and len(one.counts) == len(other.counts) and one.num_estimation == other.num_estimation:
        moved = np.abs(np.subtract(one.counts, other.counts)).sum() / 2
        if moved <= TOLERANCE * one.num_estimation:
            return []
    return [
        f"image {one.index}: {name} is {getattr(one, name)}; drawn again it is {getattr(other, name)}"
        for name in names
        if getattr(one, name) != getattr(other, name)
    ]
