"""Merging: the files of several processes or machines become the file that one process would have written."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from deqsmooth.certificates import jsonl, record, verification, writing


def merge(paths: Sequence[jsonl.Path], out: jsonl.Path) -> int:
    """Writes the certificates of several files to one, in the order of their images.

    An image may be in several files if their certificates differ only in the seconds; the first is kept.

    Args:
      paths: files with equal headers.
      out: file that is written; it must not exist.

    Returns:
      The number of its certificates.

    Raises:
      ValueError: a file cannot be read or does not verify, headers or certificates differ, or `out` exists.
    """
    if pathlib.Path(out).exists():
        raise ValueError(f"{out} exists; it must be a new file")
    files = [verification.verify(path) for path in paths]
    certificates: dict[int, record.Certificate] = {}
    found: dict[int, jsonl.Line] = {}
    unreadable: dict[int, jsonl.Line] = {}
    for path, file in zip(paths, files, strict=True):
        if file.differences:
            raise ValueError(f"{file.differences[0]}; only what verifies is merged")
        jsonl.same_run(path, file.header, files[0].header)
        for line in file.file.lines:
            if isinstance(line.entry, record.Unreadable):
                unreadable[line.entry.index] = line
                continue
            first = certificates.setdefault(line.entry.index, line.entry)
            found.setdefault(line.entry.index, line)
            if dataclasses.replace(first, seconds=line.entry.seconds) != line.entry:
                raise ValueError(f"{path} says of image {line.entry.index} what a file before it does not")
    lines = {**unreadable, **found}
    with writing.Writer(out, files[0].header) as writer:
        for index in sorted(lines):
            writer.write_values(lines[index].values)
    return len(found)
