"""Command `deqsmooth-certify --predict`: from images to a file of their smoothed classes, without radii."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import rich.console

from deqsmooth import config, data
from deqsmooth.certificates import predictions, rounding, writing
from deqsmooth.commands import progress, shares
from deqsmooth.models import checkpoints
from deqsmooth.smoothing import certification, inputs, prediction, provenance

_IMAGES = 64
"""Number of images that are read at a time."""


def run(
    selection: config.Selection,
    settings: config.Smoothing,
    share: shares.Share,
    console: rich.console.Console,
    *,
    folder: pathlib.Path | None,
    out: pathlib.Path | None,
    download: bool,
) -> int:
    """Predicts the classes of the images that have none in the file yet, and prints the accuracy.

    Args:
      selection: of the images.
      settings: of the votes.
      share: of this process.
      console: that progress is printed to.
      folder: of the model; None for the one shipped for the data set and sigma.
      out: file of the predictions; None for one in `runs/`.
      download: whether TFDS may download what is missing.

    Returns:
      The exit status.
    """
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=download)
    checkpoint = checkpoints.load_or_shipped(folder, selection.dataset, settings.sigma, settings.settle)
    chosen = selection.indices(len(dataset))
    indices = share.of(chosen)
    settings = prediction.voting(checkpoint, settings)
    # Those of all shares: a share may have no image.
    image = inputs.first_usable(checkpoint, dataset, chosen, settings)
    dataset.check_classes(certification.check(checkpoint, settings, image))
    settings = certification.fit(checkpoint, settings, image.shape, len(indices))
    header = predictions.header(provenance.header(checkpoint, selection, settings, dataset, image.shape))
    out = out or pathlib.Path("runs", f"{selection.file_name}-predictions-{header['sha256'][:8]}.jsonl")
    out = share.file(out)
    with writing.Lines(out, header, predictions.read) as file:
        found = file.done
        done = {one.index for one in found}
        left = [index for index in indices if index not in done]
        programs = certification.prepare(checkpoint, settings, image.shape, len(indices)) if left else None
        with progress.bar(console) as shown:
            progress.begin(shown, "", len(indices), len(found))
            for begin in range(0, len(left), _IMAGES):
                batch = left[begin : begin + _IMAGES]
                images, labels = dataset.take(batch)
                predicted = prediction.predict(
                    checkpoint, images, settings, indices=batch, programs=programs, skip_soundness_check=True
                )
                for index, label, one in zip(batch, labels.tolist(), predicted, strict=True):
                    file.write(predictions.Prediction(index, label, one.label, one.counts))
                    progress.advance(shown, _accuracy(found))
    console.print(f"{share.prefix()}{_accuracy(found)}, to {out}")
    return 0


def _accuracy(found: Sequence[predictions.Prediction]) -> str:
    """The share of right predictions and the number of abstentions, as text."""
    right = sum(bool(one.correct) for one in found)
    abstained = sum(one.prediction is None for one in found)
    return f"{rounding.percent(right / max(len(found), 1))} % right, {abstained} abstentions"
