"""Command `deqsmooth-certify --predict`: the smoothed classes of images, without radii."""

from __future__ import annotations

import pathlib

import numpy as np
import rich.console

from deqsmooth import data
from deqsmooth.certificates import writing
from deqsmooth.commands import certify, progress, shares
from deqsmooth.models import checkpoints
from deqsmooth.smoothing import certification, prediction, provenance

_IMAGES = 64


def run(arguments: certify.Flags, console: rich.console.Console) -> int:
    """Predicts the classes of the chosen images and writes them line by line."""
    selection, settings = arguments.selection, arguments.smoothing
    share = shares.own(arguments)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma))
    indices = np.array(share.of(selection.indices(len(dataset))), int)
    prediction.check(settings)
    settings = certification.fit(checkpoint, settings, checkpoint.model.image_shape, len(indices))
    programs = certification.prepare(checkpoint, settings, checkpoint.model.image_shape, len(indices))
    header = provenance.header(checkpoint, selection, settings, dataset.identity) | {"kind": "predictions"}
    out = arguments.out or pathlib.Path("runs", f"{selection.dataset}-predictions-{header['sha256'][:8]}.jsonl")
    out = share.file(out)
    with writing.Lines(out, header) as file, progress.bar(console) as shown:
        found = list(file.records)
        done = {record["index"] for record in found}
        left = np.array([index for index in indices.tolist() if index not in done], int)
        progress.begin(shown, "", len(indices), len(found))
        for begin in range(0, len(left), _IMAGES):
            chosen = left[begin : begin + _IMAGES]
            images, labels = dataset.take(chosen.tolist())
            predicted = prediction.predict(checkpoint, images, settings, indices=chosen, programs=programs)
            for index, label, one in zip(chosen.tolist(), labels.tolist(), predicted, strict=True):
                found.append({"index": index, "label": label, "prediction": one.label, "counts": one.counts})
                file.append(found[-1])
                progress.advance(shown, "{} right, {} abstentions".format(*_tally(found)))
    right, abstained = _tally(found)
    share_right = 100 * right / max(len(indices), 1)
    console.print(f"{share.introduction()}{share_right:.1f} % right, {abstained} abstentions, to {out}")
    return 0


def _tally(found) -> tuple[int, int]:
    """How many predictions are right, and how many abstain."""
    right = sum(record["prediction"] == record["label"] for record in found)
    return right, sum(record["prediction"] is None for record in found)
