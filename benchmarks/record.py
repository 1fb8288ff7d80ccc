"""A row of a benchmark: certificates under one name, in a file that a second run goes on with."""

from __future__ import annotations

import sys

import deqsmooth as ds
from deqsmooth.smoothing import provenance


def certify(name, settings, selection, checkpoint, dataset, out) -> list[ds.Certificate]:
    """Certificates of one row, from its file or made now."""
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
    with ds.Writer(out / f"{name.replace(' ', '-').replace(',', '')}.jsonl", header) as writer:
        left = writer.left(selection.indices(len(dataset)))
        if left:
            print(f"{name}: {len(left)} images", file=sys.stderr, flush=True)
            for certificate in ds.certify_dataset(checkpoint, dataset, left, settings):
                writer.write(certificate)
        return writer.done
