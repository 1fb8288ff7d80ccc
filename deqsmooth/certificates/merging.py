"""Files of one run brought together: the certificates of several processes or machines, as if one had made them.

Needs neither JAX nor the model.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from deqsmooth.certificates import jsonl, record, verification


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> int:
    """Writes the certificates of several files to one, in the order of their images.

    An image may be in several files if all say the same of it, but for the seconds; the first is kept.

    Args:
      paths: files with equal headers.
      out: file that is written; it must not exist.

    Returns:
      How many certificates it has.

    Raises:
      ValueError: a file cannot be read or does not verify, headers or certificates differ, or `out` exists.
    """
    if pathlib.Path(out).exists():
        raise ValueError(f"{out} exists; certificates are merged into a file of their own")
    files = [verification.verify(path) for path in paths]
    found: dict[int, record.Certificate] = {}
    unreadable: dict[int, record.Unreadable] = {}
    for path, file in zip(paths, files, strict=True):
        if file.differences:
            raise ValueError(f"{file.differences[0]}; only what verifies is merged")
        record.same_run(path, file.header, files[0].header)
        for certificate in file.found:
            first = found.setdefault(certificate.index, certificate)
            if dataclasses.replace(first, seconds=certificate.seconds) != certificate:
                raise ValueError(f"{path} says of image {certificate.index} what a file before it does not")
        unreadable.update({entry.index: entry for entry in file.unreadable})
    entries: dict[int, record.Certificate | record.Unreadable] = {**unreadable, **found}
    with jsonl.Writer(out, files[0].header) as writer:
        for index in sorted(entries):
            writer.write(entries[index])
    return len(found)
