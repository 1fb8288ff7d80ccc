"""The trained models that the package contains: their names and folders."""

from __future__ import annotations

import pathlib

FOLDER = pathlib.Path(__file__).parent.parent / "shipped"
"""Each of its folders is a model."""


def names() -> list[str]:
    """Returns the names of the models, sorted."""
    return sorted(x.name for x in FOLDER.iterdir() if x.is_dir())


def folder(dataset: str, sigma: float, settle: str | None = None) -> pathlib.Path:
    """Returns the folder of the model that the package contains for a data set and sigma.

    Args:
      dataset: `digits` or `cifar10`.
      sigma: standard deviation of the noise that the model was trained with, 0.25 or 0.5.
      settle: `proof` for a model whose votes can be settled by proof, a contraction.

    Raises:
      ValueError: there is none; the message names the shipped models.

    Example:
      >>> import deqsmooth as ds
      >>> ds.shipped("digits", 0.5).name
      'digits-0.5'
    """
    if not isinstance(dataset, str) or not isinstance(sigma, float | int):
        raise ValueError(f"data set and sigma are {dataset!r} and {sigma!r}; they must be a string and a number")
    found = FOLDER / (f"{dataset}-{sigma:g}" + ("" if settle is None else "-contraction"))
    if not found.is_dir():
        shipped = ", ".join(names())
        wanted = f"data set {dataset} at sigma {sigma:g}" + ("" if settle is None else f" with settle {settle!r}")
        raise ValueError(
            f"no model is shipped for {wanted} (shipped: {shipped}); train one with train.py or convert one with "
            "deqsmooth-convert, and give its folder as --checkpoint, or the name of another shipped one"
        )
    return found
