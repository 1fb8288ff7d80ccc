"""Headers of files of records: the settings that one holds, and which of them differ between two."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from deqsmooth import config
from deqsmooth.config import checks, probability, serialization
from deqsmooth.statistics import bounds, looks

# Groups of entries, in the order in which a message names them. The last ones follow from others.
_SETTINGS = ("schema", "smoothing", "selection", "attack", "radii")
_CONSEQUENCES = ("reference", "model", "training", "start_training")
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")
_NAMES = {
    "reference.checkpoint": "model",
    "data": "data set",
    "certificates": "file of certificates",
    "before.sha256": "file of the original certificates",
}
_MOST = 4
_PROCESSOR = ("processor", "vector")
"""Entries of the processor of a run, in which the parts of one run may differ."""


class Terms(NamedTuple):
    """What a header lays down for the lines after it.

    Attributes:
      schema: version of the format.
      settings: of the votes.
      selection: of the images.
      solves: whether the classifier has an equilibrium to solve for.
      num_images: number of images of the data set; None if it is not known.
      noise_error: of a sample of an image; see `ds.Smoothing.noise_error`.
    """

    schema: int
    settings: config.Smoothing
    selection: config.Selection
    solves: bool
    num_images: int | None
    noise_error: float

    def check_index(self, index: int) -> Iterator[str]:
        """Yields what is wrong with the index of an image; nothing if the header selects it."""
        if not self.selection.selects(index):
            yield f"index is {index}, which the header does not select"
        elif self.num_images is not None and index >= self.num_images:
            yield f"index is {index}, beyond the {self.num_images} images of the data set"


def terms(name: object, header: dict[str, Any]) -> Terms:
    """What the header of a file lays down; settings that an old header lacks take their defaults.

    Raises:
      ValueError: it holds no settings, or impossible ones.
    """
    try:
        schema, num_images = header["schema"], header["num_images"] if header["schema"] > 3 else None
        encoded = {key: x for key, x in header["smoothing"].items() if x is not None}
        kind = config.Paired if encoded.get("bound") == bounds.PAIRED else config.Smoothing
        if kind is config.Paired and schema < 3:
            for old, new in (("num_audit", "num_pairs"), ("alpha_audit", "alpha_pairs")):
                encoded[new] = encoded.pop(old)
        if "looks" in encoded:
            # Looks shared alpha equally before headers said how.
            encoded.setdefault("spending", looks.EQUAL)
        is_size = num_images is None or (type(num_images) is int and num_images > 0)
        checks.holds(is_size, "num_images", num_images, "a positive whole number or null")
        settings = serialization.from_json(kind, serialization.without_retired(kind, encoded))
        image_shape = header["image_shape"] if settings.grid else ()
        if schema > 4:
            expected = noise(settings, image_shape)
            checks.holds(header["noise"] == expected, "noise", header["noise"], f"{expected}, by the settings")
        return Terms(
            schema,
            settings,
            serialization.from_json(config.Selection, header["selection"]),
            header["reference"]["solver"] is not None,
            num_images,
            settings.noise_error(image_shape),
        )
    except KeyError as error:
        raise ValueError(f"{name}, line 1: the header has no entry {error}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{name}, line 1: the header holds no settings of a certification: {error}") from None


def noise(settings: config.Smoothing, image_shape: Sequence[int]) -> dict[str, Any]:
    """The entry of a header that says how noise is drawn; `error` is that of a sample, None if nothing is known.

    Args:
      settings: of the votes.
      image_shape: (height, width, channels); not read for Gaussian noise.
    """
    error = settings.noise_error(image_shape) if settings.grid else None
    return {"kind": settings.noise, "generator": probability.GENERATOR, "error": error}


def check_digest(header: dict[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the digest of a header; nothing if it is right."""
    stated = header.get("sha256")
    digest = serialization.digest({name: x for name, x in header.items() if name != "sha256"})
    if stated != digest:
        yield f"sha256 is {stated}; the header's is {digest}"


def same_run(name: object, found: dict[str, Any], header: dict[str, Any]) -> None:
    """Raises `ValueError` unless the header of a file that exists is that of the run that is to go on in it."""
    if found != header:
        raise ValueError(
            f"{name} was begun by another run: {differences(found, header, 'in the file', 'now')}; "
            "a file holds one run: give another --out, or the same settings to resume"
        )


def common(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """The header of one run whose parts have these headers; None if they are of different runs.

    Parts may come from different processors: their certificates are those of the same classifier up to rounding.
    The common header then names no processor, so that a replay does not ask for equal votes.
    """
    if one == other:
        return one
    unnamed = ({**header, **dict.fromkeys(_PROCESSOR), "sha256": None} for header in (one, other))
    first, second = unnamed
    if first != second or any(name not in header for header in (one, other) for name in _PROCESSOR):
        return None
    del first["sha256"]
    return {**first, "sha256": serialization.digest(first)}


def differences(one: dict[str, Any], other: dict[str, Any], where: str, elsewhere: str) -> str:
    """The first few entries that two headers differ in, for a message: settings first, digests last.

    Example:
      >>> one, other = ({"smoothing": {"seed": seed}, "sha256": str(seed)} for seed in (1, 2))
      >>> differences(one, other, "in the file", "now")
      'seed is 1 in the file and 2 now'
    """
    if one.get("kind") != other.get("kind"):
        return f"kind is {json.dumps(one.get('kind'))} {where} and {json.dumps(other.get('kind'))} {elsewhere}"
    first, second = dict(_flat(one)), dict(_flat(other))
    different = [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    # The digest of the header follows from its entries, and the reference from the settings.
    if len(different) > 1:
        different = [name for name in different if name != "sha256"]
    if any(_rank(name) == 0 for name in different):
        different = [name for name in different if not name.startswith("reference.") or name in _NAMES]
    found = []
    for name in sorted(different, key=lambda name: (_rank(name), name != "schema", name)):
        values = [json.dumps(x.get(name)) for x in (first, second)]
        if any(isinstance(x.get(name), str) and _DIGEST.fullmatch(x[name]) for x in (first, second)):
            found.append(f"the {_NAMES.get(name, name)} differs")
        else:
            short = name.split(".", 1)[1] if _rank(name) == 0 and "." in name else name
            found.append(f"{short} is {values[0]} {where} and {values[1]} {elsewhere}")
    return "; ".join(found[:_MOST]) + (f"; and {len(found) - _MOST} more" if len(found) > _MOST else "")


def _rank(name: str) -> int:
    group = name.split(".")[0]
    if group in _SETTINGS:
        return 0
    if name in _NAMES or name == "sha256":
        return 2
    return 3 if group in _CONSEQUENCES else 1


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of a header, those of nested objects under names with dots."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
