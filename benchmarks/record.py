"""Records of a benchmark: certificates of a row, made or resumed, and the files of a folder, loose or packed."""

from __future__ import annotations

import pathlib
import sys

import deqsmooth as ds
from deqsmooth.certificates import jsonl


def certify(name, settings, selection, checkpoint, dataset, out) -> list[ds.Certificate]:
    """Returns the certificates of a row; those that its file in `out` lacks are made and appended."""
    print(name, file=sys.stderr, flush=True)
    path = out / f"{name.replace(' ', '-').replace(',', '')}.jsonl"
    indices = selection.indices(len(dataset))
    return list(ds.certify_dataset(checkpoint, dataset, indices, settings, out=path, selection=selection))


def texts(folder: pathlib.Path) -> dict[str, str]:
    """Returns the texts of a folder's `.jsonl` files by their stems, sorted.

    A file may be loose or in an archive `.tar.gz`; a loose file replaces an archived one with the same name.
    """
    paths = [*folder.glob("*.tar.gz"), *folder.glob("*.jsonl")]
    found = {pathlib.PurePath(name).stem: text for path in paths for name, text in jsonl.texts(path)}
    return dict(sorted(found.items()))
