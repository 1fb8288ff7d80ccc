"""Pictures of a report: the images that a run is least and most sure of, and those on which runs differ most."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from deqsmooth.certificates import rounding, statements
from deqsmooth.reports import comparisons
from deqsmooth.reports.runs import Run

_NUM = 6
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Pixels; larger images are made smaller.
_LARGEST_SIDE = 224


@runtime_checkable
class Dataset(Protocol):
    """The images of a data set, as a `deqsmooth.Dataset` has them."""

    @property
    def identity(self) -> str:
        """Name, version and split, by which records identify the data."""
        ...

    @property
    def class_names(self) -> Sequence[str] | None:
        """Name of each class; None if they have only numbers."""
        ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int | None]:
        """The image with an index, float32 in [0, 1] [height, width, channels], and its label."""
        ...


class Picture(NamedTuple):
    """An image with what runs say of it.

    Attributes:
      png: the image as PNG.
      lines: what is below it, line by line.
    """

    png: bytes
    lines: tuple[str, ...]


class Row(NamedTuple):
    """Pictures side by side.

    Attributes:
      title: what they have in common.
      pictures: the pictures.
    """

    title: str
    pictures: tuple[Picture, ...]


class Album(NamedTuple):
    """The pictures of a report.

    Attributes:
      extremes: the least and the most robust images of the first run.
      differing: images on which each other run differs most from the first.
    """

    extremes: tuple[Row, ...]
    differing: tuple[Row, ...]


def album(runs: Sequence[Run], dataset: Dataset) -> Album:
    """The pictures of runs, read from their data set.

    Raises:
      ValueError: the data set is not that of the headers, or an image cannot be read or shown; says why.
    """
    stated = {str(run.checked.header.get("data") or "") for run in runs if run.checked is not None}
    if not stated or stated == {""}:
        raise ValueError("no file says exactly which data its images are from")
    for identity in stated - {dataset.identity}:
        raise ValueError(f"the data set is {dataset.identity}, and the certificates are about {identity}")
    first = runs[0]
    correct = sorted((line for line in first.found if line.correct), key=lambda line: (line.radius, line.index))
    least, rest = correct[:_NUM], correct[_NUM:]
    whose = f", {first.label}" if len(runs) > 1 or first.mark else ""
    rows = [
        (f"Least robust of the correctly classified images{whose}", least),
        (f"Most robust of the correctly classified images{whose}", rest[-_NUM:][::-1]),
    ]
    extremes = tuple(
        Row(title, tuple(_picture(dataset, [("", line)]) for line in lines)) for title, lines in rows if lines
    )
    return Album(extremes, tuple(_differing(first, run, dataset) for run in runs[1:]))


def _differing(first: Run, second: Run, dataset: Dataset) -> Row:
    pairs = comparisons.differing(first, second, _NUM)
    title = f"Images on which {second.short} and {first.short} differ most: prediction and radius of each"
    letters = (f"{first.short}: ", f"{second.short}: ")
    return Row(title, tuple(_picture(dataset, list(zip(letters, pair, strict=True))) for pair in pairs))


def _picture(dataset: Dataset, said: Sequence[tuple[str, statements.Image]]) -> Picture:
    """An image with what runs say of it, each after the letter of the run.

    Raises:
      ValueError: see `album`.
    """
    index, label = said[0][1].index, said[0][1].label
    try:
        pixels, own = dataset[index]
        png = _png(pixels)
    except (IndexError, ValueError) as error:
        raise ValueError(f"image {index}: {' '.join(str(error).split())}") from None
    if own is not None and own != label:
        raise ValueError(f"image {index} has label {own} in the data set and {label} in the file")
    return Picture(png, (f"image {index}", f"label {_name(dataset, label)}", *_said(dataset, said)))


def _said(dataset: Dataset, said: Sequence[tuple[str, statements.Image]]) -> list[str]:
    """Prediction and radius of a single run in a line each, those of several in one line a run."""
    predictions = ["abstains" if one.prediction is None else _name(dataset, one.prediction) for _, one in said]
    radii = [rounding.radius(one.radius) for _, one in said]
    if len(said) == 1:
        return [f"prediction {predictions[0]}", f"radius {radii[0]}"]
    letters = [letter for letter, _ in said]
    return [
        letter + (says if one.prediction is None else f"{says}, {radius}")
        for letter, says, radius, (_, one) in zip(letters, predictions, radii, said, strict=True)
    ]


def _name(dataset: Dataset, number: int | None) -> str:
    """Name of a class, or its number if it has none."""
    known = dataset.class_names or ()
    return known[number] if number is not None and 0 <= number < len(known) else str(number)


def _png(pixels: np.ndarray) -> bytes:
    """An image as PNG.

    Raises:
      ValueError: it has a number of channels that no picture has.
    """
    if pixels.ndim != 3 or pixels.shape[-1] not in _MODES:
        raise ValueError(f"its shape is {pixels.shape}; a picture has 1, 3 or 4 channels")
    whole = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()
