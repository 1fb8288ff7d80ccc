"""Merging: the files of several processes or machines become the file that one process would have written."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deqsmooth.certificates import headers, jsonl, plan, record, verification, writing


class Merged(NamedTuple):
    """What was merged.

    Attributes:
      num_certificates: number of certificates in the new file.
      num_planned: number of images of the run; None for files of schema 1 to 3, which do not say it.
      unreadable: indices of images without a certificate because they could not be read.
      doubled: indices of images that several files have a certificate of.
    """

    num_certificates: int
    num_planned: int | None
    unreadable: list[int]
    doubled: list[int]


def merge(paths: Sequence[jsonl.Path], out: jsonl.Path, *, partial: bool = False) -> Merged:
    """Writes the certificates of several files to one, in the order of their images.

    An image may be in several files if their certificates differ only in the seconds; the first is kept. The new
    file has the plan of the whole run, and an end line if no image of it is missing.

    Args:
      paths: files with equal headers.
      out: file that is written; it must not exist.
      partial: whether images may be missing.

    Raises:
      ValueError: a file cannot be read, does not verify or is given twice; headers or certificates differ; images
        are missing; or `out` exists or cannot be written.
    """
    if pathlib.Path(out).exists():
        raise ValueError(f"{out} exists; it must be a new file")
    files = _verified(paths)
    whole = _whole_run(files)
    if not partial:
        _check_complete(files, whole)
    certificates: dict[int, record.Certificate] = {}
    found: dict[int, jsonl.Line] = {}
    unreadable: dict[int, jsonl.Line] = {}
    doubled = set()
    for file in files:
        for line in file.file.lines:
            if isinstance(line.entry, record.Unreadable):
                unreadable[line.entry.index] = line
            elif isinstance(line.entry, record.Certificate):
                index = line.entry.index
                first = certificates.setdefault(index, line.entry)
                if found.setdefault(index, line) is not line:
                    doubled.add(index)
                if dataclasses.replace(first, seconds=line.entry.seconds) != line.entry:
                    raise ValueError(f"{file.name} says of image {index} what a file before it does not")
    lines = {**unreadable, **found}
    header = functools.reduce(lambda one, other: headers.common(one, other) or one, (x.header for x in files))
    writer = writing.Writer(out, header, whole)
    try:
        with writer:
            for index in sorted(lines):
                writer.write_line(lines[index])
    except BaseException:
        # The file is new and not whole; without it, the same command can be given again.
        pathlib.Path(out).unlink(missing_ok=True)
        raise
    return Merged(
        len(found),
        None if whole is None else len(whole.images),
        sorted(unreadable.keys() - found.keys()),
        sorted(doubled),
    )


def _verified(paths: Sequence[jsonl.Path]) -> list[verification.Checked]:
    """The files, each of which verifies and has the header of the first."""
    if not paths:
        raise ValueError("no file of certificates is given")
    files: list[verification.Checked] = []
    known: dict[pathlib.Path, jsonl.Path] = {}
    for path in paths:
        place = pathlib.Path(path).resolve()
        if place in known:
            same = "" if str(known[place]) == str(path) else f", also as {known[place]}"
            raise ValueError(f"{path} is given twice{same}")
        known[place] = path
        file = verification.verify(path).must_hold("only what verifies is merged")
        if files and headers.common(files[0].header, file.header) is None:
            different = headers.differences(files[0].header, file.header, "in the first", "in the second")
            raise ValueError(f"{paths[0]} and {path} are of different runs: {different}; only one run is merged")
        files.append(file)
    return files


def _whole_run(files: Sequence[verification.Checked]) -> plan.Plan | None:
    """The plan of the run that the files are shares of; None in schemas 1 to 3, or if no file has a plan line."""
    images = {index for file in files for one in file.file.plans for index in one.images}
    return plan.Plan(sorted(images)) if images else None


def _check_complete(files: Sequence[verification.Checked], whole: plan.Plan | None) -> None:
    """Raises `ValueError` if images are missing; says which, and which files were left out or have not ended."""
    accept = "--partial merges what is there"
    if whole is None:
        for file in files:
            if file.planned is not None or not file.file.is_whole:
                raise ValueError(f"{file.name} is incomplete: {file.incomplete}; {accept}")
        return
    there = {one.index for file in files for one in file.found}
    there |= {one.index for file in files for one in file.unreadable}
    missing = [index for index in whole.images if index not in there]
    if not missing:
        return
    reasons = "".join(f"; {reason}" for reason in _reasons(files, whole, there))
    raise ValueError(
        f"{len(missing)} of {len(whole.images)} images are missing ({plan.first(missing)}){reasons}; {accept}"
    )


def _reasons(files: Sequence[verification.Checked], whole: plan.Plan, there: set[int]) -> Iterator[str]:
    """Yields the shares of the run that no file is of, and the files that have too few images.

    Args:
      files: that are merged.
      whole: plan of the run.
      there: images that some file has.
    """
    shares: dict[tuple[int, int], str] = {one.share: file.name for file in files for one in file.file.plans}
    totals = {total for _, total in shares}
    if len(totals) > 1:
        for file in files:
            num = len(file.planned or ())
            if not there.issuperset(file.missing):
                yield f"{file.name} has {num - len(file.missing)} of {num} images"
        return
    (total,) = totals
    left_out, num_left_out = [], 0
    for number in range(total):
        own = plan.Plan(whole.images, (number, total)).own
        num = sum(index not in there for index in own)
        if num and (number, total) in shares:
            yield f"{shares[number, total]} has {len(own) - num} of {len(own)} images"
        elif num:
            left_out.append(str(number))
            num_left_out += num
    if len(left_out) == 1:
        yield f"share {left_out[0]} of {total} was not given ({num_left_out} images)"
    elif left_out:
        names = f"{', '.join(left_out[:-1])} and {left_out[-1]}"
        yield f"shares {names} of {total} were not given ({num_left_out} images)"
