"""Command `deqsmooth-certify --predict`: the smoothed classes of images, without radii."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import rich.console

from deqsmooth import certification, checkpoints, data, flags, prediction, progress, provenance

_IMAGES = 64


def run(arguments: flags.Certify, console: rich.console.Console) -> int:
    """Predicts the classes of the chosen images and writes them line by line."""
    selection, settings = arguments.selection, arguments.smoothing
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma))
    indices = np.array(selection.indices(len(dataset)))
    prediction.check(settings)
    programs = certification.prepare(checkpoint, settings, checkpoint.model.image_shape, len(indices))
    header = provenance.header(checkpoint, selection, settings, dataset.identity) | {"kind": "predictions"}
    out = arguments.out or pathlib.Path("runs", f"{selection.dataset}-predictions-{header['sha256'][:8]}.jsonl")
    right = abstained = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x") as file, progress.bar(console) as shown:
            print(json.dumps(header), file=file, flush=True)
            shown.add_task("", total=len(indices))
            for begin in range(0, len(indices), _IMAGES):
                chosen = indices[begin : begin + _IMAGES]
                images, labels = dataset.take(chosen.tolist())
                found = prediction.predict(checkpoint, images, settings, indices=chosen, programs=programs)
                for index, label, one in zip(chosen.tolist(), labels.tolist(), found, strict=True):
                    line = {"index": index, "label": label, "prediction": one.label, "counts": one.counts}
                    print(json.dumps(line), file=file, flush=True)
                    right += one.label == label
                    abstained += one.label is None
                    progress.advance(shown, f"{right} right, {abstained} abstentions")
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror}") from None
    console.print(f"{100 * right / len(indices):.1f} % right, {abstained} abstentions, to {out}")
    return 0
