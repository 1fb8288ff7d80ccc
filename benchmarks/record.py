"""A row of a benchmark: certificates under one name, in a file that a second run goes on with."""

from __future__ import annotations

import sys

import deqsmooth as ds
from deqsmooth import provenance


def certify(name, settings, selection, checkpoint, dataset, out) -> list[ds.Certificate]:
    """Certificates of one row, from its file or made now."""
    indices = list(selection.indices(len(dataset)))
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
    with ds.Writer(out / f"{name.replace(' ', '-').replace(',', '')}.jsonl", header) as writer:
        done = {certificate.index for certificate in writer.done}
        left = [index for index in indices if index not in done]
        if left:
            print(f"{name}: {len(left)} images", file=sys.stderr, flush=True)
            for certificate in ds.certify_dataset(checkpoint, dataset, left, settings):
                writer.write(certificate)
                writer.done.append(certificate)
        return writer.done
